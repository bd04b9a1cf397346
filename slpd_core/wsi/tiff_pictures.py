"""The pictures of a TIFF, and which of them is the slide."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import tifffile

from slpd_core.runtime import name_some
from slpd_core.wsi.errors import EXTRACT_PAGE, JOIN_CHANNELS, SAVE_AS_RGB, SlideError
from slpd_core.wsi.levels import Size
from slpd_core.wsi.mpp import TIFF_UNITS_PER_UM, ome_pixels
from slpd_core.wsi.tiff_levels import GRAY, Level, find_level, page_size, tiled_pages

REDUCED_IMAGE, TRANSPARENCY_MASK = 1, 4  # bits of TIFF's NewSubfileType
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296  # TIFF's tags
RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
MAX_ASSOCIATED_FRACTION = 0.01  # of the slide's px: a label, or an overview of the glass, takes less


@dataclass(frozen=True)
class Picture:
    """The picture of a TIFF that is the slide.

    Attributes:
        sizes: (width, height) of its levels, px, the finest first.
        levels: Its levels; None for one whose tiles `find_level` does not know.
        properties: As OpenSlide names them.
        is_first: Whether it is the file's first picture.
        samples: Samples per px.
        remarks: How it was chosen, if there was a choice.
    """

    sizes: tuple[Size, ...]
    levels: tuple[Level | None, ...]
    properties: dict[str, str]
    is_first: bool
    samples: int
    remarks: tuple[str, ...] = ()


@dataclass
class _Pages:
    """The pages of a picture: the finest, and those of its coarser levels."""

    first: tifffile.TiffPage
    coarser: list[tifffile.TiffPage] = field(default_factory=list)

    @property
    def size(self) -> Size:
        return page_size(self.first)

    @property
    def area(self) -> int:
        return self.size[0] * self.size[1]


def find_picture(path: Path) -> Picture | None:
    """Choose the picture of a TIFF that is the slide: the largest.

    Args:
        path: The slide's file.

    Returns:
        The picture; None if no picture lies in tiles.

    Raises:
        SlideError: Several pictures have its size (channels, planes of focus, or several scans), or the OME-XML says
            that it is one plane of several.
    """
    with tifffile.TiffFile(path) as file:
        pictures = _group_pages(tiled_pages(file.pages))
        if not pictures:
            return None
        chosen = _choose_largest(pictures, path)
        comment = _ome_of_size(file.pages.first.description, chosen.size)
        check_ome_planes(comment, chosen.first.samplesperpixel, path)
        pages = sorted([chosen.first, *chosen.coarser], key=lambda page: -page.imagewidth * page.imagelength)
        return Picture(
            tuple(page_size(page) for page in pages),
            tuple(find_level(page, path) for page in pages),
            _properties(chosen.first, comment),
            chosen.first is file.pages.first,
            chosen.first.samplesperpixel,
            _describe_choice(chosen, pictures),
        )


def _group_pages(pages: list[tifffile.TiffPage]) -> list[_Pages]:
    """Group pages into pictures: a page that is marked as a reduced image is a level of a larger picture."""
    pictures: list[_Pages] = []
    for page in pages:
        if page.subfiletype & TRANSPARENCY_MASK:
            continue
        size = page_size(page)
        larger = [one for one in pictures if one.size != size and one.size[0] >= size[0] and one.size[1] >= size[1]]
        if page.subfiletype & REDUCED_IMAGE and larger:
            larger[-1].coarser.append(page)
        else:
            pictures.append(_Pages(page, tiled_pages(page.pages or ())))
    return pictures


def _choose_largest(pictures: list[_Pages], path: Path) -> _Pages:
    """Choose the largest picture; of several the only one in color."""
    max_area = max(picture.area for picture in pictures)
    largest = [picture for picture in pictures if picture.area == max_area]
    in_color = [picture for picture in largest if picture.first.samplesperpixel >= 3]
    if any(picture.first.photometric in GRAY for picture in in_color):
        raise SlideError(f"{path}: several samples per px that are marked as gray, not RGB; {SAVE_AS_RGB}")
    if len(largest) > 1 and len(in_color) != 1:
        width, height = largest[0].size
        kind = "planes of focus, or several scans" if in_color else "colors or channels"
        remedy = EXTRACT_PAGE if in_color else JOIN_CHANNELS
        raise SlideError(f"{path}: {len(largest)} pictures of {width} x {height} px, {kind}, each by itself; {remedy}")
    return (in_color or largest)[0]


def _describe_choice(chosen: _Pages, pictures: list[_Pages]) -> tuple[str, ...]:
    """Describe the pictures that are not read, unless they are small ones that follow the slide, as labels do."""
    others = sum(picture.area for picture in pictures if picture is not chosen)
    if not others or (chosen is pictures[0] and others < MAX_ASSOCIATED_FRACTION * chosen.area):
        return ()
    sizes = name_some((f"{picture.size[0]} x {picture.size[1]}" for picture in pictures), 10)
    return (
        f"Of the file's {len(pictures)} pictures ({sizes} px) only the largest is read, "
        f"{chosen.size[0]} x {chosen.size[1]} px.",
    )


def _ome_of_size(text: str, size: Size) -> str:
    """Cut an OME-XML of several pictures to where the `Pixels` of one size begin; "" if none has it."""
    starts = [match.start() for match in re.finditer(r"<(?:\w+:)?Pixels\b", text)]
    if len(starts) < 2:
        return text
    for start in starts:
        pixels = ome_pixels(text[start : start + 4096])
        if (pixels.get("SizeX"), pixels.get("SizeY")) == tuple(map(str, size)):
            return text[start:]
    return ""


def check_ome_planes(comment: str, samples: int, path: Path) -> None:
    """Check that an OME-XML states no more planes than the picture's page holds.

    Args:
        comment: The OME-XML, from its `Pixels` or before.
        samples: Samples per px of the page.
        path: The slide's file, for messages.

    Raises:
        SlideError: It states more.
    """
    pixels = ome_pixels(comment)
    names = {"SizeC": "channels", "SizeZ": "planes of focus", "SizeT": "times"}
    counts = {axis: pixels.get(axis, "1") for axis in names}
    if all(count.isdecimal() and len(count) < 10 for count in counts.values()) and (
        math.prod(int(count) for count in counts.values()) <= samples
    ):
        return
    planes = ", ".join(f"{count} {names[axis]}" for axis, count in counts.items() if count != "1")
    remedy = JOIN_CHANNELS if samples == 1 else EXTRACT_PAGE
    raise SlideError(f"{path}: an OME-TIFF of {planes}, each a picture of its own; {remedy}")


def _properties(page: tifffile.TiffPage, comment: str) -> dict[str, str]:
    """Return the page's um/px under OpenSlide's names."""
    properties = {"openslide.vendor": "generic-tiff", "openslide.comment": comment}
    unit = RESOLUTION_UNITS.get(page.tags.valueof(RESOLUTION_UNIT, default=2))
    has_resolution = X_RESOLUTION in page.tags and Y_RESOLUTION in page.tags
    resolution = page.get_resolution() if has_resolution else (0.0, 0.0)
    if unit and min(resolution) > 0:
        properties |= {"tiff.ResolutionUnit": unit, "tiff.XResolution": str(resolution[0])}
        um = TIFF_UNITS_PER_UM[unit]
        properties |= {f"openslide.mpp-{axis}": str(um / value) for axis, value in zip("xy", resolution, strict=True)}
    return properties
