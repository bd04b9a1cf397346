"""Slides: their size, their um/px, and their pixels at any um/px. The home of openslide and pyvips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import openslide
from PIL import Image

from slpd_core import store
from slpd_core.runtime import log
from slpd_core.slides.sheet import MPP_RANGE

MPP_TOLERANCE = 0.02  # a request this much finer than the slide is served from level 0
MAX_READ_PX = 1 << 29
MPP_REMEDY = "give the slide's um/px in the column mpp of the sheet"
TIFF_UNITS_PER_UM = {"inch": 25_400.0, "centimeter": 10_000.0}


@dataclass(frozen=True)
class ReadPlan:
    """What to read of which level, and the size to bring it to.

    level: pyramid level. size_px: (width, height) to read there. out_px: (width, height) to give.
    """

    level: int
    size_px: tuple[int, int]
    out_px: tuple[int, int]


def plan_read(downsamples: tuple[float, ...], slide_mpp: float, size_px: tuple[int, int], mpp: float) -> ReadPlan:
    """Choose the coarsest level that is at least as fine as `mpp`, and the size of the read there.

    downsamples: of each level against level 0. size_px: (width, height) wanted at `mpp`.
    Raises ValueError when `mpp` is finer than level 0.
    """
    scale = mpp / slide_mpp
    if scale < 1 - MPP_TOLERANCE:
        raise ValueError(f"{mpp:g} um/px asked for, the slide has {slide_mpp:g}: ask for {slide_mpp:g} or coarser")
    fine_enough = [level for level, downsample in enumerate(downsamples) if downsample <= scale * (1 + MPP_TOLERANCE)]
    level = max(fine_enough, key=lambda number: downsamples[number], default=0)
    ratio = scale / downsamples[level]
    if abs(ratio - 1) <= MPP_TOLERANCE / 4:
        ratio = 1.0
    width, height = (max(1, round(side * ratio)) for side in size_px)
    return ReadPlan(level, (width, height), size_px)


class Slide:
    """An open slide; use as a context manager.

    size: (width, height) of level 0 in px. mpp: um/px of level 0; mpp_source: where that came from.
    Raises ValueError naming the slide when it is no slide, has no mpp or an implausible one.
    """

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        self.path = Path(path)
        try:
            self._slide = openslide.OpenSlide(str(path))
        except openslide.OpenSlideUnsupportedFormatError:
            if not self.path.exists():
                raise FileNotFoundError(f"{self.path}: no such file; correct its path in the sheet") from None
            raise ValueError(
                f"{self.path}: not a whole slide of a format OpenSlide knows; copy it again, convert it or leave it out"
            ) from None
        except openslide.OpenSlideError as error:
            raise ValueError(f"{self.path}: broken slide ({error}); copy it again or leave it out") from error
        try:
            self.size = self._slide.dimensions
            self.mpp, self.mpp_source = find_mpp(dict(self._slide.properties), mpp, self.path)
        except BaseException:
            self._slide.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._slide.close()

    def read(self, xy: tuple[int, int], size_px: tuple[int, int], mpp: float) -> np.ndarray:
        """Pixels of a rectangle at `mpp`, uint8 RGB (rows, columns, 3); white outside the slide.

        xy: upper left corner in level-0 px. size_px: (width, height) of the result. Finer levels are area-averaged.
        Raises ValueError naming slide and place when the slide's data there is broken.
        """
        plan = plan_read(self._slide.level_downsamples, self.mpp, size_px, mpp)
        if max(plan.size_px[0] * plan.size_px[1], plan.out_px[0] * plan.out_px[1]) > MAX_READ_PX:
            raise ValueError(f"{self.path}: a read of {plan.size_px} px is too large; the pyramid lacks coarse levels")
        try:
            rgba = self._slide.read_region(xy, plan.level, plan.size_px)
        except openslide.OpenSlideError as error:
            place = f"level {plan.level} near x={xy[0]}, y={xy[1]}"
            raise ValueError(f"{self.path}: broken data at {place} ({error}); copy it again or leave it out") from error
        rgb = _over_white(rgba)
        if plan.size_px != plan.out_px:
            coarser = plan.size_px[0] >= plan.out_px[0]
            rgb = rgb.resize(plan.out_px, Image.Resampling.BOX if coarser else Image.Resampling.BICUBIC)
        return np.asarray(rgb)

    def thumbnail(self, mpp: float) -> np.ndarray:
        """The whole slide at `mpp` (at the slide's own where that is coarser), uint8 RGB (rows, columns, 3)."""
        mpp = max(mpp, self.mpp)
        width, height = (max(1, int(side * self.mpp / mpp)) for side in self.size)
        return self.read((0, 0), (width, height), mpp)


def find_mpp(properties: dict[str, str], sheet_mpp: float | None, path: Path) -> tuple[float, str]:
    """The um/px of level 0 and its source: the sheet, the vendor, TIFF resolution tags, objective power, in that order.

    Raises ValueError when there is none, or when it lies outside MPP_RANGE.
    """
    mpp, source = _stated_mpp(properties, sheet_mpp)
    if mpp is None:
        raise ValueError(f"{path}: no um/px in the slide; {MPP_REMEDY}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        low, high = MPP_RANGE
        raise ValueError(f"{path}: {mpp:g} um/px ({source}) is implausible, outside {low}-{high}; {MPP_REMEDY}")
    if source == "objective power":
        log.warning("%s: um/px taken from the objective power: %g", path, mpp)
    return mpp, source


def _stated_mpp(properties: dict[str, str], sheet_mpp: float | None) -> tuple[float | None, str]:
    if sheet_mpp is not None:
        return float(sheet_mpp), "sheet"
    sides = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
    # OpenSlide states the resolution tags of a generic TIFF as its mpp.
    source = "tiff resolution" if properties.get("openslide.vendor") == "generic-tiff" else "vendor"
    if sides[0] and sides[1]:
        return (sides[0] + sides[1]) / 2, source
    unit = TIFF_UNITS_PER_UM.get(properties.get("tiff.ResolutionUnit", ""))
    resolution = _number(properties.get("tiff.XResolution"))
    if unit and resolution and resolution > 1:
        return unit / resolution, "tiff resolution"
    power = _number(properties.get("openslide.objective-power"))
    return (10 / power, "objective power") if power else (None, "")


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _over_white(rgba: Image.Image) -> Image.Image:
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def write_slide(path: Path, pixels: np.ndarray, mpp: float) -> None:
    """Write a tiled, pyramidal JPEG TIFF whose resolution tags state `mpp`.

    pixels: uint8 RGB (rows, columns, 3), level 0. mpp: um/px.
    """
    import pyvips

    pixels_per_mm = 1000 / mpp
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    with store.replacing(path) as part:
        image.tiffsave(
            str(part),
            tile=True,
            pyramid=True,
            compression="jpeg",
            Q=85,
            tile_width=256,
            tile_height=256,
            xres=pixels_per_mm,
            yres=pixels_per_mm,
            resunit="cm",
            bigtiff=True,
        )
