"""Few-shot: classifiers of the mean features of few training slides per class, on the test slides of each fold.

The training slides of a fold are drawn several times: the first n of each class in a random order, so that more slides
are those drawn before and some more. A draw depends on the folds and the seed, and is the same for all features. Of
the other training slides logistic regression knows the features, by which all are standardized: by two slides alone
every feature would be 1 or -1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from slpd_core import artifacts, config
from slpd_core.evaluation.evaluate import Fold
from slpd_core.evaluation.fold_features import mean_reader, read_fold_features
from slpd_core.evaluation.mean_classifiers import build_mean_predictor, fit_logreg
from slpd_core.runtime import generator, log, progress

VERSION = 1
SHOTS = (1, 2, 4, 8, 16)  # training slides per class
N_DRAWS = 10  # of the training slides of a fold


def draw_shots(labels: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Draw few slides of each class.

    Args:
        labels: Class indices, int64 (n,).
        rng: Draws their order.

    Returns:
        For each of SHOTS that no class has too few slides for, the rows of so many slides of each class; those of
        fewer are among them.
    """
    order = rng.permutation(len(labels))
    rank = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    rarest = np.unique(labels, return_counts=True)[1].min()
    return {shots: order[rank < shots] for shots in SHOTS if shots <= rarest}


def predict_simple_shot(train: np.ndarray, labels: np.ndarray, test: np.ndarray, C: int) -> np.ndarray:
    """Classify by the nearest class mean, centered and normalized (SimpleShot, Wang et al. 2019).

    Args:
        train: Mean features of the training slides, (n, D).
        labels: Their class indices, int64 (n,).
        test: Mean features of the test slides, (m, D).
        C: Number of classes.

    Returns:
        Probabilities, the softmax of minus the distances, float64 (m, C); 0 of a class without training slides.
    """
    center = train.mean(0)
    train, test = _normalize(train - center), _normalize(test - center)
    trained, probabilities = np.unique(labels), np.zeros((len(test), C))
    means = np.stack([train[labels == c].mean(0) for c in trained])
    probabilities[:, trained] = softmax(-np.linalg.norm(test[:, None] - means, axis=2), axis=1)
    return probabilities


def _normalize(x: np.ndarray) -> np.ndarray:
    """Vectors of length 1; one of length 0 as it is."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    normalized: np.ndarray = x / np.where(length > 0, length, 1)
    return normalized


def find_rarest(fold: Fold) -> tuple[str, int]:
    """Find the class of a fold's training or test slides that has fewest training slides.

    Args:
        fold: Its slides.

    Returns:
        The class, and its training slides.
    """
    counts = fold.train["label"].value_counts()
    classes = sorted({*fold.train["label"], *fold.test["label"]})
    return min(((label, int(counts.get(label, 0))) for label in classes), key=lambda pair: pair[1])


def evaluate_fold(
    fold: Fold, train: np.ndarray, test: np.ndarray, *, seed: int, logreg_c: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Score the classifiers of few training slides of a fold on its test slides.

    Args:
        fold: Its slides.
        train, test: Mean features of its training and test slides, (slides, D).
        seed: Of the draws.
        logreg_c: As in `fit_logreg`.

    Yields:
        Rows of the `few_shot` table; none where a class that is tested has no training slide.
    """
    endpoint, labels, truth = fold.endpoint, fold.endpoint.encode(fold.train), fold.endpoint.encode(fold.test)
    if not find_rarest(fold)[1]:
        return
    for repeat in range(N_DRAWS):
        for shots, rows in draw_shots(labels, generator(seed, "few_shot", fold.index, repeat)).items():
            fitted = fit_logreg(train[rows], labels[rows], logreg_c, unlabeled=train)
            predict = build_mean_predictor("logreg", endpoint, fitted)
            predictions = {
                "simple_shot": predict_simple_shot(train[rows], labels[rows], test, len(endpoint.classes)),
                "logreg": np.concatenate([*map(predict, test[:, None])]),
            }
            for classifier, predicted in predictions.items():
                scores = endpoint.score_arrays(truth, predicted)
                yield {"fold": fold.index, "repeat": repeat, "shots": shots, "classifier": classifier} | scores


def find_left_out(folds: Sequence[Fold]) -> list[str]:
    """Say which numbers of slides some folds have too few training slides for.

    Args:
        folds: Of a task.

    Returns:
        One sentence per number.
    """
    rarest, sentences = {fold.index: find_rarest(fold) for fold in folds}, []
    for shots in SHOTS:
        short = {index: (label, count) for index, (label, count) in rarest.items() if count < shots}
        if short:
            label, fewest = min(short.values(), key=lambda pair: pair[1])
            sentences.append(
                f"{shots} slides per class: left out in {len(short)} of {len(folds)} folds "
                f"({', '.join(map(str, short))}), where {label} has as few as {fewest} training slides."
            )
    return sentences


def run(
    *,
    folds_path: Path,
    features: str,
    embed_paths: Sequence[Path],
    tokens_dir: Path,
    ledger_path: Path,
    out_path: Path,
    section: config.FewShotConfig,
    seed: int,
) -> None:
    """Write the `few_shot` table of a task and one kind of features.

    Args:
        folds_path, features, embed_paths, tokens_dir, ledger_path: As in `read_fold_features`.
        out_path: The table.
        section: Of the config.
        seed: Of the draws.
    """
    read = read_fold_features(folds_path, features, embed_paths, tokens_dir, ledger_path)
    means_of = {reader: mean_reader(reader) for reader in read.readers}
    rows: list[dict[str, Any]] = []
    for fold, reader in progress(zip(read.folds, read.readers, strict=True), len(read.folds), "few_shot", "folds"):
        train, test = (means_of[reader](part["slide_id"]) for part in (fold.train, fold.test))
        rows += evaluate_fold(fold, train, test, seed=seed, **section.model_dump())
    remarks = find_left_out(read.folds)
    for remark in remarks:
        log.warning("%s", remark)
    meta = artifacts.provenance("few_shot", VERSION, section.model_dump(), *read.inputs, str(seed)) | read.meta
    columns = [*artifacts.TABLES["few_shot"], *read.endpoint.scores]
    table = pd.DataFrame(rows, columns=columns)
    artifacts.write_table(out_path, "few_shot", table, meta | {"remarks": "\n".join(remarks)})
    log.info("%d folds, %d draws each", len(read.folds), N_DRAWS)
