"""Crops: random square sub-grids of a region's token grid, cut by index."""

import math

import numpy as np
import torch
from torch import Tensor

from slpd_core import config
from slpd_core.ssl.distributed import to_device


def crop_indices(n_crops: int, grid: int, crop: int, augment: str, rng: np.random.Generator) -> np.ndarray:
    """Where `n_crops` random crops lie on the flattened grid: int64 (n_crops, crop, crop).

    grid, crop: sides in tokens. augment: hflip mirrors every other crop left to right; dihedral gives each one of the
    eight symmetries of a square; none leaves them.
    """
    corners = rng.integers(0, grid - crop + 1, size=(n_crops, 2))
    chance = {"none": (0.0, 0.0, 0.0), "hflip": (0.5, 0.0, 0.0), "dihedral": (0.5, 0.5, 0.5)}[augment]
    mirrored, turned_over, transposed = (rng.random(n_crops) < share for share in chance)
    steps = np.arange(crop)
    columns = np.where(mirrored[:, None], steps[::-1], steps) + corners[:, 1:]
    rows = np.where(turned_over[:, None], steps[::-1], steps) + corners[:, :1]
    found = rows[:, :, None] * grid + columns[:, None, :]
    return np.where(transposed[:, None, None], found.transpose(0, 2, 1), found)


def gather_crops(tokens: Tensor, regions: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """The crops themselves on a device, in single precision.

    tokens: (R, grid, grid, C), anywhere. regions: int64 (B,), rows of it. indices: (n, B, crop, crop) on the
    flattened grid, n crops a region, 0 included. Gives (n, B, crop, crop, C).
    """
    n, B, crop, _ = indices.shape
    of_cohort = regions[:, None] * math.prod(tokens.shape[1:3]) + indices.reshape(n, B, crop * crop)
    where = to_device(torch.from_numpy(of_cohort), tokens.device)
    found = to_device(tokens.flatten(0, 2)[where], device)
    return found.float().reshape(n, B, crop, crop, tokens.shape[-1])


def sample_crops(
    tokens: Tensor,
    regions: np.ndarray,
    rows: np.ndarray,
    n_regions: int,
    section: config.PretrainRunConfig,
    rng: np.random.Generator,
    device: torch.device,
) -> list[Tensor]:
    """Global crops (G, B, g, g, C) and local crops (n, B, l, l, C) of a batch's regions, on a device.

    tokens: (R, grid, grid, C), anywhere. regions: int64 (B,), rows of it: the `rows` of a batch of n_regions, of which
    other processes may have the rest.
    """
    views = []
    for number, side in (
        (section.n_global_crops, section.global_crop_size),
        (section.n_local_crops, section.local_crop_size),
    ):
        where = crop_indices(number * n_regions, tokens.shape[1], side, section.augment, rng)
        views.append(gather_crops(tokens, regions, where.reshape(number, n_regions, side, side)[:, rows], device))
    return views
