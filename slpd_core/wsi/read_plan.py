"""Plans of reads: the level and the box to read for pixels at some um/px, and their resampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from slpd_core.wsi.mpp import MPP_TOLERANCE

MAX_ROUNDING_PX = 0.01  # a corner this near a whole px is taken as whole
MAX_ERROR_PX = 1e-6  # of floating-point numbers


@dataclass(frozen=True)
class ReadPlan:
    """A box of a level to read, and the size to resample it to.

    Attributes:
        level: Pyramid level.
        jpeg_scale: Its JPEG tiles are decoded at 1/jpeg_scale of their size.
        box: x, y, width, height to read, px of the level as it is decoded.
        out_px: (width, height) of the result.
    """

    level: int
    jpeg_scale: int
    box: tuple[float, float, float, float]
    out_px: tuple[int, int]


def plan_read(
    downsamples: Sequence[float],
    jpeg_scales: Sequence[Sequence[int]],
    scale: float,
    xy: tuple[float, float],
    size_px: tuple[int, int],
) -> ReadPlan:
    """Choose the coarsest level and JPEG scale that are at least as fine as the result.

    Args:
        downsamples: Level-0 px per px of each level.
        jpeg_scales: Factors at which the tiles of each level can be decoded; () if they are not JPEG.
        scale: Level-0 px per px of the result.
        xy: Upper left corner, level-0 px.
        size_px: (width, height) of the result.

    Returns:
        The plan.

    Raises:
        ValueError: The result is finer than level 0.
    """
    if scale < 1 - MPP_TOLERANCE:
        raise ValueError(f"{1 / scale:.3g} times finer than the slide's level 0")
    candidates = [
        (downsample * jpeg_scale, level, jpeg_scale)
        for level, downsample in enumerate(downsamples)
        for jpeg_scale in (jpeg_scales[level] or (1,))
        if downsample * jpeg_scale * (1 - MPP_TOLERANCE) <= scale
    ]
    # Of equal factors the least JPEG scale wins: a level of the pyramid rather than a finer one decoded smaller.
    coarsest = max(down for down, _, _ in candidates) * (1 - MPP_TOLERANCE)
    down, level, jpeg_scale = min((option for option in candidates if option[0] > coarsest), key=lambda one: one[2])
    box = (xy[0] / down, xy[1] / down, size_px[0] * scale / down, size_px[1] * scale / down)
    return ReadPlan(level, jpeg_scale, box, size_px)


def cell_side(box: tuple[float, float, float, float], out_px: tuple[int, int]) -> int:
    """Find the side of the squares of whole px whose means are the result.

    Args:
        box: x, y, width, height to read, px.
        out_px: (width, height) of the result.

    Returns:
        The side; 1 if there are no such squares.
    """
    side = round(box[2] / out_px[0])
    whole = (round(box[0]), round(box[1]), side * out_px[0], side * out_px[1])
    return side if side and all(abs(a - b) < MAX_ERROR_PX for a, b in zip(box, whole, strict=True)) else 1


def resample(pixels: np.ndarray, box: tuple[float, float, float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Resample a box of a picture: area mean to a coarser result, cubic interpolation to a finer one.

    Args:
        pixels: uint8 (rows, columns, 3).
        box: x, y, width, height, px of the picture; for the area mean its corner is rounded to whole px.
        out_px: (width, height) of the result.

    Returns:
        uint8 (height, width, 3).
    """
    x, y, width, height = box
    whole = tuple(round(side) for side in box)
    if (
        all(abs(side - rounded) < MAX_ERROR_PX for side, rounded in zip(box, whole, strict=True))
        and whole[2:] == out_px
    ):
        return pixels[whole[1] : whole[1] + whole[3], whole[0] : whole[0] + whole[2]]
    scale = width / out_px[0], height / out_px[1]
    if min(scale) >= 1:
        columns, rows = (slice(at, max(at + 1, at + size)) for at, size in zip(whole[:2], whole[2:], strict=True))
        return cv2.resize(pixels[rows, columns], out_px, interpolation=cv2.INTER_AREA)
    if max(abs(x - whole[0]), abs(y - whole[1])) < MAX_ROUNDING_PX and min(scale) > 1 - MPP_TOLERANCE:
        return _enlarge(pixels[whole[1] :, whole[0] :], scale, out_px)
    # Centers of px lie at half units, cv2's at whole ones.
    matrix = np.array([[scale[0], 0, x + scale[0] / 2 - 0.5], [0, scale[1], y + scale[1] / 2 - 0.5]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, out_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def resample_into(pixels: np.ndarray, out: np.ndarray) -> None:
    """Write pixels into a part of a picture, which is as large or a whole factor smaller: then their area means.

    Args:
        pixels: uint8 (rows, columns, 3).
        out: The part, uint8 (rows, columns, 3), a view.
    """
    if pixels.shape == out.shape:
        cv2.bitwise_or(pixels, pixels, out)  # a copy; of short rows it is faster than memcpy
    else:
        cv2.resize(pixels, out.shape[1::-1], out, interpolation=cv2.INTER_AREA)


def _enlarge(pixels: np.ndarray, scale: tuple[float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Cubic interpolation from the upper left corner: as `warpAffine`, but six times as fast."""
    larger = cv2.resize(pixels, None, fx=1 / scale[0], fy=1 / scale[1], interpolation=cv2.INTER_CUBIC)
    missing = max(0, out_px[0] - larger.shape[1]), max(0, out_px[1] - larger.shape[0])
    if any(missing):
        larger = cv2.copyMakeBorder(larger, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE)
    return larger[: out_px[1], : out_px[0]]
