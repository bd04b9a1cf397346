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
    """

    n_global_crops: int = 2
    global_crop_size: int = 14
    n_local_crops: int = 8
    local_crop_size: int = 6
    augment: Augment = "hflip"


def crop_indices(n_crops: int, grid: int, crop: int, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Draw random crops, as indices of the flattened grid.

    Args:
        n_crops: How many.
        grid: Side of the grid in tokens.
        crop: Side of a crop in tokens.
        augment: As in `CropParams`.
        rng: Draws them.

    Returns:
        int64 (n_crops, crop, crop).
    """
    corners = rng.integers(0, grid - crop + 1, size=(n_crops, 2))
    chance = {"none": (0.0, 0.0, 0.0), "hflip": (0.5, 0.0, 0.0), "dihedral": (0.5, 0.5, 0.5)}[augment]
    mirrored, flipped, transposed = (rng.random(n_crops) < probability for probability in chance)
    steps = np.arange(crop)
    columns = np.where(mirrored[:, None], steps[::-1], steps) + corners[:, 1:]
    rows = np.where(flipped[:, None], steps[::-1], steps) + corners[:, :1]
    indices = rows[:, :, None] * grid + columns[:, None, :]
    return np.where(transposed[:, None, None], indices.transpose(0, 2, 1), indices)


def gather_crops(tokens: Tensor, regions: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """Gather crops of regions on a device.

    Args:
        tokens: (R, grid, grid, C), anywhere.
        regions: int64 (B,), rows of tokens.
        indices: int64 (n, B, crop, crop), of the flattened grid; n may be 0.
        device: Where to.

    Returns:
        float32 (n, B, crop, crop, C).
    """
    n, B, crop, _ = indices.shape
    flat = regions[:, None] * math.prod(tokens.shape[1:3]) + indices.reshape(n, B, crop * crop)
    gathered = tokens.flatten(0, 2)[to_device(torch.from_numpy(flat), tokens.device)]
    return to_device(gathered, device).float().reshape(n, B, crop, crop, tokens.shape[-1])


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
        indices = crop_indices(n * n_regions, tokens.shape[1], side, params.augment, rng)
        views.append(gather_crops(tokens, regions, indices.reshape(n, n_regions, side, side)[:, rows], device))
    return views
