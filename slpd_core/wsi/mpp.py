"""Microns per pixel: where a slide states them, and what is plausible."""

import html
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from slpd_core.runtime import log
from slpd_core.wsi.errors import SlideError

MPP_RANGE = (0.05, 5.0)  # um/px; outside it an mpp is a mistake
SCALE_SNAP = 0.005  # see `scale_between`
MPP_TOLERANCE = 0.02  # a request this much finer than a level is served from that level, enlarged
MAX_ANISOTROPY = 0.02  # between um/px along x and y
MAX_MPP_DIFFERENCE = 0.05  # between the sheet's um/px and the slide's own, more than calibrations differ by
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
AUTHORITATIVE_SOURCES = ("sheet", "ome", "vendor")  # sources whose implausible value is an error, not passed over


def is_plausible(mpp: float) -> bool:
    """Whether um/px lie within MPP_RANGE; nan does not."""
    return MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def downsample_factor(slide_mpp: float, mpp: float) -> float:
    """Level-0 px a px at `mpp`.

    Within SAME_SCALE of a whole number it is that number: scanners are calibrated no better, and resampling by so
    little would blur a picture in bands. So a slide of 0.499 um/px is read at 0.5 as it is.
    """
    scale = mpp / slide_mpp
    whole = max(1, round(scale))
    return float(whole) if abs(scale / whole - 1) <= SCALE_SNAP else scale


def region_side_level0(size_px: int, scale: float) -> int:
    """Side in level-0 px of a square of `size_px` px, each `scale` level-0 px wide.

    Rounded to a multiple of the largest power of two within the scale, so that squares side by side begin at whole px
    of the coarser levels too.
    """
    step = 1
    while 2 * step <= scale * (1 + MPP_TOLERANCE):
        step *= 2
    return step * round(size_px * scale / step)


def resolve_mpp(properties: Mapping[str, str], sheet_mpp: float | None, path: Path) -> tuple[float, str]:
    """The um/px of level 0 and its source: the sheet, the vendor, TIFF resolution tags, objective power, in that order.

    properties: as OpenSlide gives them. The vendor of an OME-TIFF is its XML, source "ome". Resolution tags that are
    implausible (72 dpi) are passed over where the objective power is known. Raises SlideError when there is none, when
    it is implausible, or when x and y differ.
    """
    found = [*_candidates(properties, sheet_mpp, path)]
    if not found:
        raise SlideError(f"{path}: no um/px in the slide; {MPP_REMEDY}")
    mpp, source = next((one for one in found if is_plausible(one[0]) or one[1] in AUTHORITATIVE_SOURCES), found[0])
    if not is_plausible(mpp):
        low, high = MPP_RANGE
        raise SlideError(f"{path}: {mpp:g} um/px ({source}) is implausible, outside {low}-{high}; {MPP_REMEDY}")
    if source == "objective power":
        log.warning("%s: um/px taken from the objective power: %g", path, mpp)
    return mpp, source


def describe_contradiction(properties: Mapping[str, str], sheet_mpp: float | None) -> str:
    """Say where the sheet's um/px differ from those the slide itself states by more than CONTRADICTION; else "".

    Args:
        properties: as OpenSlide gives them.
        sheet_mpp: the sheet's um/px, None without. The objective power says too little to contradict it.
    """
    if sheet_mpp is None:
        return ""
    with suppress(SlideError):  # x and y that differ are one reason to state um/px in the sheet
        for mpp, source in _candidates(properties, None, Path()):
            if source != "objective power" and is_plausible(mpp):
                if abs(sheet_mpp / mpp - 1) <= MAX_MPP_DIFFERENCE:
                    return ""
                return f"The sheet says {sheet_mpp:g} um/px, the slide itself {mpp:g} ({source}); the sheet's are used."
    return ""


def _candidates(properties: Mapping[str, str], sheet_mpp: float | None, path: Path) -> list[tuple[float, str]]:
    """Every um/px stated, with its source, the best source first."""
    if sheet_mpp is not None:
        return [(float(sheet_mpp), "sheet")]
    found: list[tuple[float, str]] = []
    # OpenSlide states the resolution tags of a generic TIFF as its mpp.
    source = "tiff resolution" if properties.get("openslide.vendor") == "generic-tiff" else "vendor"
    pixels = ome_pixels(properties.get("openslide.comment"))
    sides = {
        "ome": [_ome_um(pixels, axis) for axis in "XY"],
        source: [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"],
    }
    for source, (x, y) in sides.items():
        if x and y:
            if abs(x - y) > MAX_ANISOTROPY * max(abs(x), abs(y)):
                raise SlideError(f"{path}: {x:g} um/px along x but {y:g} along y ({source}); {MPP_REMEDY}")
            found.append(((x + y) / 2, source))
            break
    unit = TIFF_UNITS_PER_UM.get(properties.get("tiff.ResolutionUnit", ""))
    resolution = _number(properties.get("tiff.XResolution"))
    if unit and resolution and resolution > 1:
        found.append((unit / resolution, "tiff resolution"))
    power = _number(properties.get("openslide.objective-power"))
    if power and power > 0:
        found.append((10 / power, "objective power"))
    return found


def ome_pixels(description: str | None) -> dict[str, str]:
    """What the XML of an OME-TIFF states of its first picture's pixels, its channels' SamplesPerPixel with it.

    description: the TIFF's ImageDescription. {} where that is no OME-XML.
    """
    element = re.search(r"<(?:\w+:)?Pixels\b([^<>]*)>", description or "")
    if not element:
        return {}
    channel = re.search(r"<(?:\w+:)?Channel\b[^<>]*?(SamplesPerPixel=\"[^\"]*\")", element.string[element.end() :])
    attributes = element[1] + (" " + channel[1] if channel else "")
    return {name: html.unescape(value) for name, value in re.findall(r"\b(\w+)\s*=\s*[\"']([^\"']*)", attributes)}


def _ome_um(pixels: Mapping[str, str], axis: str) -> float | None:
    """The um/px along an axis; None where it is not stated, or in no unit of length."""
    size = _number(pixels.get(f"PhysicalSize{axis}"))
    um = OME_UNITS_IN_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return size * um if size and um else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
