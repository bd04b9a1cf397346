"""Curves of scores: ROC and time-dependent AUC of each fold, calibration, net benefit."""

from collections.abc import Sequence

import numpy as np

from slpd_core.endpoints.classification import scored_classes
from slpd_core.endpoints.concordance import cumulative_dynamic_auc
from slpd_core.endpoints.strata import quantile_bins
from slpd_core.endpoints.survival import validated_survival

FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)
THRESHOLDS = np.arange(1, 100) / 100  # of the probability, at which a decision is taken
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
        curves: (folds, points); nan where a fold is undefined.

    Returns:
        Lower and upper end, (points,), within 0 to 1, over the folds where they are defined; nan for fewer than two.
    """
    several = (~np.isnan(curves)).sum(0) > 1
    mean, deviation = np.full((2, curves.shape[1]), np.nan)
    mean[several], deviation[several] = np.nanmean(curves[:, several], 0), np.nanstd(curves[:, several], 0, ddof=1)
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


def calibrate_regression(targets: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the mean target by the prediction, in bins of the predictions' quantiles; equal ones share a bin.

    Args:
        targets, predictions: (n,).

    Returns:
        Of each bin, (bins,): mean prediction, ascending; mean target; its standard error, nan for a single case.
    """
    bins = quantile_bins(predictions, n_bins=MAX_CALIBRATION_BINS, min_count=MIN_SLIDES_PER_BIN)
    members = [bins == i for i in np.unique(bins)]
    means = np.array([(predictions[i].mean(), targets[i].mean()) for i in members]).reshape(-1, 2)
    errors = [targets[i].std(ddof=1) / np.sqrt(i.sum()) if i.sum() > 1 else np.nan for i in members]
    return means[:, 0], means[:, 1], np.array(errors)


def event_time_grid(time: np.ndarray, event: np.ndarray, *, n_times: int = 25) -> np.ndarray:
    """Choose evenly spaced times for a curve of the time-dependent AUC: between the 10th and 90th percentile of events.

    Args:
        time, event: Of all cases of the cohort, so that folds share the times; as in `validated_survival`.
        n_times: Number of times.

    Returns:
        Ascending, (n_times,); a single one if all events are at one time, none without an event.
    """
    time, event = validated_survival(time, event)
    if not event.any():
        return np.empty(0)
    first, last = np.quantile(time[event], (0.1, 0.9))
    return np.unique(np.linspace(first, last, n_times))


def fold_dynamic_aucs(
    folds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    times: np.ndarray,
    *,
    censoring: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the time-dependent AUC of each fold.

    Args:
        folds: Times, events and risks (n,) of each test part.
        times: Where it is computed, (T,).
        censoring: As in `cumulative_dynamic_auc`.

    Returns:
        (folds, T); nan where undefined.
    """
    aucs = [cumulative_dynamic_auc(*fold, times, censoring=censoring) for fold in folds]
    return np.array(aucs).reshape(len(folds), len(times))


def net_benefit(probability: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Compute the net benefit of treating cases above a threshold (Vickers and Elkin, Med Decis Making 2006).

    It is the fraction of true positives less that of false ones times the odds of the threshold.

    Args:
        probability: Of the class that is treated, (n,).
        truth: Whether each case is of that class, bool (n,).
        thresholds: Probabilities below 1 from which on a case is treated, (T,).

    Returns:
        (T,): 0 for treating nobody; all ones as probability are treating everyone; nan for no case.
    """
    if not len(truth):
        return np.full(len(thresholds), np.nan)
    treated = probability >= thresholds[:, None]
    true, false = (treated & truth).mean(1), (treated & ~truth).mean(1)
    benefit: np.ndarray = true - false * thresholds / (1 - thresholds)
    return benefit
