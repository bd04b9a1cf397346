"""Prototypes: the centers of each slide's regions, and how slides' prototypes match (paper, sec. 2.2)."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from slpd_core.pretraining.clustering import kmeans
from slpd_core.pretraining.matching import Matching, nearest_slides
from slpd_core.runtime import generator


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of a cohort's slides at one epoch.

    centers: float32 (N, M, D), zero where a slide has none. assignment: int64 (R,), each region's prototype within its
    slide, -1 where it has none. neighbors: int64 (N, K), the most similar slides, -1 where there are fewer.
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
    M: int,
    K: int,
    restarts: int,
    iterations: int,
    seed: int,
    epoch: int,
    min_regions: int | None = None,
    group: np.ndarray | None = None,
    matching: Matching = "optimal",
    center_slides: bool = False,
) -> Prototypes:
    """Cluster each slide's regions, then find each slide's nearest slides and matched prototypes.

    embeddings: (R, D); slide_of: int64 (R,), index into `slide_ids`. A slide of fewer than M regions, or than
    min_regions, gets no prototypes and is nobody's neighbor. A slide's k-means depends on its own regions, the seed
    and the epoch alone; all regions as one slide are clustered globally. group: int64 (N,), the patient of each slide
    where slides of a patient shall not be neighbors. matching: as in `nearest_slides`. center_slides: whether slides
    are compared by their prototypes less the mean of their regions.
    """
    N = len(slide_ids)
    sizes = np.bincount(slide_of, minlength=N)
    clustered = np.flatnonzero(sizes >= max(M, min_regions or 0))
    rows_of = np.split(np.argsort(slide_of, kind="stable"), np.cumsum(sizes)[:-1])
    centers = np.zeros((N, M, embeddings.shape[1]), np.float32)
    centers[clustered], assignment = kmeans(
        embeddings,
        [rows_of[slide] for slide in clustered],
        M,
        restarts=restarts,
        iterations=iterations,
        rngs=[generator(seed, "kmeans", epoch, slide_ids[slide]) for slide in clustered],
    )
    neighbors = np.full((N, K), -1, np.int64)
    matches = np.full((N, K, M), -1, np.int64)
    among = None if group is None else group[clustered]
    compared = centers[clustered]
    if center_slides and len(clustered):
        compared = compared - np.stack([embeddings[rows_of[slide]].mean(0) for slide in clustered])[:, None]
    nearest, matches[clustered] = nearest_slides(compared, K, among, matching)
    neighbors[clustered] = np.append(clustered, -1)[nearest]  # -1 stays -1
    return Prototypes(centers, assignment, neighbors, matches)


def reassigned_fraction(before: Prototypes, after: Prototypes, slide_of: np.ndarray) -> float:
    """Share of regions that changed prototype; nan without prototypes.

    A slide's old and new prototypes are paired by the regions they have in common, as many as possible, so that neither
    their order nor a turn of the embedding space counts as a move.
    """
    N, M, _ = after.centers.shape
    has = after.assignment >= 0
    pairs = (slide_of[has] * M + before.assignment[has]) * M + after.assignment[has]
    common = np.bincount(pairs, minlength=N * M * M).reshape(N, M, M)
    stayed = sum(slide[linear_sum_assignment(slide, maximize=True)].sum() for slide in common)
    return float(1 - stayed / has.sum()) if has.any() else float("nan")
