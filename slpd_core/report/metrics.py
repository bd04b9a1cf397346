"""Metrics: accuracy, AUC and others of a fold, mean and standard deviation over folds."""

import math

import numpy as np
import pandas as pd

SCORES = ("accuracy", "auc", "balanced_accuracy", "f1", "average_precision")


def scored_classes(labels: np.ndarray, C: int) -> list[int]:
    """The classes whose one-vs-rest AUC counts: class 1 of two, else all C, where they stand beside others.

    labels: class indices of a test part (n,). None of them where the AUC is undefined.
    """
    return [c for c in ([1] if C == 2 else range(C)) if 0 < (labels == c).sum() < len(labels)]


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 of the arg-max, AUC and average precision of one test part.

    probabilities: (n, C). labels: class indices (n,). AUC and average precision: the mean one-vs-rest over
    `counted_classes`; nan where that is none. F1: the mean over the classes that are there or predicted.
    """
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    predicted = probabilities.argmax(1)
    present = np.unique(labels)
    counted = scored_classes(labels, probabilities.shape[1])
    aucs = [roc_auc_score(labels == c, probabilities[:, c]) for c in counted]
    precisions = [average_precision_score(labels == c, probabilities[:, c]) for c in counted]
    recalls = [(predicted[labels == c] == c).mean() for c in present]
    return {
        "accuracy": float((predicted == labels).mean()) if len(labels) else math.nan,
        "auc": float(np.mean(aucs)) if aucs else math.nan,
        "balanced_accuracy": float(np.mean(recalls)) if recalls else math.nan,
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)) if len(labels) else math.nan,
        "average_precision": float(np.mean(precisions)) if precisions else math.nan,
    }


def probability_matrix(predictions: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities (n, C) and the class indices (n,) of an `evaluate` table."""
    index = {label: number for number, label in enumerate(classes)}
    probabilities = predictions[[f"p_{label}" for label in classes]].to_numpy(np.float64)
    return probabilities, predictions["label"].map(index).to_numpy(np.int64)


def pool_predictions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """All test slides together, a row per slide; of a slide that several folds test, the mean of its probabilities.

    predictions: the `evaluate` tables of all folds. Returns patient_id, label and p_{label} by slide_id.
    """
    return _mean_probabilities(predictions, ["slide_id"], {"patient_id": "first", "label": "first"}, classes)


def patient_predictions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return predictions by patient: the mean probabilities of the test slides of each patient and fold.

    Args:
        predictions: the `evaluate` tables of all folds.
        classes: labels in the order of the probabilities.

    Returns:
        A table as `predictions`, a row per fold and patient. Slides of one patient with different labels stay apart.
    """
    return _mean_probabilities(predictions, ["fold", "patient_id", "label"], {}, classes).reset_index()


def _mean_probabilities(predictions: pd.DataFrame, keys: list[str], kept: dict, classes: list[str]) -> pd.DataFrame:
    """The mean of the probabilities by keys, beside the columns that are kept."""
    return predictions.groupby(keys).agg(kept | dict.fromkeys([f"p_{label}" for label in classes], "mean"))


def fold_scores(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row a fold: fold, n and the scores of its test part."""
    rows = []
    for fold, part in predictions.groupby("fold"):
        rows.append({"fold": fold, "n": len(part)} | scores(*probability_matrix(part, classes)))
    return pd.DataFrame(rows, columns=["fold", "n", *SCORES])


def summary(per_fold: pd.DataFrame) -> dict[str, float]:
    """Mean and standard deviation (n − 1) of each score over the folds where it is defined, and the number of folds."""
    found: dict[str, float] = {"folds": len(per_fold)}
    for name in SCORES:
        found |= {f"{name}_mean": float(per_fold[name].mean()), f"{name}_sd": float(per_fold[name].std(ddof=1))}
    return found
