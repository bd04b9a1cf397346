"""Stain maps: what a change of stain does to tokens, as linear maps fitted to a few hundred patches encoded twice.

A ViT bends a stain: one shift for all tokens explains a quarter of what a change of stain does to them, a linear map
seven tenths. Each crop of a region gets a map of its own, so that the encoder learns to ignore all of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.encoder import encode
from benchmarks.evidence.tiles import draw_stain, quarter, read_tile, stain
from slpd_core.encoders.vit_inference import FrozenEncoder
from slpd_core.runtime import generator

N_PATCHES, N_MAPS, STRENGTH = 400, 48, 0.2
RIDGE = 0.05  # of the mean variance of a token's components


@dataclass(frozen=True)
class StainMaps:
    """Maps of tokens, t + t @ weight + bias.

    Attributes:
        weight: float32 (n, C, C).
        bias: float32 (n, C).
        explained: Share of the tokens' squared changes that the maps explain, where they were fitted.
        explained_by_shift: The same of one shift for all tokens.
    """

    weight: Tensor
    bias: Tensor
    explained: float
    explained_by_shift: float

    def augment(self, views: list[Tensor], rows: np.ndarray, n_regions: int, rng: np.random.Generator) -> list[Tensor]:
        """Change each crop by a map of its own, as `CropAugmentation` asks."""
        changed = []
        for view in views:
            chosen = torch.from_numpy(rng.integers(len(self.bias), size=(len(view), n_regions))[:, rows].ravel())
            tokens = view.flatten(0, 1).flatten(1, 2)
            weight, bias = (maps.to(view.device)[chosen.to(view.device)] for maps in (self.weight, self.bias))
            changed.append((tokens + torch.baddbmm(bias[:, None], tokens, weight)).reshape(view.shape))
        return changed


def fit_stain_maps(
    model: FrozenEncoder, paths: list[Path], *, kind: str = "hed", strength: float = STRENGTH, device: str = "cpu"
) -> StainMaps:
    """Fit maps to quarters of some tiles, each encoded as it is and under N_MAPS stains, by ridge regression."""
    rng = generator(0, "stain maps")
    chosen = rng.choice(len(paths), min(N_PATCHES, len(paths)), replace=False)
    patches = np.concatenate([quarter(read_tile(paths[i])[None])[0, :1] for i in chosen])
    tokens = encode(model, patches, device).astype(np.float64)
    center, D = tokens.mean(0), tokens.shape[1]
    spread = np.sqrt((tokens - center).var(0).mean())
    features = np.c_[tokens - center, np.full(len(tokens), spread)]
    penalty = RIDGE * np.trace(features.T @ features) / (D + 1) * np.eye(D + 1)
    solve = np.linalg.solve(features.T @ features + penalty, features.T)
    weights, biases, left = [], [], []
    for _ in range(N_MAPS):
        stained = stain(patches, draw_stain(kind, strength, rng))
        change = encode(model, stained, device).astype(np.float64) - tokens
        fitted = solve @ change
        weights.append(fitted[:D])
        biases.append(spread * fitted[D] - center @ fitted[:D])
        total = (change**2).sum()
        left.append((((change - features @ fitted) ** 2).sum() / total, ((change - change.mean(0)) ** 2).sum() / total))
    by_map, by_shift = 1 - np.mean(left, 0)
    weight, bias = (torch.from_numpy(np.array(each, np.float32)) for each in (weights, biases))
    return StainMaps(weight, bias, float(by_map), float(by_shift))
