"""Micrometers per pixel (um/px, mpp): where a slide states them, and which are plausible."""

import html
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from slpd_core.runtime import log
from slpd_core.wsi.errors import SlideError

MPP_RANGE = (0.05, 5.0)  # um/px; any other is a mistake
SCALE_SNAP = 0.005  # a factor this near a whole number is that number, see `downsample_factor`
MPP_TOLERANCE = 0.02  # a request this much finer than a level is read from that level, enlarged
MAX_ANISOTROPY = 0.02  # between um/px along x and y
MAX_MPP_DIFFERENCE = 0.05  # between the sheet's um/px and the slide's; calibrations differ by less
MPP_REMEDY = "give the slide's um/px in the column mpp of the sheet"
TIFF_UNITS_PER_UM = {"inch": 25_400.0, "centimeter": 10_000.0}
OME_UNITS_IN_UM = {
    "\N{MICRO SIGN}m": 1.0,
    "\N{GREEK SMALL LETTER MU}m": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}
AUTHORITATIVE_SOURCES = ("sheet", "ome", "vendor")  # an implausible value of these is an error; others are skipped


def is_plausible(mpp: float) -> bool:
    """Return whether um/px lie within MPP_RANGE.

    Args:
        mpp: um/px; nan is not plausible.

    Returns:
        Whether they do.
    """
    return MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def downsample_factor(slide_mpp: float, mpp: float) -> float:
    """Compute the downsample factor from level 0 to `mpp`.

    Within SCALE_SNAP of a whole number it is that number. Scanners are calibrated no better, and resampling by so
    little would blur a picture in bands. So a slide of 0.499 um/px is read at 0.5 without resampling.

    Args:
        slide_mpp: um/px of level 0.
        mpp: um/px of the output.

    Returns:
        Level-0 pixels per output pixel.
    """
    scale = mpp / slide_mpp
    whole = max(1, round(scale))
    return float(whole) if abs(scale / whole - 1) <= SCALE_SNAP else scale


def region_side_level0(size_px: int, scale: float) -> int:
    """Compute the side of a region, level-0 px.

    It is a multiple of the largest power of two within the scale, so that adjacent regions begin at whole px of the
    coarser levels too.

    Args:
        size_px: Side of the region, output px.
        scale: Level-0 pixels per output pixel.

    Returns:
        The side, level-0 px.
    """
    step = 1
    while 2 * step <= scale * (1 + MPP_TOLERANCE):
        step *= 2
    return step * round(size_px * scale / step)


def resolve_mpp(properties: Mapping[str, str], mpp_override: float | None, path: Path) -> tuple[float, str]:
    """Resolve the um/px of level 0: from the sheet, the vendor, TIFF resolution tags or the objective power.

    The sources are tried in that order. Of an OME-TIFF the XML stands for the vendor, of an OME-Zarr
    its scale. Resolution tags that are
    implausible (72 dpi) are skipped if the objective power is known.

    Args:
        properties: As OpenSlide names them.
        mpp_override: um/px of the sheet; None if it has none.
        path: The slide's file, for messages.

    Returns:
        um/px and its source: "sheet", "ome", "vendor", "tiff resolution" or "objective power".

    Raises:
        SlideError: There is none, it is implausible, or x and y differ.
    """
    candidates = _candidates(properties, mpp_override, path)
    if not candidates:
        raise SlideError(f"{path}: no um/px in the slide; {MPP_REMEDY}")
    trusted = (pair for pair in candidates if is_plausible(pair[0]) or pair[1] in AUTHORITATIVE_SOURCES)
    mpp, source = next(trusted, candidates[0])
    if not is_plausible(mpp):
        low, high = MPP_RANGE
        raise SlideError(f"{path}: {mpp:g} um/px ({source}) is implausible, outside {low}-{high}; {MPP_REMEDY}")
    if source == "objective power":
        log.warning("%s: um/px taken from the objective power: %g", path, mpp)
    return mpp, source


def describe_contradiction(properties: Mapping[str, str], mpp_override: float | None) -> str:
    """Describe a difference between the sheet's um/px and the slide's own of more than MAX_MPP_DIFFERENCE.

    The objective power is too coarse to contradict the sheet.

    Args:
        properties: As OpenSlide names them.
        mpp_override: um/px of the sheet; None if it has none.

    Returns:
        A remark; "" if they agree.
    """
    if mpp_override is None:
        return ""
    with suppress(SlideError):  # x and y that differ are one reason to state um/px in the sheet
        for mpp, source in _candidates(properties, None, Path()):
            if source != "objective power" and is_plausible(mpp):
                if abs(mpp_override / mpp - 1) <= MAX_MPP_DIFFERENCE:
                    return ""
                return (
                    f"The sheet says {mpp_override:g} um/px, the slide itself {mpp:g} ({source}); the sheet's are used."
                )
    return ""


def _candidates(properties: Mapping[str, str], mpp_override: float | None, path: Path) -> list[tuple[float, str]]:
    """Every um/px that is stated, with its source, the best source first."""
    if mpp_override is not None:
        return [(float(mpp_override), "sheet")]
    candidates: list[tuple[float, str]] = []
    # OpenSlide reports the resolution tags of a generic TIFF as its mpp.
    sources = {"generic-tiff": "tiff resolution", "ome-zarr": "ome"}
    source = sources.get(properties.get("openslide.vendor", ""), "vendor")
    pixels = ome_pixels(properties.get("openslide.comment"))
    sides = {
        "ome": [_ome_um(pixels, axis) for axis in "XY"],
        source: [_parse_float(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"],
    }
    for source, (x, y) in sides.items():
        if x and y:
            if abs(x - y) > MAX_ANISOTROPY * max(abs(x), abs(y)):
                raise SlideError(f"{path}: {x:g} um/px along x but {y:g} along y ({source}); {MPP_REMEDY}")
            candidates.append(((x + y) / 2, source))
            break
    unit = TIFF_UNITS_PER_UM.get(properties.get("tiff.ResolutionUnit", ""))
    resolution = _parse_float(properties.get("tiff.XResolution"))
    if unit and resolution and resolution > 1:
        candidates.append((unit / resolution, "tiff resolution"))
    power = _parse_float(properties.get("openslide.objective-power"))
    if power and power > 0:
        candidates.append((10 / power, "objective power"))
    return candidates


def ome_pixels(description: str | None) -> dict[str, str]:
    """Parse the attributes of the first picture's `Pixels`, and its `SamplesPerPixel`, from an OME-XML.

    Args:
        description: The TIFF's ImageDescription.

    Returns:
        Values by attribute; {} if the description is no OME-XML.
    """
    element = re.search(r"<(?:\w+:)?Pixels\b([^<>]*)>", description or "")
    if not element:
        return {}
    channel = re.search(r"<(?:\w+:)?Channel\b[^<>]*?(SamplesPerPixel=\"[^\"]*\")", element.string[element.end() :])
    attributes = element[1] + (" " + channel[1] if channel else "")
    return {name: html.unescape(value) for name, value in re.findall(r"\b(\w+)\s*=\s*[\"']([^\"']*)", attributes)}


def _ome_um(pixels: Mapping[str, str], axis: str) -> float | None:
    """um/px along an axis; None if it is not stated, or in no unit of length."""
    size = _parse_float(pixels.get(f"PhysicalSize{axis}"))
    um = OME_UNITS_IN_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return size * um if size and um else None


def _parse_float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
