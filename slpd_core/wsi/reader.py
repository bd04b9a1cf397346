"""Slides: their size, their um/px, and their pixels at any um/px. The home of openslide and pyvips."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import openslide
from PIL import Image

from slpd_core import artifacts
from slpd_core.wsi import identity, levels
from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, TO_PYRAMID, SlideError
from slpd_core.wsi.mpp import MPP_TOLERANCE, describe_contradiction, downsample_factor, resolve_mpp
from slpd_core.wsi.outages import catch_os_errors
from slpd_core.wsi.read_plan import plan_read, resample
from slpd_core.wsi.sources import open_source
from slpd_core.wsi.tiff_limits import check_levels, check_thumbnail
from slpd_core.wsi.tiff_tiles import TiffTiles

MAX_READ_PX = 1 << 28
STRIP_PX = 1 << 25  # of a thumbnail read at a time


class Slide:
    """An open slide; use as a context manager.

    size: (width, height) of level 0 in px. mpp: um/px of level 0; mpp_source: where that came from.
    bounds_xy: corner of the scanned area, level-0 px, (0, 0) where none is stated.
    jpeg_scaled_decoding: whether JPEG tiles may be decoded at a half, quarter or eighth of their size where the slide
    has no such level: two to three times faster, about one grey level off the area mean of all pixels.
    threads: that decode tiles. missing_tiles: "error", or "white" for what tiles show that a plain TIFF leaves out.
    remarks: what to know of a slide that is read all the same, a sentence each.
    Raises SlideError naming the slide when it is no slide, has no mpp or an implausible one.
    """

    def __init__(
        self,
        path: str | Path,
        mpp: float | None = None,
        *,
        jpeg_scaled_decoding: bool = True,
        threads: int = 1,
        missing_tiles: str = "error",
    ) -> None:
        self.path, self.threads, self.missing_tiles = Path(path), threads, missing_tiles
        cv2.setNumThreads(threads)
        self._tiles: TiffTiles | None = None
        self._source = source = open_source(self.path)
        try:
            check_levels(source.sizes, source.properties, self.path)
            self.size = source.sizes[0]
            self.mpp, self.mpp_source = resolve_mpp(source.properties, mpp, self.path)
            self.bounds_xy = find_bounds_corner(source.properties)
            self._place_levels()
        except BaseException:
            self.close()
            raise
        said = (*source.remarks, *levels.describe_levels(source.sizes, self._downsamples), self._describe_missing())
        self.remarks = tuple(text for text in (*said, describe_contradiction(source.properties, mpp)) if text)
        self._shrinks = [self._tiles.jpeg_scales(level) if self._tiles else () for level in range(len(source.sizes))]
        if not jpeg_scaled_decoding:
            self._shrinks = [shrinks[:1] for shrinks in self._shrinks]

    def _place_levels(self) -> None:
        """Find the levels' factors, and what of each shows the slide; open the tiles that are decoded here."""
        source = self._source
        stated = source.slide.level_downsamples if source.slide else None
        self._downsamples = levels.fit_levels(source.sizes, source.tile_px, stated)
        self._shown = [
            levels.clip_size(size, self.size, factor)
            for size, factor in zip(source.sizes, self._downsamples, strict=True)
        ]
        if source.levels:
            decoded = {number: replace(level, size_px=self._shown[number]) for number, level in source.levels.items()}
            self._tiles = TiffTiles(self.path, decoded, self.missing_tiles)

    def _describe_missing(self) -> str:
        missing, count = self._tiles.count_missing() if self._tiles and not self._source.slide else (0, 0)
        if not missing or self.missing_tiles == "error":
            return ""
        return f"{missing} of the {count} tiles of level 0 are missing and read as white (tissue.missing_tiles)."

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._tiles:
            self._tiles.close()
        if self._source.slide:
            self._source.slide.close()

    def read(self, xy: tuple[float, float], size_px: tuple[int, int], mpp: float) -> np.ndarray:
        """Pixels of a rectangle at `mpp`, uint8 RGB (rows, columns, 3); white outside the slide.

        xy: upper left corner in level-0 px. size_px: (width, height) of the result. Finer levels are area-averaged.
        Raises ValueError when the slide is coarser than that, SlideError with the place when its data are broken.
        """
        if mpp < self.mpp * (1 - MPP_TOLERANCE):
            raise ValueError(
                f"{self.path}: {mpp:g} um/px asked for, the slide has {self.mpp:g}: ask for {self.mpp:g} or coarser"
            )
        plan = plan_read(self._downsamples, self._shrinks, downsample_factor(self.mpp, mpp), xy, size_px)
        left, top = (math.floor(part + 1e-6) for part in plan.box[:2])
        right, bottom = (math.ceil(plan.box[i] + plan.box[i + 2] - 1e-6) for i in (0, 1))
        cover = (left, top, right - left, bottom - top)
        if max(cover[2] * cover[3], size_px[0] * size_px[1]) > MAX_READ_PX:
            raise SlideError(
                f"{self.path}: {size_px[0]} x {size_px[1]} px at {mpp:g} um/px need {cover[2]} x {cover[3]} px of "
                f"level {plan.level}, too many at once; convert it to a pyramid: {TO_PYRAMID}"
            )
        if self._tiles and self._shrinks[plan.level]:
            pixels = self._tiles.read(plan.level, cover, plan.jpeg_scale, self.threads)
        else:
            pixels = self._read_openslide(plan.level, cover)
        return resample(pixels, (plan.box[0] - left, plan.box[1] - top, *plan.box[2:]), size_px)

    def _read_openslide(self, level: int, box: tuple[int, int, int, int]) -> np.ndarray:
        """Pixels of a box of a level, x, y, width, height in its px, over white; white beyond what the level shows."""
        slide = self._source.slide
        assert slide is not None  # whoever reads without it reads all levels
        down = slide.level_downsamples[level]  # by which it finds a place, right or not
        at = round(box[0] * down), round(box[1] * down)
        place = f"level {level} near x={at[0]}, y={at[1]}"
        try:
            rgba = slide.read_region(at, level, box[2:])
        except openslide.OpenSlideError as error:
            raise SlideError(f"{self.path}: broken data at {place} ({error}); {COPY_AGAIN}") from error
        width, height = self._shown[level]
        if (
            self._source.transparent_is_missing
            and self.missing_tiles == "error"
            and _lacks_tiles(rgba, box, (width, height))
        ):
            raise SlideError(
                f"{self.path}: missing tiles of {place}, within {box[2]} x {box[3]} px of it; {MISSING_TILES}"
            )
        pixels = np.asarray(_over_white(rgba))
        if (width, height) != self._source.sizes[level]:  # the level is padded
            pixels = pixels.copy()
            pixels[max(height - box[1], 0) :], pixels[:, max(width - box[0], 0) :] = 255, 255
        return pixels

    def thumbnail(self, mpp: float) -> np.ndarray:
        """The whole slide at `mpp` (at the slide's own where that is coarser), uint8 RGB (rows, columns, 3).

        Raises SlideError where that is too large.
        """
        mpp = max(mpp, self.mpp)
        scale = downsample_factor(self.mpp, mpp)
        width, height = (math.ceil(side / scale) for side in self.size)
        check_thumbnail((width, height), self.size, self.mpp, self.path)
        down = max(down for down in self._downsamples if down <= max(scale, 1.0))
        source_px = (self.size[0] / down) * (scale / down)  # of a row of the thumbnail, at most
        rows = min(height, max(1, int(STRIP_PX / source_px)))
        strips = [self.read((0, top * scale), (width, min(rows, height - top)), mpp) for top in range(0, height, rows)]
        return np.concatenate(strips)


