"""Statistics of prototypes and targets: the columns of history.csv beside the losses."""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from slpd_core.pretraining.prototypes import Prototypes, reassigned_fraction
from slpd_core.pretraining.token_dataset import TokenDataset

MAX_PAIRED = 8192  # prototypes clustered as one; the table that pairs more, old with new, takes half a GB and more


def prototype_stats(
    dataset: TokenDataset, slide_of: np.ndarray, before: Prototypes | None, now: Prototypes
) -> dict[str, float]:
    """Compute fractions of slides, neighbors and regions, and the size of the smallest cluster.

    Args:
        dataset: N slides of R regions.
        slide_of: int64 (R,), the slide of each region as it was clustered.
        before: Prototypes of the last epoch, if any.
        now: Of this one.

    Returns:
        Columns of the history, nan where there is nothing to count; the smallest cluster is over the slides that have
        prototypes, and 0 when a prototype has no region.
    """
    N, M, _ = now.centers.shape
    has = now.assignment >= 0
    patients = np.array(dataset.patient_ids)
    slides, ranks = np.nonzero(now.neighbors >= 0)
    same = patients[slides] == patients[now.neighbors[slides, ranks]]
    clusters = np.bincount(slide_of[has] * M + now.assignment[has], minlength=N * M).reshape(N, M)
    without = 1 - len(np.unique(dataset.slide_of[has])) / len(dataset.slide_ids)
    return {
        "slides_without_prototypes_fraction": without,
        "regions_without_prototypes_fraction": float(1 - has.mean()) if len(has) else math.nan,
        "min_cluster_size": float(clusters[clusters.any(1)].min()) if has.any() else math.nan,
        "same_patient_fraction": float(same.mean()) if len(same) else math.nan,
        "reassigned_fraction": reassigned_fraction(before, now, slide_of) if before and M <= MAX_PAIRED else math.nan,
    }


def target_stats(rows: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute the fraction of regions that L_inter has no target for.

    Args:
        rows: Term -> int64 (R, K), the targets of each region, -1 for none.

    Returns:
        A column of the history, nan where L_inter does not count.
    """
    has = (rows["inter"] >= 0).any(1).float() if "inter" in rows else None
    return {"regions_without_neighbors_fraction": math.nan if has is None or not len(has) else 1 - float(has.mean())}
