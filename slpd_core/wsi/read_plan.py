"""What to read of which level for pixels of a given size and um/px, and how to bring it to that size."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from slpd_core.wsi.mpp import MPP_TOLERANCE

MAX_ROUNDING_PX = 0.01  # px; a corner this near a whole one is taken as whole


@dataclass(frozen=True)
class ReadPlan:
    """What to read of which level, and the size to bring it to.

    level: pyramid level. shrink: how much smaller its JPEG tiles are decoded, 1 for as they are. box: x, y, width and
    height to read, in px of the shrunk level. out_px: (width, height) to give.
    """

    level: int
    jpeg_scale: int
    box: tuple[float, float, float, float]
    out_px: tuple[int, int]


def plan_read(
    downsamples: Sequence[float],
    shrinks: Sequence[Sequence[int]],
    scale: float,
    xy: tuple[float, float],
    size_px: tuple[int, int],
) -> ReadPlan:
    """Choose the coarsest way to read that is at least as fine as what is wanted.

    downsamples: of each level against level 0; shrinks: factors each can be decoded at. scale: level-0 px a px wanted.
    xy: upper left corner in level-0 px. size_px: (width, height) wanted.
    Raises ValueError when what is wanted is finer than level 0.
    """
    if scale < 1 - MPP_TOLERANCE:
        raise ValueError(f"{1 / scale:.3g} times finer than the slide's level 0")
    ways = [
        (downsample * shrink, level, shrink)
        for level, downsample in enumerate(downsamples)
        for shrink in (shrinks[level] or (1,))
        if downsample * shrink * (1 - MPP_TOLERANCE) <= scale
    ]
    # Of two ways to one scale the one that shrinks less: a level of the pyramid before a shrunk finer one.
    finest = max(down for down, _, _ in ways)
    down, level, shrink = min((way for way in ways if way[0] > finest * (1 - MPP_TOLERANCE)), key=lambda way: way[2])
    box = (xy[0] / down, xy[1] / down, size_px[0] * scale / down, size_px[1] * scale / down)
    return ReadPlan(level, shrink, box, size_px)


def resample(pixels: np.ndarray, box: tuple[float, float, float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Bring a box of a picture to `out_px`: area mean where that is coarser, cubic interpolation where it is finer.

    pixels: uint8 (rows, columns, 3). box: x, y, width, height in px of the picture; for the area mean its corner is
    rounded to a whole px.
    """
    x, y, width, height = box
    whole = tuple(round(part) for part in box)
    if all(abs(part - near) < 1e-6 for part, near in zip(box, whole, strict=True)) and whole[2:] == out_px:
        return pixels[whole[1] : whole[1] + whole[3], whole[0] : whole[0] + whole[2]]
    scale = width / out_px[0], height / out_px[1]
    if min(scale) >= 1:
        columns, rows = (slice(at, max(at + 1, at + size)) for at, size in zip(whole[:2], whole[2:], strict=True))
        return cv2.resize(pixels[rows, columns], out_px, interpolation=cv2.INTER_AREA)
    if max(abs(x - whole[0]), abs(y - whole[1])) < MAX_ROUNDING_PX and min(scale) > 1 - MPP_TOLERANCE:
        return _enlarge(pixels[whole[1] :, whole[0] :], scale, out_px)
    # Centres of px lie at half units, cv2's at whole ones.
    matrix = np.array([[scale[0], 0, x + scale[0] / 2 - 0.5], [0, scale[1], y + scale[1] / 2 - 0.5]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, out_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _enlarge(pixels: np.ndarray, scale: tuple[float, float], out_px: tuple[int, int]) -> np.ndarray:
    """Cubic interpolation from the upper left corner on, six times as fast as `warpAffine` and to the same places.

    scale: px of the picture a px of the result; given as factors, not by the size of the result, it stays exact.
    """
    larger = cv2.resize(pixels, None, fx=1 / scale[0], fy=1 / scale[1], interpolation=cv2.INTER_CUBIC)
    missing = max(0, out_px[0] - larger.shape[1]), max(0, out_px[1] - larger.shape[0])
    if any(missing):
        larger = cv2.copyMakeBorder(larger, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE)
    return larger[: out_px[1], : out_px[0]]
