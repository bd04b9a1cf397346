"""Curves of scores: ROC of each fold, their mean and deviation, calibration."""

from collections.abc import Sequence

import numpy as np

from slpd_core.endpoints.classification import scored_classes

FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)
MAX_CALIBRATION_BINS = 10
MIN_SLIDES_PER_BIN = 5


def roc_curve(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute the ROC curve, ties drawn as slopes.

    Args:
        truth: bool (n,), with both values.
        score: (n,), higher if more likely true.

    Returns:
        True positive rates at FALSE_POSITIVE_RATES.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    false, true = (np.append(0, np.cumsum(kind[order])[last_of_tie] / kind.sum()) for kind in (~truth, truth))
    curve: np.ndarray = np.interp(FALSE_POSITIVE_RATES, false, true)
    curve[0] = 0.0
    return curve


def fold_roc_curves(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Compute the ROC curve of each fold: the mean one-vs-rest over `classification.scored_classes`.

    Args:
        folds: Probabilities (n, C) and class indices (n,) of each test part.

    Returns:
        (folds, points); nan for a fold without such classes.
    """
    curves = []
    for probabilities, labels in folds:
        scored = scored_classes(labels, probabilities.shape[1])
        class_curves = [roc_curve(labels == c, probabilities[:, c]) for c in scored]
        curves.append(np.mean(class_curves, axis=0) if class_curves else np.full(len(FALSE_POSITIVE_RATES), np.nan))
    return np.array(curves)


def deviation_band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the band of one standard deviation (n - 1) about the mean curve.

    Args:
        curves: (folds, points).

    Returns:
        Lower and upper end, (points,), within 0 to 1.
    """
    mean, deviation = curves.mean(0), curves.std(0, ddof=1)
    return (mean - deviation).clip(0, 1), (mean + deviation).clip(0, 1)


def calibration_curve(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute how often predictions are right by their probability, in bins of equally many slides.

    Args:
        probabilities: (n, C); the prediction is the arg-max.
        labels: Class indices, (n,).

    Returns:
        Of each bin, (bins,): mean probability of the predicted class, ascending; fraction that is right; its standard
        error.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    n_bins = max(1, min(MAX_CALIBRATION_BINS, len(labels) // MIN_SLIDES_PER_BIN))
    bins = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    means = np.array([(confidence[i].mean(), right[i].mean(), len(i)) for i in bins if len(i)]).reshape(-1, 3)
    return means[:, 0], means[:, 1], np.sqrt(means[:, 1] * (1 - means[:, 1]) / means[:, 2])
