"""Which picture of a TIFF is the slide, and where its tiles lie. The home of tifffile."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from slpd_core.runtime import name_some
from slpd_core.wsi.errors import COPY_AGAIN, EXTRACT_PAGE, JOIN_CHANNELS, SAVE_AS_RGB, SlideError
from slpd_core.wsi.levels import Size
from slpd_core.wsi.mpp import TIFF_UNITS_PER_UM, ome_pixels

JPEG, GRAY, RGB, YCBCR, CONTIGUOUS = (
    7,
    (0, 1),
    2,
    6,
    1,
)  # TIFF's numbers: compression, photometric interpretations, planes
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
REDUCED_IMAGE, TRANSPARENCY_MASK = 1, 4  # bits of NewSubfileType
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
UNCOMPRESSED, LZW, PACKBITS = (1,), (5,), (32773,)
DEFLATE, ZSTD, JPEG_2000, WEBP, JPEG_XL = (
    (8, 32946),
    (50000, 34926),
    (33004, 33005, 34712),
    (50001, 34927),
    (50002, 52546),
)
RGB_COMPRESSIONS = UNCOMPRESSED + LZW + PACKBITS + DEFLATE + ZSTD + JPEG_2000 + WEBP + JPEG_XL
UNASSOCIATED_ALPHA = 2  # TIFF's number: colors are not multiplied by the opacity
MAX_ASSOCIATED_FRACTION = 0.01  # of a slide's px: pictures of its label, or of all its glass, take less


@dataclass(frozen=True)
class Level:
    """Where the tiles of a pyramid level lie.

    size_px: (width, height) of the level; tile_px: of a tile. offsets, lengths: int64 (rows, columns), bytes of the
    file; length 0: the file has no such tile. compression: TIFF's number. prefix: of JPEG tiles, what stands in place
    of a tile's own first two bytes: its color space and the level's tables. samples: 3, or 4 with opacity, by which
    colors are multiplied where `premultiplied`. differences: whether a px holds its difference to the one before.
    """

    size_px: Size
    tile_px: Size
    offsets: np.ndarray
    lengths: np.ndarray
    compression: int = JPEG
    prefix: bytes = b""
    samples: int = 3
    is_premultiplied: bool = False
    has_predictor: bool = False


@dataclass(frozen=True)
class Picture:
    """The picture of a TIFF that is the slide.

    sizes: (width, height) of its levels in px, the finest first. levels: None for one whose tiles are of another kind
    than `find_level` knows. properties: as OpenSlide names them. is_first: whether it is the file's first. samples: of
    a px. remarks: how it was chosen, where there was a choice.
    """

    sizes: tuple[Size, ...]
    levels: tuple[Level | None, ...]
    properties: dict[str, str]
    is_first: bool
    samples: int
    remarks: tuple[str, ...] = ()


@dataclass
class _Pages:
    """A picture's pages: its own, and those of its coarser levels."""

    first: tifffile.TiffPage
    coarser: list[tifffile.TiffPage] = field(default_factory=list)

    @property
    def size(self) -> Size:
        return _size(self.first)


