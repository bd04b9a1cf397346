"""Matching: similarity of slides by their prototypes, nearest slides, and pairs of prototypes (paper, eq. 3, 4)."""

import math
import threading
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from slpd_core.config import check_arguments
from slpd_core.config.base import NonNegativeInt
from slpd_core.prototypes.clustering import parallel_map

Matching = Literal["optimal", "nearest"]
SUBSETS_UP_TO = 10  # prototypes; above it one Hungarian matching a pair of slides takes less than its subsets
BLOCK_SLIDES = 128
COMPARED_REGIONS = 128  # compared with all others at a time
BLOCK_COSINES = 2**13  # of each of a block's slides at once: they stay in cache


def match_prototypes(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Pair the prototypes of two slides one to one so that their mean cosine is greatest (paper, eq. 3).

    Args:
        a: (M, D).
        b: (M, D).

    Returns:
        D(w_i, w_j), the mean cosine of the pairs, and σ*: for each row of `a` the index of its partner in `b`.
    """
    similarity, partner, _ = match_pair(a, b)
    return similarity, partner


def match_pair(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Match as `match_prototypes`, to the same bits wherever a prototype stands among the others.

    Args:
        a: (M, D).
        b: (M, D).

    Returns:
        The mean cosine and the partners, as `match_prototypes`; and the cosine of each pair, float64 (M,).
    """
    a, b = normalize_vectors(np.asarray(a, np.float64)), normalize_vectors(np.asarray(b, np.float64))
    cosine = (a[:, None] * b).sum(2)  # a product of matrices may add up each of its entries in another order
    rows, partner = linear_sum_assignment(cosine, maximize=True)
    return math.fsum(cosine[rows, partner]) / len(a), partner, cosine[rows, partner]


@check_arguments(K=NonNegativeInt, matching=Matching)
def nearest_slides(
    centers: np.ndarray, K: int, groups: np.ndarray | None = None, matching: Matching = "optimal"
) -> tuple[np.ndarray, np.ndarray]:
    """Find the K most similar slides of each slide, and the partner of each prototype in them (paper, eq. 3, 4).

    Slides are similar by their optimal pairing, and compared block by block: no N x N array is kept.

    Args:
        centers: (N, M, D).
        K: Slides to find.
        groups: int64 (N,), the group of each slide; slides of a group are no neighbors. None: every slide is a group.
        matching: A prototype's partner is that of the optimal pairing, or the nearest by cosine, which several may
            share.

    Returns:
        Neighbors int64 (N, K), most similar first and of equals the lower index, and matches int64 (N, K, M); -1 where
        fewer than K slides are allowed.
    """
    N, M, _ = centers.shape
    groups = np.arange(N) if groups is None else groups
    matches = np.full((N, K, M), -1, np.int64)
    unit = normalize_vectors(centers.transpose(1, 0, 2))
    best = _Best(N, K)

    def compare(start: int) -> None:
        """Compare a block's slides with one another and with all later ones: similarity is symmetric."""
        stop = min(start + BLOCK_SLIDES, N)
        similarity = _similarities(unit[:, start:stop], unit[:, start:])
        similarity[groups[start:stop, None] == groups[start:]] = -np.inf
        best.offer(similarity[:, stop - start :].T.copy(), stop, start)
        best.offer(similarity, start, start)

    def match(start: int) -> None:
        for rank in range(K):
            slides = start + np.flatnonzero(best.indices[start : start + BLOCK_SLIDES, rank] >= 0)
            matches[slides, rank] = _partners(unit[:, slides], unit[:, best.indices[slides, rank]], matching)

    if len(np.unique(groups)) > 1:
        parallel_map(compare, range(0, N, BLOCK_SLIDES))
        parallel_map(match, range(0, N, BLOCK_SLIDES))
    return best.indices, matches


class _Best:
    """The K most similar of each of N, of those offered so far; of equals the lower index, in whatever order they come.

    Attributes:
        values: float64 (N, K), greatest first, -inf for none.
        indices: int64 (N, K), -1 for none.
    """

    def __init__(self, N: int, K: int) -> None:
        self.values, self.indices = np.full((N, K), -np.inf), np.full((N, K), -1, np.int64)
        self._lock = threading.Lock()

    def offer(self, similarity: np.ndarray, row: int, column: int) -> None:
        """Take in similarities of rows from `row` on with columns from `column` on, -inf for none; uses them up."""
        n, K = len(similarity), self.values.shape[1]
        values, columns = _greatest(similarity, K)
        indices = np.where(columns < 0, -1, column + columns)
        with self._lock:
            better = np.flatnonzero((values[:, :1] >= self.values[row : row + n, -1:]).any(1))
            rows = row + better
            values = np.concatenate([self.values[rows], values[better]], 1)
            indices = np.concatenate([self.indices[rows], indices[better]], 1)
            order = np.lexsort((indices, -values))[:, :K]
            self.values[rows] = np.take_along_axis(values, order, 1)
            self.indices[rows] = np.take_along_axis(indices, order, 1)


def nearest_regions(clustered: np.ndarray, neighbors: np.ndarray, slide_of: np.ndarray) -> np.ndarray:
    """Find for each region the most similar one, by cosine, in each of its slide's neighbors.

    The alternative to prototypes that the paper argues against (Table 2, inter-slide distillation by region).

    Args:
        clustered: float32 (R, D).
        neighbors: int64 (N, K), nearest slides, -1 for none.
        slide_of: int64 (R,), the slide of each region.

    Returns:
        int64 (R, K), -1 for none.
    """
    unit = clustered / np.maximum(np.linalg.norm(clustered, axis=1, keepdims=True), 1e-12)
    rows_of = [np.flatnonzero(slide_of == slide) for slide in range(len(neighbors))]
    nearest = np.full((len(clustered), neighbors.shape[1]), -1)
    for slide, rank in np.argwhere(neighbors >= 0):
        rows, candidates = rows_of[slide], rows_of[neighbors[slide, rank]]
        nearest[rows, rank] = candidates[(unit[rows] @ unit[candidates].T).argmax(1)]
    return nearest


def nearest_regions_of_all(clustered: np.ndarray, groups: np.ndarray, K: int) -> np.ndarray:
    """Find for each region the K most similar regions, by cosine, of all other groups.

    The other reading of Table 2's inter-slide distillation by region: the nearest slides play no part. Regions are
    compared block by block, no R x R array is kept.

    Args:
        clustered: float32 (R, D).
        groups: int64 (R,), the slide of each region, or its patient.
        K: Regions to find.

    Returns:
        int64 (R, K), most similar first and of equals the lower row; -1 where fewer regions are in other groups.
    """
    unit, neighbors = normalize_vectors(clustered), np.full((len(clustered), K), -1)

    def compare(start: int) -> None:
        block = slice(start, start + COMPARED_REGIONS)
        cosine = unit[block] @ unit.T
        cosine[groups[block, None] == groups] = -np.inf
        neighbors[block] = _greatest(cosine, K)[1]

    if len(np.unique(groups)) > 1:
        parallel_map(compare, range(0, len(clustered), COMPARED_REGIONS))
    return neighbors


def _greatest(similarity: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the K greatest of each row (n, N) and their columns, -inf and -1 for none; uses the similarities up."""
    n, N = similarity.shape
    values, columns = np.full((n, K), -np.inf, similarity.dtype), np.full((n, K), -1, np.int64)
    every = np.arange(n)
    for rank in range(min(K, N)):
        nearest = similarity.argmax(1)
        values[:, rank] = similarity[every, nearest]
        columns[:, rank] = np.where(values[:, rank] > -np.inf, nearest, -1)
        similarity[every, nearest] = -np.inf
    return values, columns


def _similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute M times D of eq. 3 for all pairs of slides: unit vectors (M, n, D), (M, N, D) → (n, N)."""
    M, n, D = a.shape
    N = b.shape[1]
    similarity = np.empty((n, N), a.dtype)
    rows, width = a.reshape(M * n, D), max(1, BLOCK_COSINES // M**2)
    for start in range(0, N, width):
        columns = b[:, start : start + width].reshape(-1, D)
        cosine = (rows @ columns.T).reshape(M, n, M, -1).swapaxes(1, 2)
        similarity[:, start : start + width] = _greatest_sum(cosine)
    return similarity


def _greatest_sum(cosine: np.ndarray) -> np.ndarray:
    """Maximize the sum of M entries, one in each row and column, of all matrices at once: (M, M, n, N) → (n, N).

    Row by row: the best that the rows so far reach in a subset of the columns (a bit each) is the best, over the last
    row's column, of what the rows before it reach in the others. 2^M subsets stand for M! permutations.
    """
    M = len(cosine)
    if M > SUBSETS_UP_TO:
        matrices = cosine.transpose(2, 3, 0, 1).reshape(-1, M, M)
        sums = [matrix[linear_sum_assignment(matrix, maximize=True)].sum() for matrix in matrices]
        return np.array(sums).reshape(cosine.shape[2:])
    best: dict[int, np.ndarray] = {1 << column: cosine[0, column] for column in range(M)}
    for row in cosine[1:]:
        longer: dict[int, np.ndarray] = {}
        for taken, total in best.items():
            for column in range(M):
                subset = taken | 1 << column
                if subset != taken:
                    candidate = total + row[column]
                    so_far = longer.get(subset)
                    longer[subset] = candidate if so_far is None else np.maximum(so_far, candidate, out=so_far)
        best = longer
    return best[(1 << M) - 1]


def _partners(a: np.ndarray, b: np.ndarray, matching: Matching) -> np.ndarray:
    """Find the partner in b of each prototype in a, for P pairs of slides: unit vectors (M, P, D) → int64 (P, M)."""
    cosine = a.transpose(1, 0, 2) @ b.transpose(1, 2, 0)
    if matching == "nearest":
        nearest: np.ndarray = cosine.argmax(2)
        return nearest
    partners = [linear_sum_assignment(matrix, maximize=True)[1] for matrix in cosine]
    return np.array(partners, np.int64).reshape(cosine.shape[:2])


def normalize_vectors(x: np.ndarray) -> np.ndarray:
    """Divide vectors by their length; those of no length stay zero.

    Args:
        x: (..., D).

    Returns:
        The unit vectors, of the shape and dtype of `x`.
    """
    norm = np.sqrt(np.einsum("...d,...d->...", x, x))[..., None]
    unit: np.ndarray = np.divide(x, np.maximum(norm, 1e-12), order="C")
    return unit
