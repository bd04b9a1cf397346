"""A slide: its size, its um/px, and its pixels at any um/px."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import openslide
from PIL import Image

from slpd_core import config
from slpd_core.config.base import Positive
from slpd_core.wsi import levels
from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, TO_PYRAMID, SlideError
from slpd_core.wsi.mpp import MPP_TOLERANCE, describe_contradiction, downsample_factor, resolve_mpp
from slpd_core.wsi.read_plan import cell_side, plan_read, resample
from slpd_core.wsi.sources import open_source
from slpd_core.wsi.tiff_limits import check_levels, check_thumbnail
from slpd_core.wsi.tile_reader import Box, TileReader

MAX_READ_PX = 1 << 28  # per read
MAX_STRIP_PX = 1 << 25  # per strip of a thumbnail


class Slide:
    """An open slide; use as a context manager.

    Args:
        path: The slide's file.
        mpp: um/px of level 0 that overrides the slide's own; None does not.
        jpeg_scaled_decoding: Whether `read` may decode JPEG tiles at 1/2, 1/4 or 1/8 of their size where the slide has
            no such level, faster than the mean of all pixels and about one gray level off it. Thumbnails always do.
        threads: Threads that decode tiles.
        missing_tiles: "error", or "white" for tiles that a plain TIFF leaves out.

    Attributes:
        size: (width, height) of level 0, px.
        mpp, mpp_source: um/px of level 0, and where that is stated.
        bounds_xy: Corner of the scanned area, level-0 px; (0, 0) if none is stated.
        remarks: Remarks on a slide that is read all the same, one sentence each.

    Raises:
        SlideError: The file is no slide, or its um/px is missing or implausible; names the slide.
        FileNotFoundError: There is no such file.
    """

    @config.check_arguments(config.TissueSegmentationConfig, threads=Positive)
    def __init__(
        self,
        path: str | Path,
        mpp: float | None = None,
        *,
        jpeg_scaled_decoding: bool = False,
        threads: int = 1,
        missing_tiles: str = "error",
    ) -> None:
        self.path, self.threads, self.missing_tiles = Path(path), threads, missing_tiles
        cv2.setNumThreads(threads)
        self._tiles: TileReader[Any] | None = None
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
        missing = self._tiles.describe_missing() if self._tiles and not source.slide else ""
        remarks = (*source.remarks, *levels.describe_levels(source.sizes, self._downsamples), missing)
        self.remarks = tuple(text for text in (*remarks, describe_contradiction(source.properties, mpp)) if text)
        self._jpeg_scales = [self._tiles.jpeg_scales(i) if self._tiles else () for i in range(len(source.sizes))]
        self._read_scales = self._jpeg_scales if jpeg_scaled_decoding else [scales[:1] for scales in self._jpeg_scales]

    def _place_levels(self) -> None:
        """Find each level's downsample factor and unpadded size; open the tiles that a TileReader decodes."""
        source = self._source
        reported = source.slide.level_downsamples if source.slide else None
        self._downsamples = levels.fit_levels(source.sizes, source.tile_px, reported)
        self._clipped = [
            levels.clip_size(size, self.size, factor)
            for size, factor in zip(source.sizes, self._downsamples, strict=True)
        ]
        if source.levels:
            decoded = {i: replace(level, size_px=self._clipped[i]) for i, level in source.levels.items()}
            self._tiles = source.tile_reader(self.path, decoded, self.missing_tiles)

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
        """Read a rectangle at `mpp`; finer levels are averaged over area.

        Args:
            xy: Upper left corner, level-0 px.
            size_px: (width, height) of the result.
            mpp: um/px of the result.

        Returns:
            uint8 RGB (rows, columns, 3), white outside the slide.

        Raises:
            ValueError: The slide is coarser than `mpp`.
            SlideError: The slide's data are broken; names the position.
        """
        return self._read(xy, size_px, mpp, self._read_scales)

    def _read(
        self, xy: tuple[float, float], size_px: tuple[int, int], mpp: float, jpeg_scales: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Read a rectangle as `read` does, with JPEG tiles decoded at any of `jpeg_scales` of their level."""
        if mpp < self.mpp * (1 - MPP_TOLERANCE):
            raise ValueError(f"{self.path}: cannot be read at {mpp:g} um/px; ask for {self.mpp:g}, its own, or coarser")
        plan = plan_read(self._downsamples, jpeg_scales, downsample_factor(self.mpp, mpp), xy, size_px)
        left, top = (math.floor(side + 1e-6) for side in plan.box[:2])
        right, bottom = (math.ceil(plan.box[i] + plan.box[i + 2] - 1e-6) for i in (0, 1))
        cover = (left, top, right - left, bottom - top)
        if max(cover[2] * cover[3], size_px[0] * size_px[1]) > MAX_READ_PX:
            raise SlideError(
                f"{self.path}: {size_px[0]} x {size_px[1]} px at {mpp:g} um/px need {cover[2]} x {cover[3]} px of "
                f"level {plan.level}, too many at once; convert it to a pyramid: {TO_PYRAMID}"
            )
        if self._tiles and self._jpeg_scales[plan.level]:
            cell_px = cell_side(plan.box, size_px)
            if cell_px > 1 and self._tiles.holds_cells(plan.level, cover, plan.jpeg_scale, cell_px):
                return self._tiles.read(plan.level, cover, plan.jpeg_scale, self.threads, cell_px=cell_px)
            pixels = self._tiles.read(plan.level, cover, plan.jpeg_scale, self.threads)
        else:
            pixels = self._read_openslide(plan.level, cover)
        return resample(pixels, (plan.box[0] - left, plan.box[1] - top, *plan.box[2:]), size_px)

    def _read_openslide(self, level: int, box: Box) -> np.ndarray:
        """Read a box, px of the level, over white; white beyond the level's unpadded size."""
        slide = self._source.slide
        assert slide is not None  # without it all levels are read by a TileReader
        down = slide.level_downsamples[level]  # OpenSlide's own factor, right or wrong, is what places its reads
        xy = round(box[0] * down), round(box[1] * down)
        position = f"level {level} near x={xy[0]}, y={xy[1]}"
        try:
            rgba = slide.read_region(xy, level, box[2:])
        except openslide.OpenSlideError as error:
            raise SlideError(f"{self.path}: broken data at {position} ({error}); {COPY_AGAIN}") from error
        size = width, height = self._clipped[level]
        checked = self._source.transparent_is_missing and self.missing_tiles == "error"
        if checked and _lacks_tiles(rgba, box, size):
            raise SlideError(
                f"{self.path}: missing tiles of {position}, within {box[2]} x {box[3]} px of it; {MISSING_TILES}"
            )
        pixels = np.asarray(_over_white(rgba))
        if size != self._source.sizes[level]:  # the level is padded
            pixels = pixels.copy()
            pixels[max(height - box[1], 0) :], pixels[:, max(width - box[0], 0) :] = 255, 255
        return pixels

    def thumbnail(self, mpp: float) -> np.ndarray:
        """Read the whole slide at `mpp`, or at its own um/px if that is coarser.

        Args:
            mpp: um/px of the result.

        Returns:
            uint8 RGB (rows, columns, 3).

        Raises:
            SlideError: The thumbnail would be too large, or the slide's data are broken.
        """
        mpp = max(mpp, self.mpp)
        scale = downsample_factor(self.mpp, mpp)
        width, height = (math.ceil(side / scale) for side in self.size)
        check_thumbnail((width, height), self.size, self.mpp, self.path)
        down = max(down for down in self._downsamples if down <= max(scale, 1.0))
        px_per_row = (self.size[0] / down) * (scale / down)  # px read for a row of the thumbnail, at most
        rows = min(height, max(1, int(MAX_STRIP_PX / px_per_row)))
        tops = range(0, height, rows)
        return np.concatenate(
            [self._read((0, top * scale), (width, min(rows, height - top)), mpp, self._jpeg_scales) for top in tops]
        )


def find_bounds_corner(properties: Mapping[str, str]) -> tuple[int, int]:
    """Find the corner of the scanned area that a slide states.

    Args:
        properties: As OpenSlide names them.

    Returns:
        (x, y), level-0 px; (0, 0) if none is stated.
    """
    x, y = (properties.get(f"openslide.bounds-{axis}", "0") for axis in "xy")
    return (int(x), int(y)) if x.isdecimal() and y.isdecimal() else (0, 0)


def _lacks_tiles(rgba: Image.Image, box: Box, size_px: tuple[int, int]) -> bool:
    """Whether a px inside a level of `size_px` is transparent; its outermost ones may lie between two tiles."""
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