def adobe_segment(transform: bool) -> bytes:
    """The JPEG segment that says whether the three components are YCbCr (transform) or RGB, which tiles leave open."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def find_level(page: Any, path: Path) -> Level | None:
    """Describe the tiles of a page; None where they are not of 8-bit RGB, or of a compression that is not known.

    Raises SlideError when its directory does not list as many tiles as it has.
    """
    kind = page.bitspersample, page.planarconfig, page.fillorder, page.sampleformat
    if kind != (8, CONTIGUOUS, 1, 1) or page.samplesperpixel not in (3, 4):
        return None
    is_jpeg = page.compression == JPEG and page.photometric in (RGB, YCBCR) and page.samplesperpixel == 3
    if not is_jpeg and (
        page.compression not in RGB_COMPRESSIONS or page.photometric != RGB or page.predictor not in (1, 2)
    ):
        return None
    shape = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    if not len(page.dataoffsets) == len(page.databytecounts) == shape[0] * shape[1]:
        raise SlideError(
            f"{path}: broken directory, {len(page.dataoffsets)} tiles listed for {shape[1]} x {shape[0]} of them; "
            f"{COPY_AGAIN}"
        )
    tables = (page.jpegtables or SOI + EOI).removeprefix(SOI).removesuffix(EOI)
    return Level(
        _size(page),
        (page.tilewidth, page.tilelength),
        np.array(page.dataoffsets, np.int64).reshape(shape),
        np.array(page.databytecounts, np.int64).reshape(shape),
        int(page.compression),
        SOI + adobe_segment(page.photometric == YCBCR) + tables if is_jpeg else b"",
        page.samplesperpixel,
        page.samplesperpixel == 4 and page.extrasamples[:1] != (UNASSOCIATED_ALPHA,),
        page.predictor == 2,
    )


def find_jpeg_levels(path: Path, sizes: Sequence[Size]) -> list[Level | None]:
    """Describe for each size the first tiled page of it; None where it is not of JPEG tiles, all there.

    A tile that is missing is Aperio's way to say: as in the finer level, which OpenSlide draws.
    """
    with tifffile.TiffFile(path) as file:
        pages = {_size(page): page for page in reversed([*_tiled(file.pages)])}
        levels = [find_level(pages[size], path) if size in pages else None for size in sizes]
    return [level if level and level.compression == JPEG and level.lengths.all() else None for level in levels]


def find_picture(path: Path) -> Picture | None:
    """Choose the picture of a TIFF that is the slide, the largest; None where none lies in tiles.

    Raises SlideError where several are of its size (planes of colors, of focus, or several scans), or its OME-XML
    says that it is one plane of several.
    """
    with tifffile.TiffFile(path) as file:
        pictures = _pictures(_tiled(file.pages))
        if not pictures:
            return None
        chosen = _choose(pictures, path)
        text = file.pages.first.description
        comment = _image_of(text, chosen.size)
        check_ome_planes(comment, chosen.first.samplesperpixel, path)
        pages = sorted([chosen.first, *chosen.coarser], key=lambda page: -page.imagewidth * page.imagelength)
        return Picture(
            tuple(_size(page) for page in pages),
            tuple(find_level(page, path) for page in pages),
            _properties(chosen.first, comment),
            chosen.first is file.pages.first,
            chosen.first.samplesperpixel,
            _describe_choice(chosen, pictures),
        )


def _tiled(pages: Iterable[Any]) -> list[tifffile.TiffPage]:
    return [page for page in pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]


def _size(page: tifffile.TiffPage) -> Size:
    return page.imagewidth, page.imagelength


def _pictures(pages: list[tifffile.TiffPage]) -> list[_Pages]:
    """The pictures of a file: pages that are not said to be smaller copies, each with its levels."""
    pictures: list[_Pages] = []
    for page in pages:
        if page.subfiletype & TRANSPARENCY_MASK:
            continue
        size = _size(page)
        larger = [one for one in pictures if one.size != size and one.size[0] >= size[0] and one.size[1] >= size[1]]
        if page.subfiletype & REDUCED_IMAGE and larger:
            larger[-1].coarser.append(page)
        else:
            pictures.append(_Pages(page, _tiled(page.pages or ())))
    return pictures


def _choose(pictures: list[_Pages], path: Path) -> _Pages:
    """The largest picture; of those of one size the only one in color."""
    most = max(one.size[0] * one.size[1] for one in pictures)
    largest = [one for one in pictures if one.size[0] * one.size[1] == most]
    in_color = [one for one in largest if one.first.samplesperpixel >= 3]
    if any(one.first.photometric in GRAY for one in in_color):
        raise SlideError(f"{path}: several values a px that are said to be gray and not RGB; {SAVE_AS_RGB}")
    if len(largest) > 1 and len(in_color) != 1:
        width, height = largest[0].size
        what = "planes of focus, or several scans" if in_color else "colors or channels"
        remedy = EXTRACT_PAGE if in_color else JOIN_CHANNELS
        raise SlideError(f"{path}: {len(largest)} pictures of {width} x {height} px, {what}, each by itself; {remedy}")
    return (in_color or largest)[0]


def _describe_choice(chosen: _Pages, pictures: list[_Pages]) -> tuple[str, ...]:
    """A sentence on the pictures that are not read, but for a label and the like that follow a slide."""
    others = sum(one.size[0] * one.size[1] for one in pictures if one is not chosen)
    if not others or (chosen is pictures[0] and others < MAX_ASSOCIATED_FRACTION * chosen.size[0] * chosen.size[1]):
        return ()
    sizes = name_some((f"{one.size[0]} x {one.size[1]}" for one in pictures), 10)
    return (
        f"Of the file's {len(pictures)} pictures ({sizes} px) only the largest is read, "
        f"{chosen.size[0]} x {chosen.size[1]} px.",
    )


def _image_of(text: str, size: Size) -> str:
    """Of an OME-XML the part that begins at the pixels of a picture, found by its size; other texts as they are."""
    starts = [match.start() for match in re.finditer(r"<(?:\w+:)?Pixels\b", text)]
    if len(starts) < 2:
        return text
    for at in starts:
        pixels = ome_pixels(text[at : at + 4096])
        if (pixels.get("SizeX"), pixels.get("SizeY")) == tuple(map(str, size)):
            return text[at:]
    return ""


def check_ome_planes(comment: str, samples: int, path: Path) -> None:
    """Raise SlideError where an OME-XML says that a picture is of more planes than its page holds.

    comment: begins at or before its pixels. samples: of a px of the page.
    """
    pixels = ome_pixels(comment)
    names = {"SizeC": "channels", "SizeZ": "planes of focus", "SizeT": "times"}
    counts = {axis: pixels.get(axis, "1") for axis in names}
    if all(count.isdecimal() and len(count) < 10 for count in counts.values()) and (
        math.prod(int(count) for count in counts.values()) <= samples
    ):
        return
    said = ", ".join(f"{count} {names[axis]}" for axis, count in counts.items() if count != "1")
    remedy = JOIN_CHANNELS if samples == 1 else EXTRACT_PAGE
    raise SlideError(f"{path}: an OME-TIFF of {said}, each a picture of its own; {remedy}")


def _properties(page: tifffile.TiffPage, comment: str) -> dict[str, str]:
    """What a page states of its um/px, under OpenSlide's names."""
    said = {"openslide.vendor": "generic-tiff", "openslide.comment": comment}
    unit = RESOLUTION_UNITS.get(page.tags.valueof(RESOLUTION_UNIT, default=2))
    is_stated = X_RESOLUTION in page.tags and Y_RESOLUTION in page.tags
    resolution = page.get_resolution() if is_stated else (0.0, 0.0)
    if unit and min(resolution) > 0:
        said |= {"tiff.ResolutionUnit": unit, "tiff.XResolution": str(resolution[0])}
        um = TIFF_UNITS_PER_UM[unit]
        said |= {f"openslide.mpp-{axis}": str(um / value) for axis, value in zip("xy", resolution, strict=True)}
    return said
