"""Clustering and matching before an epoch of stage two: ours against plain ways in the same run, and against the floor.

A cohort of the paper's size (TCGA-NSCLC), 256-d embeddings, 4 prototypes a slide; embeddings are random around kinds of
region and an offset a slide. The floor of matching is multiplying alone: the cosines of all pairs of prototypes.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks.timing import best_seconds, in_own_process, show
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides
from slpd_core.prototypes import matching
from slpd_core.prototypes.clustering import kmeans, parallel_map
from slpd_core.runtime import generator

SLIDES, REGIONS, DIM, M = 1054, 62_852, 256, 4
RESTARTS, ITERATIONS = 5, 10
MANY_SLIDES, TRIED_BLOCKS = 100_000, 16
MORE_SLIDES = 1_000_000  # on paper
SUBSETS = (2, 4, 6, 8, 10, 12)  # prototypes
FEW_SLIDES = 128


def cohort() -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings, float32 (REGIONS, DIM), and the slide of each; sizes of slides are gamma of shape 2."""
    rng = generator(1, "benchmark")
    share = rng.gamma(2.0, size=SLIDES)
    sizes = np.maximum(1, np.floor(share / share.sum() * REGIONS)).astype(int)
    sizes[sizes.argmax()] += REGIONS - sizes.sum()
    slide_of = np.repeat(np.arange(SLIDES), sizes)
    embeddings = rng.standard_normal((REGIONS, DIM), np.float32)
    embeddings += rng.standard_normal((SLIDES, DIM), np.float32)[slide_of]
    embeddings += rng.standard_normal((6, DIM), np.float32)[rng.integers(6, size=REGIONS)]
    return embeddings, slide_of


