"""Prototypes: k-means over the region embeddings of each slide (paper, sec. 2.2), and how slides' prototypes match."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from slpd_core.runtime import generator

ENUMERATE_UP_TO = 5  # prototypes; M! permutations at once, above it one Hungarian matching a pair of slides
BLOCK_SLIDES = 256


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of a cohort's slides at one epoch.

    centres: float32 (N, M, D), zero where a slide has none. assignment: int64 (R,), each region's prototype within its
    slide, -1 where it has none. neighbours: int64 (N, K), the most similar slides, -1 where there are fewer.
    matches: int64 (N, K, M), the partner of each prototype in that neighbour, -1 likewise.
    """

    centres: np.ndarray
    assignment: np.ndarray
    neighbours: np.ndarray
    matches: np.ndarray


def kmeans(
    x: np.ndarray, M: int, restarts: int, iterations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean k-means, the best of several restarts from random rows; an empty cluster takes the worst-served row.

    x: (L, D), L >= M. Gives centres float32 (M, D) and the assignment int64 (L,). Works around the mean of x: squared
    distances between rows that share a large offset would drown in single precision.
    """
    mean = x.mean(0, dtype=np.float64)
    x = (x - mean).astype(np.float32)
    starts = np.stack([rng.choice(len(x), M, replace=False) for _ in range(restarts)])
    centres = x[starts]
    squared = (x**2).sum(1)
    for _ in range(iterations):
        distance = _squared_distances(x, squared, centres)
        member = (distance.argmin(1)[:, None] == np.arange(M)[:, None]).astype(np.float32)
        size = member.sum(2)
        sums = member.reshape(restarts * M, -1) @ x
        centres = sums.reshape(centres.shape) / np.maximum(size, 1)[:, :, None]
        for restart, cluster in np.argwhere(size == 0):
            worst = distance[restart].min(0).argmax()
            centres[restart, cluster] = x[worst]
            distance[restart, :, worst] = 0  # served now: the next empty cluster takes another row
    distance = _squared_distances(x, squared, centres)
    best = distance.min(1).sum(1).argmin()
    return (centres[best] + mean).astype(np.float32), distance[best].argmin(0)


def _squared_distances(x: np.ndarray, squared: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(L, D), (L,), (restarts, M, D) → (restarts, M, L)."""
    restarts, M, D = centres.shape
    cross = (centres.reshape(restarts * M, D) @ x.T).reshape(restarts, M, -1)
    return squared - 2 * cross + (centres**2).sum(2)[:, :, None]


def match_prototypes(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Pair the prototypes of two slides one to one so that their mean cosine is greatest (paper, eq. 3).

    a, b: (M, D). Gives the mean cosine of the pairs, and for each row of `a` the index of its partner in `b`.
    """
    cosine = _unit(a) @ _unit(b).T
    rows, partner = linear_sum_assignment(cosine, maximize=True)
    return float(cosine[rows, partner].mean()), partner


def nearest_slides(centres: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray]:
    """The K most similar slides of each slide and the optimal pairing with each (paper, eq. 3 and 4).

    centres: (N, M, D). Gives neighbours int64 (N, K), most similar first, and matches int64 (N, K, M); -1 where the
    cohort has fewer than K other slides. Slides are compared block by block, no N x N array is kept.
    """
    N, M, _ = centres.shape
    neighbours = np.full((N, K), -1, np.int64)
    matches = np.full((N, K, M), -1, np.int64)
    found = min(K, N - 1)
    unit = _unit(centres)
    for start in range(0, N if found > 0 else 0, BLOCK_SLIDES):
        block = slice(start, min(start + BLOCK_SLIDES, N))
        similarity = _similarities(unit[block], unit)
        similarity[np.arange(len(similarity)), np.arange(block.start, block.stop)] = -np.inf
        neighbours[block, :found] = np.argsort(-similarity, axis=1, kind="stable")[:, :found]
    for slide, rank in product(range(N), range(found)):
        matches[slide, rank] = match_prototypes(centres[slide], centres[neighbours[slide, rank]])[1]
    return neighbours, matches


def _similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """D of eq. 3 for all pairs: unit vectors (n, M, D), (N, M, D) → (n, N)."""
    M = a.shape[1]
    cosine = np.einsum("amd,bkd->abmk", a, b, optimize=True)
    if M > ENUMERATE_UP_TO:
        pairs = cosine.reshape(-1, M, M)
        best = np.array([pair[linear_sum_assignment(pair, maximize=True)].mean() for pair in pairs])
        return best.reshape(cosine.shape[:2])
    best = np.full(cosine.shape[:2], -np.inf, cosine.dtype)
    for order in permutations(range(M)):
        np.maximum(best, cosine[:, :, range(M), order].mean(2), out=best)
    return best


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


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
) -> Prototypes:
    """Cluster each slide's regions, then find each slide's nearest slides and matched prototypes.

    embeddings: (R, D); slide_of: int64 (R,), index into `slide_ids`. A slide of fewer than M regions gets no prototypes
    and is nobody's neighbour. A slide's k-means depends on its own regions, the seed and the epoch alone.
    """
    N = len(slide_ids)
    centres = np.zeros((N, M, embeddings.shape[1]), np.float32)
    assignment = np.full(len(embeddings), -1, np.int64)
    for slide, slide_id in enumerate(slide_ids):
        own = np.flatnonzero(slide_of == slide)
        if len(own) >= M:
            rng = generator(seed, "kmeans", epoch, slide_id)
            centres[slide], assignment[own] = kmeans(embeddings[own], M, restarts, iterations, rng)
    clustered = np.flatnonzero(np.bincount(slide_of, minlength=N) >= M)
    neighbours = np.full((N, K), -1, np.int64)
    matches = np.full((N, K, M), -1, np.int64)
    among, matches[clustered] = nearest_slides(centres[clustered], K)
    neighbours[clustered] = np.where(among >= 0, clustered[among] if len(clustered) else among, -1)
    return Prototypes(centres, assignment, neighbours, matches)


def share_moved(before: Prototypes, after: Prototypes, slide_of: np.ndarray) -> float:
    """Share of regions that changed prototype; nan without prototypes.

    A slide's old and new prototypes are paired by the regions they have in common, as many as possible, so that neither
    their order nor a turn of the embedding space counts as a move.
    """
    M = after.centres.shape[1]
    moved, regions = 0, 0
    for slide in np.unique(slide_of[after.assignment >= 0]):
        own = slide_of == slide
        pairs = np.bincount(before.assignment[own] * M + after.assignment[own], minlength=M * M).reshape(M, M)
        stayed = pairs[linear_sum_assignment(pairs, maximize=True)].sum()
        moved, regions = moved + own.sum() - stayed, regions + own.sum()
    return float(moved / regions) if regions else float("nan")
