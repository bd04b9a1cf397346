"""Crops: random square sub-grids of a region's token grid, gathered by index."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from slpd_core.ssl.distributed import to_device

Augment = Literal["none", "hflip", "dihedral"]


@dataclass(frozen=True)
class CropParams:
    """Crops of a region; the defaults are the paper's.

    Attributes:
        n_global_crops: Per region.
        global_crop_size: Side in tokens.
        n_local_crops: Per region.
        local_crop_size: Side in tokens.
        augment: hflip mirrors every other crop; dihedral gives each one of a square's eight symmetries.
        slide_offset: Factor of random offsets (`slide_offset.SlideOffset`); 0 for none, as in the paper.
    """

    n_global_crops: int = 2
    global_crop_size: int = 14
    n_local_crops: int = 8
    local_crop_size: int = 6
    augment: Augment = "hflip"
    slide_offset: float = 0.0


def draw_crops(n_crops: int, grid: int, crop: int, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Draw random crops, as steps through the flattened grid.

    Args:
        n_crops: How many.
        grid: Side of the grid in tokens.
        crop: Side of a crop in tokens.
        augment: As in `CropParams`.
        rng: Draws them.

    Returns:
        int64 (3, n_crops): index of a crop's first token, step to the token below, step to the token on the right.
    """
    row, column = rng.integers(0, grid - crop + 1, size=(n_crops, 2)).T
    chance = {"none": (0.0, 0.0, 0.0), "hflip": (0.5, 0.0, 0.0), "dihedral": (0.5, 0.5, 0.5)}[augment]
    mirrored, flipped, transposed = (rng.random(n_crops) < probability for probability in chance)
    first = (row + (crop - 1) * flipped) * grid + column + (crop - 1) * mirrored
    down, right = np.where(flipped, -grid, grid), np.where(mirrored, -1, 1)
    return np.stack([first, np.where(transposed, right, down), np.where(transposed, down, right)])


def crop_indices(drawn: Tensor, crop: int) -> Tensor:
    """Lay out crops, on the device of what was drawn.

    Args:
        drawn: int64 (3, ...), of `draw_crops`.
        crop: Side of a crop in tokens.

    Returns:
        int64 (..., crop, crop), of the flattened grid.
    """
    first, down, right = drawn[..., None, None]
    steps = torch.arange(crop, device=drawn.device)
    indices: Tensor = first + down * steps[:, None] + right * steps
    return indices


def gather_crops(tokens: Tensor, regions: np.ndarray, drawn: np.ndarray, crop: int, device: torch.device) -> Tensor:
    """Gather crops of regions on a device.

    Args:
        tokens: (R, grid, grid, C), anywhere.
        regions: int64 (B,), rows of tokens.
        drawn: int64 (3, n, B), of `draw_crops`; n may be 0.
        crop: Side of a crop in tokens.
        device: Where to.

    Returns:
        float32 (n, B, crop, crop, C).
    """
    first, down, right = drawn
    of_regions = np.stack([first + regions * math.prod(tokens.shape[1:3]), down, right])
    indices = crop_indices(to_device(torch.from_numpy(of_regions), tokens.device), crop)
    return to_device(tokens.flatten(0, 2)[indices], device).float()


def sample_crops(
    tokens: Tensor,
    regions: np.ndarray,
    rows: np.ndarray,
    n_regions: int,
    params: CropParams,
    rng: np.random.Generator,
    device: torch.device,
) -> list[Tensor]:
    """Sample global and local crops of a batch's regions.

    Args:
        tokens: (R, grid, grid, C), anywhere.
        regions: int64 (B,), rows of tokens.
        rows: int64 (B,), where in the batch these regions are; other processes may have the rest.
        n_regions: Of the batch.
        params: Numbers and sides of crops.
        rng: Draws the crops of the whole batch.
        device: Where to.

    Returns:
        Global crops (G, B, g, g, C) and local crops (n, B, l, l, C).
    """
    kinds = ((params.n_global_crops, params.global_crop_size), (params.n_local_crops, params.local_crop_size))
    views = []
    for n, side in kinds:
        drawn = draw_crops(n * n_regions, tokens.shape[1], side, params.augment, rng).reshape(3, n, n_regions)
        views.append(gather_crops(tokens, regions, drawn[:, :, rows], side, device))
    return views
