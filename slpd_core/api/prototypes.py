"""Prototypes of slides."""

from collections.abc import Mapping

import numpy as np

from slpd_core.pretraining import prototypes
from slpd_core.pretraining.matching import Matching
from slpd_core.pretraining.prototypes import Prototypes


def cluster_embeddings(
    embeddings: Mapping[str, np.ndarray],
    *,
    n_prototypes: int = 4,
    n_neighbors: int = 1,
    min_regions: int | None = None,
    kmeans_restarts: int = 5,
    kmeans_iterations: int = 10,
    matching: Matching = "optimal",
    patients: Mapping[str, str] | None = None,
    center_slides: bool = False,
    seed: int = 1,
    epoch: int = 0,
) -> Prototypes:
    """Cluster each slide's regions into prototypes, and match them with those of its most similar slides.

    Args:
        embeddings: Of each slide by its id, float32 (L, D).
        n_prototypes: M, prototypes per slide (paper: 4 on NSCLC, 2 on BRCA).
        n_neighbors: K, most similar slides (paper: 1).
        min_regions: A slide of fewer has no prototypes; None: M.
        kmeans_restarts, kmeans_iterations: Of k-means.
        matching: A prototype's partner in a neighbor: "optimal" (one to one, eq. 3) or "nearest" (many to one).
        patients: Of each slide by its id; slides of one patient are no neighbors then.
        center_slides: Compare slides by their prototypes less the mean of their regions.
        seed, epoch: Of the random restarts: those of a pretraining run at that epoch.

    Returns:
        Prototypes of N slides, in the order given: float32 (N, M, D), zero for a slide of too few regions; the
        prototype of each region, (R,), slide after slide; each slide's K most similar slides, (N, K), and the partners
        of its prototypes there, (N, K, M). -1 stands for none (paper, sec. 2.2).

    Raises:
        ValueError: There is no slide.
    """
    if not embeddings:
        raise ValueError("embeddings: of no slide; give those of one slide at least")
    ids = list(embeddings)
    group = None if patients is None else np.unique([patients[name] for name in ids], return_inverse=True)[1]
    return prototypes.cluster_slides(
        np.concatenate([embeddings[name] for name in ids]),
        np.repeat(np.arange(len(ids)), [len(embeddings[name]) for name in ids]),
        ids,
        M=n_prototypes,
        K=n_neighbors,
        restarts=kmeans_restarts,
        iterations=kmeans_iterations,
        seed=seed,
        epoch=epoch,
        min_regions=min_regions,
        group=group,
        matching=matching,
        center_slides=center_slides,
    )