def plain_kmeans(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cluster one slide: all restarts at once, distances from the centers themselves."""
    mean = x.mean(0, dtype=np.float64)
    x = (x - mean).astype(np.float32)
    squared = (x**2).sum(1)

    def distances(centers: np.ndarray) -> np.ndarray:
        cross = (centers.reshape(-1, x.shape[1]) @ x.T).reshape(RESTARTS, M, -1)
        distance: np.ndarray = squared - 2 * cross + (centers**2).sum(2)[:, :, None]
        return distance

    distance = distances(x[np.stack([rng.choice(len(x), M, replace=False) for _ in range(RESTARTS)])])
    for _ in range(ITERATIONS):
        member = (distance.argmin(1)[:, None] == np.arange(M)[:, None]).astype(np.float32)
        sums = (member.reshape(RESTARTS * M, -1) @ x).reshape(RESTARTS, M, -1)
        distance = distances(sums / np.maximum(member.sum(2), 1)[:, :, None])
    best = distance.min(1).sum(1).argmin()
    centers = np.stack([x[distance[best].argmin(0) == i].mean(0) for i in range(M)])
    return (centers + mean).astype(np.float32), distance[best].argmin(0)


def scikit_learn(x: np.ndarray, _: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    model = KMeans(M, init="random", n_init=RESTARTS, max_iter=ITERATIONS, tol=0, random_state=0).fit(x)
    return model.cluster_centers_, model.labels_


def all_permutations(unit: np.ndarray, K: int = 1) -> np.ndarray:
    """Match by every permutation of every pair of slides at once, then a whole sort."""
    cosine = np.einsum("amd,bkd->abmk", unit, unit, optimize=True)
    each = np.stack([cosine[:, :, range(M), order].mean(2) for order in permutations(range(M))])
    similarity = each.max(0)
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :K]


def multiply(unit: np.ndarray) -> None:
    """Compute the cosines of all pairs of prototypes, block by block as the package, and nothing else."""
    rows = unit.reshape(-1, DIM)
    size = M * matching.BLOCK_SLIDES
    parallel_map(lambda start: rows[start : start + size] @ rows.T, range(0, len(rows), size))


def within(embeddings: np.ndarray, rows_of: list[np.ndarray], assignment: np.ndarray) -> float:
    """Return the mean squared distance of a region to the mean of its cluster."""
    total = 0.0
    for rows in rows_of:
        for i in range(M):
            members = embeddings[rows[assignment[rows] == i]].astype(np.float64)
            total += ((members - members.mean(0)) ** 2).sum() if len(members) else 0.0
    return total / sum(map(len, rows_of))


def clustering(embeddings: np.ndarray, rows_of: list[np.ndarray]) -> None:
    """Print the table of k-means per slide, and how tight the clusters are."""

    def ours() -> np.ndarray:
        rngs = [generator(1, "kmeans", 0, i) for i in range(len(rows_of))]
        return kmeans(embeddings, rows_of, M, restarts=RESTARTS, iterations=ITERATIONS, rngs=rngs)[1]

    def each(way: Callable[..., tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        assignment = np.full(len(embeddings), -1)
        with threadpool_limits(1):  # matrices this small are slower on more threads
            for i, rows in enumerate(rows_of):
                assignment[rows] = way(embeddings[rows], generator(1, "kmeans", 0, i))[1]
        return assignment

    ways = {
        "scikit-learn, slide by slide": lambda: each(scikit_learn),
        "plain, slide by slide": lambda: each(plain_kmeans),
        "ours": ours,
    }
    spread = ", ".join(f"{name} {within(embeddings, rows_of, way()):.3f}" for name, way in ways.items())
    seconds = best_seconds(ways, rounds=7)
    title = f"k-means of {len(rows_of):,} slides, {RESTARTS} restarts; mean squared distance: {spread}"
    show(title, seconds, sum(map(len, rows_of)) / 1e3, "thousand regions/s", "plain, slide by slide")


def neighbors(centers: np.ndarray) -> None:
    """Print the table of the most similar slide of each slide."""
    unit = centers / np.linalg.norm(centers, axis=2, keepdims=True)
    same = np.array_equal(matching.nearest_slides(centers, 1)[0], all_permutations(unit))
    seconds = best_seconds(
        {
            "all permutations, dense": lambda: all_permutations(unit),
            "ours": lambda: matching.nearest_slides(centers, 1),
            "floor: multiplying": lambda: multiply(unit),
        },
        rounds=7,
    )
    title = f"Nearest slide of {len(unit):,} slides; neighbors {'identical' if same else 'DIFFERENT'}"
    show(title, seconds, len(unit) ** 2 / 1e6, "million pairs/s", "all permutations, dense")


def by_prototypes() -> None:
    """Print the cost of a pair of slides by the number of prototypes."""
    print("Similarity of a pair of slides, one thread\n\n| prototypes | microseconds | way |\n|---:|---:|---|")
    for count in SUBSETS:
        unit = generator(1, "benchmark").standard_normal((count, FEW_SLIDES, DIM), np.float32)
        with threadpool_limits(1):
            spent = best_seconds({"it": partial(matching._similarities, unit, unit)}, rounds=3)["it"]
        way = "subsets" if count <= matching.SUBSETS_UP_TO else "Hungarian"
        print(f"| {count} | {spent / FEW_SLIDES**2 * 1e6:.2f} | {way} |")
    print(flush=True)


def many_slides(threads: int) -> float:
    """Measure the CPU seconds of TRIED_BLOCKS blocks of MANY_SLIDES, those in the middle, which cost the mean."""
    torch.set_num_threads(threads)
    centers = generator(1, "benchmark").standard_normal((MANY_SLIDES, M, DIM), np.float32)
    spent = []

    def some(work: Callable[[Any], None], items: Sequence[Any]) -> None:
        middle, started = len(items) // 2, time.process_time()
        parallel_map(work, items[middle : middle + TRIED_BLOCKS])
        spent.append(time.process_time() - started)

    with patch.object(matching, "parallel_map", some):
        matching.nearest_slides(centers, 1)
    return spent[0]


def globally(threads: int) -> float:
    """Time global clustering with one restart of one iteration: two passes over all distances."""
    torch.set_num_threads(threads)
    embeddings = cohort()[0]
    started = time.perf_counter()
    everywhere = np.zeros(len(embeddings), int)
    cluster_slides(embeddings, everywhere, ["all"], M=SLIDES * M, K=1, restarts=1, iterations=1, seed=1, epoch=0)
    return time.perf_counter() - started


def main() -> None:
    """Draw the cohort and print the tables."""
    embeddings, slide_of = cohort()
    ids = [f"slide-{i}" for i in range(SLIDES)]
    rows_of = [rows for i in range(SLIDES) if len(rows := np.flatnonzero(slide_of == i)) >= M]
    print(f"{SLIDES:,} slides, {REGIONS:,} regions, {DIM}-d, {M} prototypes, {torch.get_num_threads()} threads\n")
    clustering(embeddings, rows_of)

    def cluster() -> Prototypes:
        restarts, iterations = RESTARTS, ITERATIONS
        return cluster_slides(
            embeddings, slide_of, ids, M=M, K=1, restarts=restarts, iterations=iterations, seed=1, epoch=0
        )

    clustered = cluster()
    neighbors(clustered.centers[clustered.neighbors[:, 0] >= 0])
    whole = best_seconds({"it": cluster}, rounds=7)
    print(f"Clustering and matching in all: {whole['it']:.3f} s\n")
    by_prototypes()
    blocks = -(-MANY_SLIDES // matching.BLOCK_SLIDES)
    spent, cost = in_own_process(many_slides, torch.get_num_threads())
    seconds, held_gb = spent / TRIED_BLOCKS * blocks, M * DIM * 4 / 1e9
    print(
        f"Nearest slides of {MANY_SLIDES:,}: {seconds:.0f} CPU seconds from {TRIED_BLOCKS} of {blocks} blocks, peak "
        f"{cost.peak_mb:.0f} MB, the prototypes' {MANY_SLIDES * held_gb * 1e3:.0f} included. On paper {MORE_SLIDES:,} "
        f"take {seconds * (MORE_SLIDES / MANY_SLIDES) ** 2 / 3600:.0f} CPU hours, and their prototypes "
        f"{MORE_SLIDES * held_gb:.1f} GB"
    )
    spent, cost = in_own_process(globally, torch.get_num_threads())
    print(
        f"Global clustering into {SLIDES * M:,}: {spent / 2 * RESTARTS * (ITERATIONS + 1):.0f} s from one pass of "
        f"{spent / 2:.2f} s, peak {cost.peak_mb:.0f} MB"
    )
