"""The patches of a region's pixels: cut, resized and averaged."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

COPIED_ROWS = 32  # of a region, copied and summed at a time: they stay in the caches of a CPU


def cut_patches(region: Tensor, patch_px: int) -> Tensor:
    """Cut a region into its patches.

    Args:
        region: uint8 (side, side, 3).
        patch_px: Side of a patch.

    Returns:
        uint8 (g * g, patch_px, patch_px, 3), row by row.
    """
    grid = len(region) // patch_px
    rows = region.view(grid, patch_px, grid, patch_px, 3)
    return rows.transpose(1, 2).reshape(grid * grid, patch_px, patch_px, 3)


def resize_patches(patches: Tensor, side_px: int) -> Tensor:
    """Resize patches: bicubic, antialiased, rounded to whole gray levels.

    Args:
        patches: uint8 (B, side, side, 3).
        side_px: Side of the result.

    Returns:
        uint8 (B, side_px, side_px, 3).
    """
    if patches.shape[1] == side_px:
        return patches
    pixels = patches.permute(0, 3, 1, 2)
    if patches.device.type != "cpu":
        pixels = pixels.float()
    resized = F.interpolate(pixels, (side_px, side_px), mode="bicubic", antialias=True)
    if resized.dtype is not torch.uint8:
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.permute(0, 2, 3, 1).contiguous()


def count_patches(source: str | Path, size_px: int, patch_px: int) -> int:
    """Count the patches along the side of a region.

    Args:
        source: File or slide id of the regions, for messages.
        size_px: Side of a region.
        patch_px: Side of a patch.

    Returns:
        g.

    Raises:
        ValueError: Regions do not divide into whole patches.
    """
    if size_px % patch_px:
        raise ValueError(
            f"{source}: regions of {size_px} px do not divide into the encoder's patches of {patch_px} px; make "
            "regions.size_px a multiple of patch_encoder.patch_px"
        )
    return size_px // patch_px


def mean_colors(region: np.ndarray, patch_px: int, copy_to: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean color of each patch of a region.

    Args:
        region: uint8 RGB (side, side, 3).
        patch_px: Side of a patch.
        copy_to: Array to copy the region into, some rows at a time while they are in the cache.

    Returns:
        float16 (g * g, 3), 0..255, row by row.
    """
    grid = len(region) // patch_px
    rows = region.reshape(len(region), -1)
    step = patch_px if copy_to is None else COPIED_ROWS
    sums = np.zeros((grid, rows.shape[1]), np.int64)  # of each column of numbers, by row of patches
    for top in range(0, len(rows), patch_px):
        for start in range(top, top + patch_px, step):
            part = slice(start, min(start + step, top + patch_px))
            if copy_to is not None:
                copy_to[part] = region[part]
            sums[top // patch_px] += cv2.reduce(rows[part], 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    patches = np.add.reduceat(sums.reshape(grid, -1, 3), range(0, len(rows), patch_px), axis=1)
    means: np.ndarray = patches / patch_px**2
    return means.reshape(-1, 3).astype(np.float16)
