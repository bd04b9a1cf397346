"""The targets of L_intra and L_inter: prototypes or regions that each region is distilled from (paper, eq. 2, 4)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.prototypes.matching import nearest_regions, nearest_regions_of_all

# Target of L_inter: the matched prototype of each nearest slide, the nearest region of each, or the nearest regions of
# all other slides (Table 2).
InterTarget = Literal["prototype", "region", "any_region"]
# Term -> the targets' vectors (B, K, D), and which of them exist (B, K): 1 where there is a target, else 0.
BatchTargets = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EpochTargets:
    """Targets of all regions in an epoch: of L_intra and L_inter, each if its weight is not 0.

    Attributes:
        vectors: float32 (P, D), on the device; D is the length of what was clustered.
        rows: Term -> int64 (R, K), rows of `vectors` that a region is distilled from, -1 for none.
    """

    vectors: Tensor
    rows: dict[str, Tensor]

    def for_batch(self, regions: Tensor) -> BatchTargets:
        """Look up the targets of a batch.

        Args:
            regions: int64 (B,), rows of the dataset.

        Returns:
            Term -> vectors (B, K, D), and which of them exist, 1 or 0, (B, K).
        """
        chosen = {term: rows[regions] for term, rows in self.rows.items()}
        return {term: (self.vectors[rows.clamp(min=0)], (rows >= 0).float()) for term, rows in chosen.items()}


def assign_targets(
    prototypes: Prototypes,
    clustered: np.ndarray,
    slide_of: np.ndarray,
    groups: np.ndarray,
    *,
    intra: bool = True,
    inter_target: InterTarget | None = "prototype",
    device: str = "cpu",
) -> EpochTargets:
    """Assign each region its targets: c of eq. 2, and ĉ_k of eq. 4 or regions in place of it.

    c is the prototype a region is assigned to, ĉ_k its matched partner in the k-th nearest slide.

    Args:
        prototypes: Of the epoch.
        clustered: float32 (R, D), of which the prototypes are means.
        slide_of: int64 (R,), the slide of each region as it was clustered.
        groups: int64 (R,), the slide of each region, or its patient; regions of a group are no neighbors.
        intra: Whether there are targets of L_intra.
        inter_target: Of L_inter; None for none.
        device: Of the targets.

    Returns:
        The targets of these terms.
    """
    (_, M, D), m = prototypes.centers.shape, prototypes.assignment
    vectors, rows = prototypes.centers.reshape(-1, D), {}
    if intra:
        rows["intra"] = np.where(m >= 0, slide_of * M + m, -1)[:, None]
    if inter_target == "prototype":
        neighbor, partner = prototypes.neighbors[slide_of], prototypes.matches[slide_of, :, m]
        rows["inter"] = np.where((m[:, None] >= 0) & (neighbor >= 0), neighbor * M + partner, -1)
    elif inter_target:
        if inter_target == "region":
            nearest = nearest_regions(clustered, prototypes.neighbors, slide_of)
        else:
            nearest = nearest_regions_of_all(clustered, groups, prototypes.neighbors.shape[1])
        rows["inter"] = np.where(nearest >= 0, len(vectors) + nearest, -1)
        vectors = np.concatenate([vectors, clustered])
    return EpochTargets(
        torch.from_numpy(vectors).to(device), {term: torch.from_numpy(index).to(device) for term, index in rows.items()}
    )
