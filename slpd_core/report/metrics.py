"""Metrics: accuracy, AUC and others of a fold; their mean and standard deviation over folds."""

import numpy as np
import pandas as pd

from slpd_core.endpoints.classification import CLASS_SCORES, score_classes


def probability_matrix(predictions: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Extract the probabilities and labels of an `evaluate` table.

    Args:
        predictions: The table.
        classes: Labels in the order of the probabilities.

    Returns:
        Probabilities, float64 (n, C), and class indices, int64 (n,).
    """
    index = {label: c for c, label in enumerate(classes)}
    probabilities = predictions[[f"p_{label}" for label in classes]].to_numpy(np.float64)
    return probabilities, predictions["label"].map(index).to_numpy(np.int64)


def pool_predictions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Pool the test slides of all folds; a slide that several folds test has its mean probabilities.

    Args:
        predictions: The `evaluate` tables of all folds.
        classes: Labels in the order of the probabilities.

    Returns:
        patient_id, label and p_{label} by slide_id.
    """
    return _mean_probabilities(predictions, ["slide_id"], {"patient_id": "first", "label": "first"}, classes)


def average_by_patient(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Average the probabilities of the test slides of each patient and fold.

    Args:
        predictions: The `evaluate` tables of all folds.
        classes: Labels in the order of the probabilities.

    Returns:
        Columns fold, patient_id, label and p_{label}; slides of one patient with different labels stay apart.
    """
    return _mean_probabilities(predictions, ["fold", "patient_id", "label"], {}, classes).reset_index()


def _mean_probabilities(
    predictions: pd.DataFrame, keys: list[str], kept: dict[str, str], classes: list[str]
) -> pd.DataFrame:
    """Mean probabilities by keys, and the kept columns."""
    return predictions.groupby(keys).agg(kept | dict.fromkeys([f"p_{label}" for label in classes], "mean"))


def score_folds(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Score the test part of each fold.

    Args:
        predictions: The `evaluate` tables of all folds.
        classes: Labels in the order of the probabilities.

    Returns:
        A row per fold: fold, n and CLASS_SCORES.
    """
    rows = []
    for fold, part in predictions.groupby("fold"):
        probabilities, labels = probability_matrix(part, classes)
        rows.append({"fold": fold, "n": len(part)} | score_classes(labels, probabilities))
    return pd.DataFrame(rows, columns=["fold", "n", *CLASS_SCORES])


def summarize_folds(per_fold: pd.DataFrame) -> dict[str, float]:
    """Summarize the scores over the folds where they are defined.

    Args:
        per_fold: As `score_folds` returns it.

    Returns:
        folds, their number; {score}_mean and {score}_sd (n - 1).
    """
    summary: dict[str, float] = {"folds": len(per_fold)}
    for name in CLASS_SCORES:
        summary |= {f"{name}_mean": float(per_fold[name].mean()), f"{name}_sd": float(per_fold[name].std(ddof=1))}
    return summary