def iter_region_pixels(
    slide_path: Path,
    regions: artifacts.Regions,
    *,
    jpeg_scaled_decoding: bool = True,
    raise_slide_error: bool = False,
    state_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """Yield the regions' pixels, uint8 (size_px, size_px, 3), the next one read while the last is worked on.

    What seems broken is read once more after the whole slide was: an outage looks the same, but passes.

    Args:
        slide_path: The file that the sheet names.
        regions: What to read, and the fingerprint of the slide that its tissue was found on.
        jpeg_scaled_decoding: As in Slide.
        raise_slide_error: Whether a file that cannot be read is the slide's fault.
        state_dir: The folder of the slides' memos, see `identity.slide_fingerprint`.

    Raises:
        SlideError: The slide is broken; where its file cannot be read, outages.UnreadableSlideError.
        OSError: Its file cannot be read, and not raise_slide_error.
        ValueError: It is another slide than the one whose tissue was found.
    """
    done, reread = 0, False
    with catch_os_errors(slide_path, raise_slide_error=raise_slide_error):
        while done < len(regions.coords):
            if reread or regions.slide.fingerprint:
                check_unchanged(slide_path, regions.slide, None if reread else state_dir)
            try:
                for pixels in _read_regions_from(done, slide_path, regions, jpeg_scaled_decoding=jpeg_scaled_decoding):
                    yield pixels
                    done += 1
            except SlideError:
                if reread:
                    raise
                reread = True


def check_unchanged(slide_path: Path, slide: artifacts.SlideInfo, state_dir: Path | None) -> None:
    """Raise ValueError when a file is not the slide whose tissue was found; it is read whole where no memo says so."""
    memo_path = state_dir and state_dir / f"{slide.slide_id}.json"
    if identity.slide_fingerprint(slide_path, memo_path) != slide.fingerprint and slide.fingerprint:
        raise ValueError(
            f"{slide_path}: replaced since the tissue of {slide.slide_id} was found; run snakemake again, "
            "its stages are then made anew"
        )


def _read_regions_from(
    first: int, slide_path: Path, regions: artifacts.Regions, *, jpeg_scaled_decoding: bool
) -> Iterator[np.ndarray]:
    """Open a slide and yield its regions from the first wanted on, the next one being read meanwhile."""
    info = regions.slide
    with Slide(
        slide_path, info.mpp, jpeg_scaled_decoding=jpeg_scaled_decoding, missing_tiles=info.missing_tiles
    ) as slide:
        yield from iter_regions(slide, replace(regions, coords=regions.coords[first:]))


def iter_regions(slide: Slide, regions: artifacts.Regions) -> Iterator[np.ndarray]:
    """Yield the pixels of a slide's regions; the next region is read while the caller works on this one.

    Args:
        slide: An open slide.
        regions: Its regions.

    Yields:
        uint8 RGB (size_px, size_px, 3) at target_mpp, in the order of the coordinates.

    Raises:
        SlideError: The slide's data are broken; names the position.
    """
    size = (regions.size_px, regions.size_px)
    with ThreadPoolExecutor(1) as thread:
        ahead = None
        for x, y in regions.coords.tolist():
            pixels = thread.submit(slide.read, (x, y), size, regions.target_mpp)
            if ahead is not None:
                yield ahead.result()
            ahead = pixels
        if ahead is not None:
            yield ahead.result()


def find_bounds_corner(properties: Mapping[str, str]) -> tuple[int, int]:
    """Return the corner of the scanned area that a slide states, level-0 px; (0, 0) without."""
    x, y = (properties.get(f"openslide.bounds-{axis}", "0") for axis in "xy")
    return (int(x), int(y)) if x.isdecimal() and y.isdecimal() else (0, 0)


def _lacks_tiles(rgba: Image.Image, box: tuple[int, int, int, int], size_px: tuple[int, int]) -> bool:
    """Whether any px is missing inside a level, but for its outermost ones, which may lie between two.

    box: x, y, width, height of the picture in px of the level, of size_px.
    """
    left, top = max(1 - box[0], 0), max(1 - box[1], 0)
    right, bottom = min(size_px[0] - 1 - box[0], box[2]), min(size_px[1] - 1 - box[1], box[3])
    alpha = np.asarray(rgba.getchannel("A"))[top : max(bottom, top), left : max(right, left)]
    return alpha.size > 0 and int(alpha.min()) < 255


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
    with artifacts.atomic_write(path) as part:
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
