"""Slide search: the most similar of many slides, against matching every pair, with the same order to the bit.

Prototypes are random (the hardest case: no slide stands out), or of few kinds with an offset per slide. CPU seconds.
"""

import time
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.timing import in_own_process
from slpd_core.prototypes import ranking
from slpd_core.prototypes.matching import match_pair
from slpd_core.runtime import generator

SLIDES, DIM, KINDS = 100_000, 192, 20
PROTOTYPES = (4, 16)  # M
QUERIES, K, ROUNDS = 20, 5, 3
WAYS = ("every pair", "one query", "together")


def draw(M: int, kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw prototypes of slides, float32 (SLIDES, M, DIM), and of queries, each like one of the slides."""
    rng = generator(1, "benchmark")
    prototypes = rng.standard_normal((SLIDES, M, DIM), np.float32)
    if kinds:
        prototypes += rng.standard_normal((SLIDES, 1, DIM), np.float32)
        centers = 2 * rng.standard_normal((kinds, DIM), np.float32)
        for m in range(M):
            prototypes[:, m] += centers[rng.integers(kinds, size=SLIDES)]
    alike = prototypes[rng.choice(SLIDES, QUERIES, replace=False)]
    return prototypes, alike + rng.standard_normal(alike.shape, np.float32)


def match_every_pair(query: np.ndarray, prototypes: np.ndarray) -> list[int]:
    """Return the K most similar slides of a query by matching it with every slide."""
    similarity = [match_pair(query, slide)[0] for slide in prototypes]
    nearest: list[int] = np.argsort(-np.array(similarity), kind="stable")[:K].tolist()
    return nearest


def run_search(way: str, M: int, kinds: int, rounds: int) -> tuple[float, float, list[int]]:
    """Search in one of the ways on one thread.

    Returns:
        CPU seconds per query, the least of the rounds; pairs matched per query; the slides of the first query.
    """
    torch.set_num_threads(1)
    prototypes, queries = draw(M, kinds)
    queries = queries if way == "together" else queries[:1]
    matched, least = 0, float("inf")

    def match(query: np.ndarray, slide: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        nonlocal matched
        matched += 1
        return match_pair(query, slide)

    if way == "every pair":
        started = time.process_time()
        slides = match_every_pair(queries[0], prototypes)
        return time.process_time() - started, SLIDES, slides
    with patch.object(ranking, "match_pair", match):
        for _ in range(rounds):
            started = time.process_time()
            similar = ranking.search_slides(queries, prototypes, K)
            least = min(least, time.process_time() - started)
    return least / len(queries), matched / rounds / len(queries), similar.indices[0].tolist()


def main() -> None:
    """Print the table."""
    print(f"The {K} most similar of {SLIDES:,} slides, {DIM}-d, one thread; together: {QUERIES} queries at once\n")
    print("| prototypes | M | way | CPU s per query | pairs matched per query | peak MB | order |")
    print("|---|---:|---|---:|---:|---:|---|")
    for kinds in (0, KINDS):
        for M in PROTOTYPES:
            expected: list[int] = []
            for way in WAYS:
                (spent, matched, slides), cost = in_own_process(run_search, way, M, kinds, ROUNDS)
                expected = expected or slides
                order = "identical" if slides == expected else "DIFFERENT"
                name = f"{kinds} kinds" if kinds else "random"
                print(
                    f"| {name} | {M} | {way} | {spent:.3f} | {matched:,.1f} | {cost.peak_mb:.0f} | {order} |",
                    flush=True,
                )
