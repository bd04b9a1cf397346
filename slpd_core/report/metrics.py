"""Metrics: accuracy, AUC and others of a fold; their mean and standard deviation over folds."""

import math

import numpy as np
import pandas as pd

SCORES = ("accuracy", "auc", "balanced_accuracy", "f1", "average_precision")


def scored_classes(labels: np.ndarray, C: int) -> list[int]:
    """List the classes whose one-vs-rest AUC is averaged: class 1 of two, else all C.

    Args:
        labels: Class indices of a test part, (n,).
        C: Number of classes.

    Returns:
        Those that some of the labels are, but not all; none if the AUC is undefined.
    """
    return [c for c in ([1] if C == 2 else range(C)) if 0 < (labels == c).sum() < len(labels)]


def score_predictions(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score the predictions of one test part.

    Args:
        probabilities: (n, C).
        labels: Class indices, (n,).

    Returns:
        Accuracy, balanced accuracy (over the classes among the labels) and macro F1 (over those or predicted) of the
        arg-max; AUC and average precision, the mean one-vs-rest over `scored_classes`, nan without any.
    """
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    predicted = probabilities.argmax(1)
    present = np.unique(labels)
    scored = scored_classes(labels, probabilities.shape[1])
    aucs = [roc_auc_score(labels == c, probabilities[:, c]) for c in scored]
    precisions = [average_precision_score(labels == c, probabilities[:, c]) for c in scored]
    recalls = [(predicted[labels == c] == c).mean() for c in present]
    return {
        "accuracy": float((predicted == labels).mean()) if len(labels) else math.nan,
        "auc": float(np.mean(aucs)) if aucs else math.nan,
        "balanced_accuracy": float(np.mean(recalls)) if recalls else math.nan,
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)) if len(labels) else math.nan,
        "average_precision": float(np.mean(precisions)) if precisions else math.nan,
    }


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
        A row per fold: fold, n and SCORES.
    """
    rows = []
    for fold, part in predictions.groupby("fold"):
        rows.append({"fold": fold, "n": len(part)} | score_predictions(*probability_matrix(part, classes)))
    return pd.DataFrame(rows, columns=["fold", "n", *SCORES])


def summarize_folds(per_fold: pd.DataFrame) -> dict[str, float]:
    """Summarize the scores over the folds where they are defined.

    Args:
        per_fold: As `score_folds` returns it.

    Returns:
        folds, their number; {score}_mean and {score}_sd (n - 1).
    """
    summary: dict[str, float] = {"folds": len(per_fold)}
    for name in SCORES:
        summary |= {f"{name}_mean": float(per_fold[name].mean()), f"{name}_sd": float(per_fold[name].std(ddof=1))}
    return summary
