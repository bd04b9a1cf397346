"""Crops: random square sub-grids of a region's token grid, cut by index."""

import numpy as np
import torch
from torch import Tensor

from slpd_core import config


def crop_indices(n_crops: int, grid: int, crop: int, hflip: float, rng: np.random.Generator) -> np.ndarray:
    """Where `n_crops` random crops lie on the flattened grid: int64 (n_crops, crop, crop).

    grid, crop: sides in tokens. hflip: probability that a crop is mirrored left to right.
    """
    corners = rng.integers(0, grid - crop + 1, size=(n_crops, 2))
    steps = np.arange(crop)
    flipped = rng.random(n_crops) < hflip
    columns = np.where(flipped[:, None], steps[::-1], steps) + corners[:, 1:]
    rows = steps + corners[:, :1]
    return rows[:, :, None] * grid + columns[:, None, :]


def cut(tokens: Tensor, indices: np.ndarray) -> Tensor:
    """The crops themselves.

    tokens: (B, grid, grid, C). indices: (n, B, crop, crop) on the flattened grid, n crops a region, 0 included. Gives
    (n * B, crop, crop, C), all first crops of the batch before all second ones.
    """
    n, B, crop, _ = indices.shape
    where = torch.from_numpy(indices.reshape(n, B, crop * crop)).to(tokens.device)
    region = torch.arange(B, device=tokens.device).view(1, B, 1)
    return tokens.flatten(1, 2)[region, where].reshape(n * B, crop, crop, tokens.shape[-1])


def draw_views(tokens: Tensor, section: config.PretrainRun, rng: np.random.Generator, device: str) -> list[Tensor]:
    """Global and local crops of a batch: tokens (B, grid, grid, C) → two stacks, crop after crop."""
    B, grid = tokens.shape[:2]
    tokens = tokens.to(device).float()
    views = []
    for number, side in ((section.n_global_crops, section.global_crop), (section.n_local_crops, section.local_crop)):
        where = crop_indices(number * B, grid, side, section.hflip, rng)
        views.append(cut(tokens, where.reshape(number, B, side, side)))
    return views
