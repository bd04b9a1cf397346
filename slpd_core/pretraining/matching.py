"""How similar slides are by their prototypes, which are neighbors, and which prototypes pair (paper, eq. 3, 4)."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from slpd_core.pretraining.clustering import parallel_map

Matching = Literal["optimal", "nearest"]
SUBSETS_UP_TO = 10  # prototypes; above it one Hungarian matching a pair of slides takes less than its subsets
BLOCK_SLIDES = 128
COMPARED_REGIONS = 128  # compared with all others at a time
BLOCK_COSINES = 2**13  # of each of a block's slides at once: they stay in cache


def match_prototypes(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Pair the prototypes of two slides one to one so that their mean cosine is greatest (paper, eq. 3).

    a, b: (M, D). Gives the mean cosine of the pairs, and for each row of `a` the index of its partner in `b`.
    """
    cosine = _unit(a) @ _unit(b).T
    rows, partner = linear_sum_assignment(cosine, maximize=True)
    return float(cosine[rows, partner].mean()), partner


def nearest_slides(
    centers: np.ndarray, K: int, group: np.ndarray | None = None, matching: Matching = "optimal"
) -> tuple[np.ndarray, np.ndarray]:
    """The K most similar slides of each slide, and the partner of each prototype in them (paper, eq. 3 and 4).

    centers: (N, M, D). group: int64 (N,), slides of the same group are no neighbors; without it every slide is a group
    of its own. Slides are similar by their optimal pairing. matching: a prototype's partner is that of this pairing, or
    the nearest by cosine, which several may share.

    Gives neighbors int64 (N, K), most similar first and of equals the lower index, and matches int64 (N, K, M); -1
    where fewer than K slides are allowed. Slides are compared block by block, no N x N array is kept.
    """
    N, M, _ = centers.shape
    group = np.arange(N) if group is None else group
    neighbors = np.full((N, K), -1, np.int64)
    matches = np.full((N, K, M), -1, np.int64)
    unit = _unit(centers.transpose(1, 0, 2))

    def compare(start: int) -> None:
        block = slice(start, start + BLOCK_SLIDES)
        similarity = _similarities(unit[:, block], unit)
        similarity[group[block, None] == group] = -np.inf
        for rank, rows, nearest in _ranked(similarity, K):
            slides = start + rows
            neighbors[slides, rank] = nearest
            matches[slides, rank] = _partners(unit[:, slides], unit[:, nearest], matching)

    if len(np.unique(group)) > 1:
        parallel_map(compare, range(0, N, BLOCK_SLIDES))
    return neighbors, matches


def nearest_regions(clustered: np.ndarray, neighbors: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """For each region the most similar one, by cosine, in each of its slide's neighbors: int64 (R, K), -1 for none.

    The alternative to prototypes that the paper argues against (Table 2, inter-slide distillation by region).
    """
    unit = clustered / np.maximum(np.linalg.norm(clustered, axis=1, keepdims=True), 1e-12)
    own = [np.flatnonzero(group_of == group) for group in range(len(neighbors))]
    found = np.full((len(clustered), neighbors.shape[1]), -1)
    for group, rank in np.argwhere(neighbors >= 0):
        there = own[neighbors[group, rank]]
        found[own[group], rank] = there[(unit[own[group]] @ unit[there].T).argmax(1)]
    return found


def nearest_regions_of_all(clustered: np.ndarray, group: np.ndarray, K: int) -> np.ndarray:
    """Find for each region the K most similar regions, by cosine, of all other groups.

    The other reading of Table 2's inter-slide distillation by region: the nearest slides play no part. Regions are
    compared block by block, no R x R array is kept.

    Args:
        clustered: float32 (R, D).
        group: int64 (R,), the slide of each region, or its patient.

    Returns:
        int64 (R, K), most similar first and of equals the lower row; -1 where fewer regions are in other groups.
    """
    unit, found = _unit(clustered), np.full((len(clustered), K), -1)

    def compare(start: int) -> None:
        block = slice(start, start + COMPARED_REGIONS)
        cosine = unit[block] @ unit.T
        cosine[group[block, None] == group] = -np.inf
        for rank, rows, nearest in _ranked(cosine, K):
            found[start + rows, rank] = nearest

    if len(np.unique(group)) > 1:
        parallel_map(compare, range(0, len(clustered), COMPARED_REGIONS))
    return found


def _ranked(similarity: np.ndarray, K: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield rank after rank the rows that have so many neighbors left, and these; uses the similarities (n, N) up."""
    every = np.arange(len(similarity))
    for rank in range(K):
        nearest = similarity.argmax(1)
        allowed = similarity[every, nearest] > -np.inf
        similarity[every, nearest] = -np.inf
        yield rank, every[allowed], nearest[allowed]


def _similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """M times D of eq. 3 for all pairs of slides: unit vectors (M, n, D), (M, N, D) → (n, N)."""
    M, n, D = a.shape
    N = b.shape[1]
    found = np.empty((n, N), a.dtype)
    rows, width = a.reshape(M * n, D), max(1, BLOCK_COSINES // M**2)
    for start in range(0, N, width):
        columns = b[:, start : start + width].reshape(-1, D)
        cosine = (rows @ columns.T).reshape(M, n, M, -1).swapaxes(1, 2)
        found[:, start : start + width] = _greatest_sum(cosine)
    return found


def _greatest_sum(cosine: np.ndarray) -> np.ndarray:
    """The greatest sum of M entries, one in each row and column, of all matrices at once: (M, M, n, N) → (n, N).

    Row by row: the best that the rows so far reach in a subset of the columns (a bit each) is the best, over the last
    row's column, of what the rows before it reach in the others. 2^M subsets stand for M! permutations.
    """
    M = len(cosine)
    if M > SUBSETS_UP_TO:
        matrices = cosine.transpose(2, 3, 0, 1).reshape(-1, M, M)
        sums = [matrix[linear_sum_assignment(matrix, maximize=True)].sum() for matrix in matrices]
        return np.array(sums).reshape(cosine.shape[2:])
    best = {1 << column: cosine[0, column] for column in range(M)}
    for row in cosine[1:]:
        longer: dict[int, np.ndarray] = {}
        for taken, total in best.items():
            for column in range(M):
                subset = taken | 1 << column
                if subset != taken:
                    candidate = total + row[column]
                    longer[subset] = np.maximum(longer.get(subset, candidate), candidate, out=candidate)
        best = longer
    return best[(1 << M) - 1]


def _partners(a: np.ndarray, b: np.ndarray, matching: Matching) -> np.ndarray:
    """Of each prototype in a of P pairs of slides its partner in b: unit vectors (M, P, D) twice → int64 (P, M)."""
    cosine = a.transpose(1, 0, 2) @ b.transpose(1, 2, 0)
    if matching == "nearest":
        return cosine.argmax(2)
    partners = [linear_sum_assignment(matrix, maximize=True)[1] for matrix in cosine]
    return np.array(partners, np.int64).reshape(cosine.shape[:2])


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.einsum("...d,...d->...", x, x))[..., None]
    return np.divide(x, np.maximum(norm, 1e-12), order="C")
