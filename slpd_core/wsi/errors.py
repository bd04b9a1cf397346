"""Bad slides: what is the slide's own fault, what to do about it, and when it is quarantined."""

import re
from pathlib import Path

from slpd_core.runtime import escape_controls

MAX_REASON_CHARS = 1000
COPY_AGAIN = "copy it again or remove it from the sheet"
MISSING_TILES = (
    "copy it again, set tissue.missing_tiles to white where its scanner leaves out tiles of glass, or remove it from "
    "the sheet"
)
TO_PYRAMID = "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg --Q 90 --bigtiff"
BY_BIO_FORMATS = (
    "bfconvert -tilex 512 -tiley 512 -pyramid-scale 2 -pyramid-resolutions 5 -compression JPEG IN OUT.ome.tiff "
    "(Bio-Formats)"
)
EXTRACT_PAGE = (
    "convert the one that is the slide: vips tiffload IN OUT.tif[tile,pyramid,compression=jpeg,Q=90,bigtiff] --page 0"
)
SAVE_AS_RGB = "save it as RGB: vips copy IN OUT.tif[tile,pyramid,compression=jpeg,Q=90,bigtiff] --interpretation srgb"
JOIN_CHANNELS = f'join them: vips bandjoin "IN[page=0] IN[page=1] IN[page=2]" JOINED.v; then {SAVE_AS_RGB}'.replace(
    "copy IN", "copy JOINED.v"
)
# What OpenSlide says of files that are whole and of a kind that it does not read.
UNSUPPORTED = re.compile(
    r"unsupported|not supported|unrecognized|cannot handle|bad direction|dissimilar|found multiple|attribute \S+ value|"
    r"inconsistent (?:main|tile|tiff tile)|HiLo|"
    r"unexpected (?:magnification|tile join|media storage|image \(|encounter|directory layout)",
    re.IGNORECASE,
)
# The first bytes of files that are no slides to OpenSlide, what they are, and what converts them.
OTHER_FORMATS = (
    (b"\xff\xd8\xff", "a JPEG picture", TO_PYRAMID),
    (b"\x89PNG", "a PNG picture", TO_PYRAMID),
    (b"II*\0", "a TIFF whose pixels do not lie in tiles", TO_PYRAMID),
    (b"MM\0*", "a TIFF whose pixels do not lie in tiles", TO_PYRAMID),
    (b"II+\0", "a TIFF whose pixels do not lie in tiles", TO_PYRAMID),
    (b"MM\0+", "a TIFF whose pixels do not lie in tiles", TO_PYRAMID),
    (b"ZISRAWFILE", "a CZI of a kind OpenSlide does not know", BY_BIO_FORMATS),
    (b"<DataObject", "an iSyntax", "wsidicomizer -i IN -o OUT (wsidicomizer[isyntax])"),
)


class SlideError(ValueError):
    """What is wrong lies in the slide itself.

    Its message may quote the slide: what does not show is written out, and of a long one the middle is left out.
    """

    def __init__(self, message: str) -> None:
        shown = escape_controls(message)
        half = MAX_REASON_CHARS // 2
        super().__init__(shown if len(shown) <= MAX_REASON_CHARS else f"{shown[:half]} ... {shown[-half:]}")


def explain_refusal(path: Path, vendor: str, error: Exception) -> SlideError:
    """Name what OpenSlide says of a slide that it knows and does not open: unsupported, or broken.

    Args:
        path: the slide's file.
        vendor: its format as OpenSlide calls it.
        error: what OpenSlide raised.
    """
    if UNSUPPORTED.search(str(error)):
        command = TO_PYRAMID if vendor in ("generic-tiff", "aperio") else BY_BIO_FORMATS
        return SlideError(f"{path}: OpenSlide does not read this kind of {vendor} ({error}); convert it: {command}")
    return SlideError(f"{path}: broken slide ({error}); {COPY_AGAIN}")


def explain_unknown_format(path: Path) -> SlideError:
    """Name what a file is that OpenSlide does not know, by its first bytes, and how to convert it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(16).removeprefix(b"\xef\xbb\xbf")
    for magic, kind, command in OTHER_FORMATS:
        if head.startswith(magic):
            return SlideError(f"{path}: not a whole slide, but {kind}; convert it: {command}")
    return SlideError(
        f"{path}: not a whole slide of a format OpenSlide knows; copy it again, remove it from the sheet, or convert "
        f"it where Bio-Formats reads it: {BY_BIO_FORMATS}"
    )


def quarantine_errors(on_bad_slide: str, last_attempt: bool) -> tuple[type[Exception], ...]:
    """The errors that quarantine a slide; all others fail the job, and Snakemake tries it again.

    on_bad_slide: the ledger's setting; with "stop" nothing is quarantined. last_attempt: a file that still cannot be
    read on the last attempt is the slide's own fault, before that perhaps the network's.
    """
    if on_bad_slide == "stop":
        return ()
    return (SlideError, OSError) if last_attempt else (SlideError,)
