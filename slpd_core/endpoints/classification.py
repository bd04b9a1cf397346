"""Classes without an order: accuracy, AUC and others."""

import math

import numpy as np

CLASS_SCORES = ("accuracy", "auc", "balanced_accuracy", "f1", "average_precision")


def scored_classes(labels: np.ndarray, C: int) -> list[int]:
    """List the classes whose one-vs-rest AUC is averaged: class 1 of two, else all C.

    Args:
        labels: Class indices of a test part, (n,).
        C: Number of classes.

    Returns:
        Those that some of the labels are, but not all; none if the AUC is undefined.
    """
    return [c for c in ([1] if C == 2 else range(C)) if 0 < (labels == c).sum() < len(labels)]


def score_classes(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score the predictions of one test part.

    Args:
        labels: Class indices, (n,).
        probabilities: (n, C).

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
