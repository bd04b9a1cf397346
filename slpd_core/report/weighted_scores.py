"""Scores of classes under many weightings of the same cases: those without each patient, all at once."""

import numpy as np

from slpd_core.endpoints.classification import CLASS_SCORES, scored_classes

MAX_WEIGHTS = 5_000_000  # numbers held at a time


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the AUC of the same cases under many weightings; ties count half.

    Args:
        scores: (n,).
        positive: bool (n,).
        weights: (B, n).

    Returns:
        (B,); nan if the positive or the negative cases weigh nothing.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive))
    below = np.cumsum(misses, axis=1) - misses
    pairs = hits.sum(1) * misses.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(pairs > 0, ((below + misses / 2) * hits).sum(1) / pairs, np.nan)


def weighted_average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the average precision of the same cases under many weightings.

    It is the mean of the precision at each threshold, weighted by the recall that the threshold adds.

    Args:
        scores, positive, weights: As in `weighted_auc`.

    Returns:
        (B,); nan if the positive cases weigh nothing.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive))
    true, retrieved = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(retrieved > 0, true / retrieved, 0.0)
        return np.where(true[:, -1] > 0, (precision * hits).sum(1) / true[:, -1], np.nan)


def weighted_hits(predicted: np.ndarray, labels: np.ndarray, C: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute accuracy, balanced accuracy and macro F1 of the same predictions under many weightings.

    Args:
        predicted, labels: Class indices, (n,).
        C: Number of classes.
        weights: (B, n).

    Returns:
        Score to (B,), over the same classes as in `classification.score_classes`.
    """
    hit = predicted == labels
    is_class, is_predicted = ((np.arange(C)[:, None] == classes).astype(float) for classes in (labels, predicted))
    n_class, n_predicted, n_right = (
        weights @ is_class.T,
        weights @ is_predicted.T,
        weights @ (is_class * hit).T,
    )  # (B, C)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = n_right.sum(1) / weights.sum(1)
        recall, f1 = n_right / n_class, 2 * n_right / (n_class + n_predicted)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": _mean_of_defined(recall),
        "f1": _mean_of_defined(f1),
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of the numbers that are not nan."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = np.where(defined, values, 0.0).sum(1) / defined.sum(1)
    return means


def weighted_scores(p: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each score of `classification.score_classes` of the same predictions under many weightings.

    Args:
        p: Probabilities, (n, C).
        labels: Class indices, (n,).
        weights: (B, n).

    Returns:
        Score to (B,); nan where it is undefined.
    """
    scored = scored_classes(labels, p.shape[1])
    aucs = np.array([weighted_auc(p[:, c], labels == c, weights) for c in scored]).reshape(-1, len(weights))
    precisions = np.array([weighted_average_precision(p[:, c], labels == c, weights) for c in scored])
    precisions = np.where(np.isnan(aucs), np.nan, precisions.reshape(-1, len(weights)))
    means = {"auc": _mean_of_defined(aucs.T), "average_precision": _mean_of_defined(precisions.T)}
    return weighted_hits(p.argmax(1), labels, p.shape[1], weights) | means


def scores_without_each(p: np.ndarray, labels: np.ndarray, patient: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each score of `classification.score_classes` without each patient in turn.

    Args:
        p, labels: As in `weighted_scores`.
        patient: Index of each case's patient, (n,).

    Returns:
        Score to (patients,); nan where it is undefined.
    """
    n_patients, step = patient.max() + 1, max(1, MAX_WEIGHTS // len(patient))
    blocks = [
        weighted_scores(p, labels, (np.arange(start, min(start + step, n_patients))[:, None] != patient).astype(float))
        for start in range(0, n_patients, step)
    ]
    return {score: np.concatenate([block[score] for block in blocks]) for score in CLASS_SCORES}
