"""Prototypes: the centers of each slide's regions, and how slides' prototypes match (paper, sec. 2.2)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from slpd_core.prototypes.clustering import cluster_each_slide, group_rows
from slpd_core.prototypes.matching import Matching, nearest_slides


@dataclass(frozen=True)
class ClusteringParams:
    """How slides are clustered and matched; the defaults are the paper's.

    Attributes:
        clustering: slide: each slide by itself; global: all regions at once.
        n_prototypes: M, per slide.
        min_regions: A slide of fewer has no prototypes; None for M.
        cluster_crop: Side in tokens of the center crop that is clustered; None for the whole grid.
        prototype_start_epoch: First epoch that uses prototypes.
        kmeans_restarts: Of which the best counts.
        kmeans_iterations: Per restart.
        n_neighbors: K, most similar slides.
        exclude_same_patient: Whether slides of the same patient are no neighbors.
        center_slides: Whether slides are compared by their prototypes less the mean of their regions.
        matching: A prototype's partner: optimal (one to one, eq. 3), or the nearest.
    """

    clustering: Literal["slide", "global"] = "slide"
    n_prototypes: int = 4
    min_regions: int | None = None
    cluster_crop: int | None = None
    prototype_start_epoch: int = 0
    kmeans_restarts: int = 5
    kmeans_iterations: int = 10
    n_neighbors: int = 1
    exclude_same_patient: bool = False
    center_slides: bool = False
    matching: Matching = "optimal"


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of N slides of R regions.

    Attributes:
        centers: float32 (N, M, D), zero where a slide has none.
        assignment: int64 (R,), each region's prototype within its slide, -1 where it has none.
        neighbors: int64 (N, K), the most similar slides, -1 where there are fewer.
        matches: int64 (N, K, M), the partner of each prototype in that neighbor, -1 likewise.
    """

    centers: np.ndarray
    assignment: np.ndarray
    neighbors: np.ndarray
    matches: np.ndarray


def cluster_slides(
    embeddings: np.ndarray,
    slide_of: np.ndarray,
    slide_ids: list[str],
    *,
    M: int = 4,
    K: int = 1,
    restarts: int = 5,
    iterations: int = 10,
    seed: int,
    epoch: int,
    min_regions: int | None = None,
    groups: np.ndarray | None = None,
    matching: Matching = "optimal",
    center_slides: bool = False,
) -> Prototypes:
    """Cluster each slide's regions, then find each slide's nearest slides and matched prototypes (paper, sec. 2.2).

    A slide's k-means depends on its own regions, the seed and the epoch alone. All regions as one slide are clustered
    globally.

    Args:
        embeddings: float32 (R, D).
        slide_of: int64 (R,), index into `slide_ids`.
        slide_ids: (N,).
        M: Prototypes per slide.
        K: Nearest slides.
        restarts, iterations: Of k-means.
        seed: Of the run.
        epoch: From 0.
        min_regions: A slide of fewer, or of fewer than M, has no prototypes and is nobody's neighbor.
        groups: int64 (N,), the group of each slide; as in `nearest_slides`.
        matching: As in `nearest_slides`.
        center_slides: Whether slides are compared by their prototypes less the mean of their regions.

    Returns:
        The prototypes, neighbors and matches.
    """
    N, rows_of = len(slide_ids), group_rows(slide_of, len(slide_ids))
    centers = np.zeros((N, M, embeddings.shape[1]), np.float32)
    clustered, compared, assignment = cluster_each_slide(
        embeddings,
        rows_of,
        slide_ids,
        M,
        restarts=restarts,
        iterations=iterations,
        min_regions=min_regions,
        seed=seed,
        epoch=epoch,
    )
    centers[clustered] = compared
    neighbors, matches = np.full((N, K), -1, np.int64), np.full((N, K, M), -1, np.int64)
    if center_slides and len(clustered):
        compared = compared - np.stack([embeddings[rows_of[slide]].mean(0) for slide in clustered])[:, None]
    nearest, matches[clustered] = nearest_slides(compared, K, None if groups is None else groups[clustered], matching)
    neighbors[clustered] = np.append(clustered, -1)[nearest]  # -1 stays -1
    return Prototypes(centers, assignment, neighbors, matches)


def reassigned_fraction(before: Prototypes, after: Prototypes, slide_of: np.ndarray) -> float:
    """Compute the fraction of regions that changed prototype.

    A slide's old and new prototypes are paired by the regions they have in common, as many as possible, so that neither
    their order nor a turn of the embedding space counts as a change.

    Args:
        before: Of the last epoch.
        after: Of this one.
        slide_of: int64 (R,).

    Returns:
        The fraction; nan without prototypes.
    """
    N, M, _ = after.centers.shape
    has = after.assignment >= 0
    pairs = (slide_of[has] * M + before.assignment[has]) * M + after.assignment[has]
    common = np.bincount(pairs, minlength=N * M * M).reshape(N, M, M)
    stayed = sum(slide[linear_sum_assignment(slide, maximize=True)].sum() for slide in common)
    return float(1 - stayed / has.sum()) if has.any() else float("nan")
