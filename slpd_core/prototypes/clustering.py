"""k-means of groups of rows, each by itself: regions of every slide, or all regions at once (paper, sec. 2.2)."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from slpd_core.runtime import generator

T = TypeVar("T")
GRAM_ROWS = 1024  # of a group at most, for its distances to come from the products of its rows
BATCH_VALUES = 2**18  # in the largest array of a batch of groups: it stays in cache
DISTANCES_AT_ONCE = 2**24  # of a large group


def parallel_map(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Call a function on every item, as many at once as the job has threads.

    Args:
        work: Multiplies matrices on its own thread.
        items: Its arguments.
    """
    threads = torch.get_num_threads()
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass


def group_rows(slide_of: np.ndarray, N: int) -> list[np.ndarray]:
    """List the rows of each slide.

    Args:
        slide_of: int64 (R,), the slide of each row.
        N: Slides.

    Returns:
        int64 (L,) per slide, ascending.
    """
    sizes = np.bincount(slide_of, minlength=N)
    return np.split(np.argsort(slide_of, kind="stable"), np.cumsum(sizes)[:-1])[:N]


def cluster_each_slide(
    embeddings: np.ndarray,
    rows_of: Sequence[np.ndarray],
    slide_ids: Sequence[str],
    M: int,
    *,
    restarts: int = 5,
    iterations: int = 10,
    min_regions: int | None = None,
    seed: int,
    epoch: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster each slide's regions into M prototypes (paper, sec. 2.2).

    A slide's k-means depends on its own regions, its id, the seed and the epoch alone.

    Args:
        embeddings: float32 (R, D).
        rows_of: Rows of each slide.
        slide_ids: (N,).
        M: Prototypes per slide.
        restarts, iterations: As in `kmeans`.
        min_regions: A slide of fewer, or of fewer than M, is not clustered.
        seed: Of the run.
        epoch: From 0.

    Returns:
        The slides that are clustered, int64 (n,); their centers float32 (n, M, D); and the assignment int64 (R,), -1
        for regions of other slides.
    """
    clustered = np.flatnonzero([len(rows) >= max(M, min_regions or 0) for rows in rows_of])
    rngs = [generator(seed, "kmeans", epoch, slide_ids[slide]) for slide in clustered.tolist()]
    groups = [rows_of[slide] for slide in clustered.tolist()]
    return clustered, *kmeans(embeddings, groups, M, restarts=restarts, iterations=iterations, rngs=rngs)


def kmeans(
    x: np.ndarray,
    groups: Sequence[np.ndarray],
    M: int,
    *,
    restarts: int,
    iterations: int,
    rngs: Sequence[np.random.Generator],
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster each group by Euclidean k-means, the best of several restarts from random rows.

    An empty cluster takes the row that is farthest from its center. A group's result depends on its own rows and
    generator alone, to the bit: groups of equal size are clustered at once, but none is padded or multiplied with
    another.

    Args:
        x: (R, D).
        groups: Rows of each group, M or more.
        M: Clusters per group.
        restarts: Per group.
        iterations: Per restart.
        rngs: One per group.

    Returns:
        Centers float32 (groups, M, D), and the assignment int64 (R,), -1 for a row in no group.
    """
    centers = np.zeros((len(groups), M, x.shape[1]), np.float32)
    assignment = np.full(len(x), -1, np.int64)

    def cluster(batch: np.ndarray) -> None:
        rows = np.stack([groups[i] for i in batch])
        starts = np.stack([rngs[i].random((restarts, rows.shape[1])).argsort(1)[:, :M] for i in batch])
        centers[batch], assignment[rows] = _kmeans(x[rows], starts, iterations)

    sizes = np.array([len(rows) for rows in groups], np.int64)
    parallel_map(cluster, _batches(np.where(sizes <= GRAM_ROWS, sizes, 0), restarts * M))
    for i in np.flatnonzero(sizes > GRAM_ROWS):
        cluster(np.array([i]))
    return centers, assignment


def _batches(sizes: np.ndarray, centers: int) -> list[np.ndarray]:
    """Batch groups of equal size, as many as stay in cache; a group of size 0 is left out."""
    batches = []
    for size in np.unique(sizes[sizes > 0]):
        alike = np.flatnonzero(sizes == size)
        together = max(1, BATCH_VALUES // (size * max(size, centers)))
        batches += [alike[start : start + together] for start in range(0, len(alike), together)]
    return batches


def _kmeans(x: np.ndarray, starts: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster groups of equal size (G, L, D) from starts (G, restarts, M): centers (G, M, D), assignment (G, L).

    Works around a group's mean: squared distances between rows that share a large offset would drown in single
    precision.
    """
    mean = x.mean(1, keepdims=True)
    x = (x - mean).astype(np.float32)
    if x.shape[1] <= GRAM_ROWS:
        centers, assignment = _kmeans_gram(x, starts, iterations)
    else:
        each = [_kmeans_blockwise(*group, iterations) for group in zip(x, starts, strict=True)]
        centers, assignment = (np.stack(arrays) for arrays in zip(*each, strict=True))
    return centers + mean, assignment


def _kmeans_gram(x: np.ndarray, starts: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster small groups, all restarts at once; products of rows give distances, since a center is a mean of rows.

    With the centers W x and the products P = x x^T: |(W x)_m - x_l|^2 = (W P W^T)_mm - 2 (W P)_ml + P_ll. A slide has
    fewer regions than they have dimensions: an iteration multiplies once with L x L, not twice with L x D.
    """
    G, L, _ = x.shape
    products = x @ x.transpose(0, 2, 1)
    weights = (starts[..., None] == np.arange(L)).astype(np.float32)
    distance = _partial_squares(weights, products)
    for _ in range(iterations):
        member = _members(distance)
        size = member.sum(3)
        weights = member / np.maximum(size, 1).astype(np.float32)[..., None]
        for group, restart in np.argwhere((size == 0).any(2)):
            empty = np.flatnonzero(size[group, restart] == 0)
            served = distance[group, restart].min(0) + products[group].diagonal()
            weights[group, restart, empty, _farthest(served, len(empty))] = 1
        distance = _partial_squares(weights, products)
    best = np.arange(G), distance.min(2).sum(2).argmin(1)
    return weights[best] @ x, distance[best].argmin(1)


def _partial_squares(weights: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Compute squared distances less the row's squared norm: (G, restarts, M, L), (G, L, L) → (G, restarts, M, L)."""
    G, restarts, M, L = weights.shape
    cross = (weights.reshape(G, restarts * M, L) @ products).reshape(weights.shape)
    squares: np.ndarray = np.einsum("grml,grml->grm", weights, cross)[..., None] - 2 * cross
    return squares


def _members(distance: np.ndarray) -> np.ndarray:
    """Assign each row to its nearest center, of equally near ones the first: (G, restarts, M, L) → bool, same shape."""
    member: np.ndarray = distance == distance.min(2, keepdims=True)
    if np.count_nonzero(member) > member[:, :, 0].size:
        member = distance.argmin(2)[:, :, None] == np.arange(distance.shape[2])[:, None]
    return member


def _kmeans_blockwise(x: np.ndarray, starts: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster a large group (L, D), one restart of (restarts, M) after the other, its rows block by block."""
    M, L = starts.shape[1], len(x)
    least = np.inf
    for start in starts:
        centers = x[start]
        nearest, distance = _nearest(x, centers)
        for _ in range(iterations):
            member = csr_array((np.ones(L, np.float32), (nearest, np.arange(L))), shape=(M, L))
            size = np.bincount(nearest, minlength=M)
            centers = (member @ x) / np.maximum(size, 1).astype(np.float32)[:, None]
            empty = np.flatnonzero(size == 0)
            centers[empty] = x[_farthest(distance, len(empty))]
            nearest, distance = _nearest(x, centers)
        if distance.sum() < least:
            least, best = distance.sum(), (centers, nearest)
    return best


def _nearest(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find each row's nearest center and the squared distance to it: (L, D), (M, D) → (L,) twice."""
    nearest, distance = np.empty(len(x), np.int64), (x**2).sum(1)
    half_square = (centers**2).sum(1) / 2
    rows = max(1, DISTANCES_AT_ONCE // len(centers))

    def compare(start: int) -> None:
        block = slice(start, start + rows)
        closeness = x[block] @ centers.T
        closeness -= half_square
        nearest[block] = closeness.argmax(1)
        distance[block] -= 2 * closeness.max(1)

    parallel_map(compare, range(0, len(x), rows))
    return nearest, distance


def _farthest(distance: np.ndarray, count: int) -> np.ndarray:
    """Select the rows farthest from their centers, one for each empty cluster."""
    return np.argsort(-distance, kind="stable")[:count]
