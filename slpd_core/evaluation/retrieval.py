"""Retrieval: the training slides that are most similar to each test slide of a fold, and whether they share its class.

Slides are similar by the mean cosine of matched prototypes (paper, eq. 3), or with one prototype by the cosine of their
mean features. A slide never finds one of its own patient.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation.evaluate import Fold
from slpd_core.evaluation.features import ReadSlide
from slpd_core.evaluation.fold_features import mean_reader, read_fold_features
from slpd_core.prototypes.clustering import cluster_each_slide, group_rows
from slpd_core.prototypes.ranking import search_slides
from slpd_core.runtime import log, progress

VERSION = 1
DEPTH = 5  # slides found
VOTERS = (1, 3, 5)  # of the slides found


def compute_prototypes(
    read: ReadSlide, slide_ids: Sequence[str], M: int, *, restarts: int = 5, iterations: int = 10, seed: int, epoch: int
) -> np.ndarray:
    """Cluster the regions of each slide into M prototypes; a slide of fewer regions repeats them.

    Args:
        read: Returns the features of a slide, (L, D).
        slide_ids: Slides, N of them.
        M: Prototypes of a slide.
        restarts, iterations, seed, epoch: As in `cluster_each_slide`.

    Returns:
        float32 (N, M, D).
    """
    regions = [read(slide) for slide in slide_ids]
    features = np.concatenate(regions)
    rows_of = group_rows(np.repeat(np.arange(len(regions)), [*map(len, regions)]), len(regions))
    prototypes = np.stack([features[np.resize(rows, M)] for rows in rows_of])
    clustered, centers, _ = cluster_each_slide(
        features, rows_of, slide_ids, M, restarts=restarts, iterations=iterations, seed=seed, epoch=epoch
    )
    prototypes[clustered] = centers
    return prototypes


def majority_vote(labels: Sequence[str]) -> str:
    """Return the most frequent label; of equally frequent ones that of the nearest slide.

    Args:
        labels: Of the slides found, nearest first.

    Returns:
        The label; "" without any.
    """
    counts = Counter(labels)  # in the order of the first of each
    return max(counts, key=counts.__getitem__, default="")


def average_precision_at(found: Sequence[bool], n_relevant: int) -> float:
    """Compute the average precision of the slides found; 1 where all that can be relevant are.

    Args:
        found: Whether each is relevant, nearest first.
        n_relevant: Relevant slides that could be found.

    Returns:
        The sum of the precision at each relevant one, over the number of those that could be among so many; nan where
        none is relevant.
    """
    best = min(len(found), n_relevant)
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float(precision[np.asarray(found, bool)].sum() / best) if best else float("nan")


def retrieve_fold(fold: Fold, queries: np.ndarray, prototypes: np.ndarray) -> pd.DataFrame:
    """Find training slides of a fold for each test slide, and score them.

    Args:
        fold: Its slides.
        queries: Prototypes of the test slides, (Q, M, D).
        prototypes: Those of the training slides, (N, M, D).

    Returns:
        Rows of the `retrieval` table, one per test slide, without n_prototypes.
    """
    patients = pd.concat([fold.test["patient_id"], fold.train["patient_id"]])
    groups, labels, Q = pd.factorize(patients)[0], fold.train["label"].to_numpy(), len(fold.test)
    similar = search_slides(queries, prototypes, DEPTH, query_groups=groups[:Q], groups=groups[Q:])
    lines = []
    for i, label in enumerate(fold.test["label"]):
        found = labels[similar.indices[i][similar.indices[i] >= 0]].tolist()
        n_relevant = int(((labels == label) & (groups[Q:] != groups[i])).sum())
        relevant = [other == label for other in found] + [False] * (DEPTH - len(found))
        votes = {f"mv_{k}": float(majority_vote(found[:k]) == label) for k in VOTERS}
        lines.append({"ap_5": average_precision_at(relevant, n_relevant)} | votes)
    scores = pd.DataFrame(lines, columns=["ap_5", *(f"mv_{k}" for k in VOTERS)], dtype=np.float64)
    return pd.concat([fold.test[["fold", "slide_id", "patient_id", "label"]].reset_index(drop=True), scores], axis=1)


def run(
    *,
    folds_path: Path,
    features: str,
    embed_paths: Sequence[Path],
    tokens_dir: Path,
    ledger_path: Path,
    out_path: Path,
    section: config.SearchIndexConfig,
    seed: int,
) -> None:
    """Write the `retrieval` table of a task and one kind of features.

    Args:
        folds_path, features, embed_paths, tokens_dir, ledger_path: As in `read_fold_features`.
        out_path: The table.
        section: Settings of the run, by which `snakemake search` clusters its regions as well.
        seed: Of the run.
    """
    read = read_fold_features(folds_path, features, embed_paths, tokens_dir, ledger_path)
    slide_ids = sorted({slide for fold in read.folds for part in (fold.train, fold.test) for slide in part["slide_id"]})
    row_of = {slide: row for row, slide in enumerate(slide_ids)}
    # Features of patches are tens of thousands per slide, and stand for no kind of tissue one by one.
    numbers = sorted({1, section.n_prototypes}) if read.level == "region" else [1]

    @lru_cache(maxsize=1)
    def represent(reader: ReadSlide) -> dict[int, np.ndarray]:
        options = {"restarts": section.kmeans_restarts, "iterations": section.kmeans_iterations}
        options |= {"seed": seed, "epoch": section.epochs}
        of = {M: compute_prototypes(reader, slide_ids, M, **options) for M in numbers if M > 1}
        return {1: mean_reader(reader)(slide_ids)[:, None].astype(np.float32)} | of

    tables = []
    for fold, reader in progress(zip(read.folds, read.readers, strict=True), len(read.folds), "retrieval", "folds"):
        test, train = ([row_of[slide] for slide in part["slide_id"]] for part in (fold.test, fold.train))
        for M, prototypes in represent(reader).items():
            tables.append(retrieve_fold(fold, prototypes[test], prototypes[train]).assign(n_prototypes=M))
    meta = artifacts.provenance("retrieval", VERSION, section.model_dump(), *read.inputs, str(seed)) | read.meta
    table = pd.concat(tables, ignore_index=True)[[*artifacts.TABLES["retrieval"]]]
    artifacts.write_table(out_path, "retrieval", table, meta | {"remarks": ""})
    log.info("%d queries, %s prototypes", len(table) // len(numbers), " and ".join(map(str, numbers)))
