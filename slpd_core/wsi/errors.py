"""Errors of bad slides, with remedies, and which of them quarantine a slide."""

import re
from pathlib import Path

from slpd_core.runtime import escape_controls

MAX_REASON_CHARS = 1000
COPY_AGAIN = "copy it again or remove it from the sheet"
MISSING_TILES = (
    "copy it again, set tissue.missing_tiles to white if its scanner leaves out tiles of glass, or remove it from the "
    "sheet"
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
# OpenSlide's messages on files that are whole, but of a kind that it does not read.
UNSUPPORTED = re.compile(
    r"unsupported|not supported|unrecognized|cannot handle|bad direction|dissimilar|found multiple|attribute \S+ value|"
    r"inconsistent (?:main|tile|tiff tile)|HiLo|"
    r"unexpected (?:magnification|tile join|media storage|image \(|encounter|directory layout)",
    re.IGNORECASE,
)
# First bytes of files that OpenSlide does not know, their format, and the command that converts them.
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
    """An error of the slide itself.

    Its message may quote the slide, so control characters are escaped and the middle of a long message is cut.
    """

    def __init__(self, message: str) -> None:
        shown = escape_controls(message)
        half = MAX_REASON_CHARS // 2
        super().__init__(shown if len(shown) <= MAX_REASON_CHARS else f"{shown[:half]} ... {shown[-half:]}")


def explain_refusal(path: Path, vendor: str, error: Exception) -> SlideError:
    """Explain why OpenSlide does not open a slide of a format that it knows: unsupported, or broken.

    Args:
        path: The slide's file.
        vendor: Its format, as OpenSlide calls it.
        error: The error that OpenSlide raised.

    Returns:
        The error to raise, with the remedy.
    """
    if UNSUPPORTED.search(str(error)):
        command = TO_PYRAMID if vendor in ("generic-tiff", "aperio") else BY_BIO_FORMATS
        return SlideError(f"{path}: OpenSlide does not read this kind of {vendor} ({error}); convert it: {command}")
    return SlideError(f"{path}: broken slide ({error}); {COPY_AGAIN}")


def explain_unknown_format(path: Path) -> SlideError:
    """Name the format of a file that OpenSlide does not know, and the command that converts it.

    Args:
        path: The file.

    Returns:
        The error to raise.

    Raises:
        OSError: The file cannot be read.
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


def quarantine_errors(on_bad_slide: str, *, last_attempt: bool) -> tuple[type[Exception], ...]:
    """Choose the errors that quarantine a slide; all others fail the job, and Snakemake retries it.

    Args:
        on_bad_slide: The ledger's setting; "stop" quarantines nothing.
        last_attempt: Whether this is the last attempt: only then does a file that cannot be read quarantine the slide.

    Returns:
        Classes of errors.
    """
    if on_bad_slide == "stop":
        return ()
    return (SlideError, OSError) if last_attempt else (SlideError,)
