"""Prototypes of slides."""

from collections.abc import Mapping

import numpy as np

from slpd_core import config
from slpd_core.config.base import NonNegativeInt, Seed
from slpd_core.pretraining import prototypes
from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.prototypes.matching import Matching
from slpd_core.runtime import name_some


@config.check_arguments(config.PretrainRunConfig, seed=Seed, epoch=NonNegativeInt)
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
        embeddings: float32 (L, D) per slide, by the slide's id.
        n_prototypes: M, prototypes per slide (paper: 4 on NSCLC, 2 on BRCA).
        n_neighbors: K, most similar slides (paper: 1).
        min_regions: Slides of fewer regions have no prototypes; None: M.
        kmeans_restarts, kmeans_iterations: Random restarts of k-means, and iterations of each.
        matching: A prototype's partner in a neighbor: "optimal" (one to one, eq. 3) or "nearest" (many to one).
        patients: Patient per slide, by the slide's id; slides of one patient are then no neighbors.
        center_slides: Whether to compare slides by their prototypes less the mean of their regions.
        seed, epoch: Seed of the restarts; a pretraining run of this seed has the same at this epoch.

    Returns:
        The prototypes of N slides, in the order of `embeddings`: `centers` float32 (N, M, D), zero for slides of too
        few regions; `assignment` (R,), the prototype of each region, slide after slide; `neighbors` (N, K), the most
        similar slides; `matches` (N, K, M), the partners of a slide's prototypes there. -1 stands for none (paper,
        sec. 2.2).

    Raises:
        ValueError: An argument is out of its bounds, there is no slide, or one has no patient.
    """
    if center_slides and n_prototypes == 1:
        raise ValueError("center_slides: nothing is left of one prototype per slide; set n_prototypes to 2 or more")
    if not embeddings:
        raise ValueError("embeddings: of no slide; give those of one slide at least")
    ids = list(embeddings)
    lacking = [] if patients is None else [name for name in ids if name not in patients]
    if lacking:
        raise ValueError(f"patients: none is given for slide {name_some(lacking)}; give one per slide, or None")
    groups = None if patients is None else np.unique([patients[name] for name in ids], return_inverse=True)[1]
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
        groups=groups,
        matching=matching,
        center_slides=center_slides,
    )
