"""Random offsets of crops, drawn as slides differ: an augmentation of stage two against stain (not the paper's).

All crops of a region share its slide's stain, so that nothing in DINO's loss asks the encoder to forget it. Here each
crop gets an offset of its own, normally distributed with the covariance of the slides' mean tokens.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.ssl.distributed import to_device


class CropAugmentation(Protocol):
    """Changes the tokens of a batch's crops."""

    def augment(self, views: list[Tensor], rows: np.ndarray, n_regions: int, rng: np.random.Generator) -> list[Tensor]:
        """Change crops (n, B, c, c, C) of each size; `rows` (B,) of the batch's `n_regions` are this process's."""


def mean_tokens(dataset: TokenDataset) -> np.ndarray:
    """Average the tokens of each slide.

    Args:
        dataset: N slides.

    Returns:
        float64 (N, C), in the order of `slide_ids`; slides without regions are left out.
    """
    slides = (dataset.tokens[dataset.slide_of == slide] for slide in np.unique(dataset.slide_of))
    return np.stack([tokens.flatten(0, 2).mean(0, dtype=torch.float64).cpu().numpy() for tokens in slides])


def slide_covariance(means: np.ndarray) -> np.ndarray:
    """Estimate the covariance of the slides' mean tokens, of which there may be fewer than dimensions.

    Args:
        means: (N, C), of `mean_tokens`.

    Returns:
        float64 (C, C), shrunk towards a multiple of the identity by Ledoit & Wolf (2004); zero for a single slide.
    """
    from sklearn.covariance import LedoitWolf

    if len(means) < 2:
        return np.zeros((means.shape[1], means.shape[1]))
    covariance: np.ndarray = LedoitWolf().fit(means).covariance_
    return covariance


@dataclass(frozen=True)
class SlideOffset:
    """Draws offsets of crops.

    Attributes:
        root: float32 (C, C), a square root of their covariance, on the device of the crops.
    """

    root: Tensor

    @classmethod
    def estimate(cls, dataset: TokenDataset, factor: float, device: torch.device) -> "SlideOffset":
        """Estimate the offsets' covariance on the slides of a dataset.

        Args:
            dataset: Of the training slides.
            factor: Of the offsets: 1 for those as large as the slides' own.
            device: Of the crops.

        Returns:
            The offsets.
        """
        values, vectors = np.linalg.eigh(slide_covariance(mean_tokens(dataset)))
        root = factor * np.sqrt(values.clip(min=0))[:, None] * vectors.T
        return cls(torch.from_numpy(root).float().to(device))

    def augment(self, views: list[Tensor], rows: np.ndarray, n_regions: int, rng: np.random.Generator) -> list[Tensor]:
        """Add an offset to each crop.

        Args:
            views: Crops (n, B, c, c, C) of each size.
            rows: int64 (B,), where in the batch their regions are; other processes may have the rest.
            n_regions: Of the batch.
            rng: Draws the offsets of the whole batch.

        Returns:
            The same shapes.
        """
        shifted = []
        for view in views:
            drawn = rng.standard_normal((len(view), n_regions, len(self.root)), np.float32)[:, rows]
            shifted.append(view + (to_device(torch.from_numpy(drawn), view.device) @ self.root)[:, :, None, None])
        return shifted
