"""Uncertainty of a mean over folds: the influence of each patient, the standard error and the interval."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slpd_core.endpoints.classification import CLASS_SCORES, scored_classes
from slpd_core.report import metrics

LEVEL = 0.95
# All folds train on the same patients. That adds a variance to their mean that no test patient shows, and of which no
# unbiased estimate exists (Bengio and Grandvalet, JMLR 2004). It is taken as a fraction of the variance over test
# patients, from simulations (benchmarks/intervals.py): differences needed 0.1 to 0.5 for linear classifiers and small
# networks, 0.6 to 0.7 for nearest neighbors. Scores that need no training add 0.
TRAINING, KNN_TRAINING = 0.3, 0.65
MAX_WEIGHTS = 5_000_000  # numbers held at a time


@dataclass(frozen=True)
class Influence:
    """A score in each fold, and the influence of each patient on it.

    Attributes:
        values: The score of each fold, (F,).
        parts: How far each patient moves the score of each fold, (F, patients); nan if the fold does not test it.
        n_effective: Patients that stand for the sample size of a score without any spread.
        training: Variance that training adds, as a fraction of the variance if each patient is tested once.
    """

    values: pd.Series
    parts: pd.DataFrame
    n_effective: int
    training: float

    def minus(self, other: "Influence") -> "Influence":
        """Subtract another score, paired by fold and patient.

        Args:
            other: The other score.

        Returns:
            The difference, over the folds where both are defined.
        """
        values = (self.values - other.values).dropna()
        parts = self.parts.sub(other.parts, fill_value=0.0)
        n_effective, training = min(self.n_effective, other.n_effective), (self.training + other.training) / 2
        return Influence(values, parts.reindex(values.index), n_effective, training)

    def standard_error(self) -> float:
        """Estimate the standard error of the mean over folds by the jackknife over patients.

        For one partition with two labels, the AUC's variance is that of DeLong et al. (1988), fold by fold. If folds
        test patients again, the variance is halfway between two: that of each patient's mean part, and that of parts
        that move together, since tests of a patient differ by training, which all share. `training` is added for as
        many tests as the median tested patient has.

        Returns:
            The standard error, over the folds where the score is defined; nan without patients.
        """
        values = self.values.to_numpy(float)
        parts = self.parts.to_numpy(float)[~np.isnan(values)] / max(np.sum(~np.isnan(values)), 1)
        tests = (~np.isnan(parts)).sum(0)
        if not tests.any():
            return math.nan
        squares = np.nansum(parts**2, axis=0)
        averaged, together = (np.nansum(parts, axis=0) ** 2).sum(), (tests * squares).sum()
        once = np.median(tests[tests > 0]) * squares.sum()
        return math.sqrt((averaged + together) / 2 + self.training * once)

    def quantile(self, probability: float) -> float:
        """Return a quantile of Student's t with the standard error's degrees of freedom.

        Args:
            probability: 0 to 1.

        Returns:
            The quantile.
        """
        from scipy import special

        return float(special.stdtrit(max(self.parts.shape[1] - 1, 1), probability))

    def interval(self) -> tuple[float, float]:
        """Compute the interval (LEVEL) of the mean of a score between 0 and 1, after Wilson (1927).

        A score that is 1 in all folds, or on which no patient has an influence, has the interval of n_effective
        patients.

        Returns:
            Its ends; nan if the mean or its standard error is.
        """
        mean, error = float(self.values.mean()), self.standard_error()
        if math.isnan(mean) or math.isnan(error):
            return math.nan, math.nan
        spread = mean * (1 - mean)
        n = spread / error**2 if error > 0 and spread > 0 else self.n_effective
        t = self.quantile((1 + LEVEL) / 2)
        center = (mean + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t / (1 + t**2 / n) * math.sqrt(spread / n + t**2 / (4 * n**2))
        return max(center - half, 0.0), min(center + half, 1.0)


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


def _weighted_scores(p: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each score of `classification.score_classes` under the weightings (B, n): (B,), nan where it is undefined."""
    scored = scored_classes(labels, p.shape[1])
    aucs = np.array([weighted_auc(p[:, c], labels == c, weights) for c in scored]).reshape(-1, len(weights))
    precisions = np.array([weighted_average_precision(p[:, c], labels == c, weights) for c in scored])
    precisions = np.where(np.isnan(aucs), np.nan, precisions.reshape(-1, len(weights)))
    means = {"auc": _mean_of_defined(aucs.T), "average_precision": _mean_of_defined(precisions.T)}
    return weighted_hits(p.argmax(1), labels, p.shape[1], weights) | means


def _scores_without_each(p: np.ndarray, labels: np.ndarray, patient: np.ndarray) -> dict[str, np.ndarray]:
    """Each score without each patient, (patients,), nan if undefined; patient: index of each case's patient."""
    n_patients, step = patient.max() + 1, max(1, MAX_WEIGHTS // len(patient))
    blocks = [
        _weighted_scores(p, labels, (np.arange(start, min(start + step, n_patients))[:, None] != patient).astype(float))
        for start in range(0, n_patients, step)
    ]
    return {score: np.concatenate([block[score] for block in blocks]) for score in CLASS_SCORES}


def compute_influences(
    predictions: pd.DataFrame, classes: list[str], training: float = TRAINING
) -> dict[str, Influence]:
    """Compute each score in each fold, and each patient's influence on it by leaving the patient out.

    A fold whose score is undefined without a patient (the only one of a label) leaves the mean with the patient.

    Args:
        predictions: The `evaluate` tables of all folds; a row per fold and slide, or fold and patient.
        classes: Labels in the order of the probabilities.
        training: Variance that training adds; KNN_TRAINING for nearest neighbors.

    Returns:
        Score to its influence, for each of CLASS_SCORES.
    """
    p, labels = metrics.probability_matrix(predictions, classes)
    patient, patients = pd.factorize(predictions["patient_id"])
    fold, folds = pd.factorize(predictions["fold"], sort=True)
    has_label = np.zeros((len(patients), len(classes)), bool)  # a patient may have slides of several labels
    has_label[patient, labels] = True
    values = {score: np.full(len(folds), np.nan) for score in CLASS_SCORES}
    parts = {score: np.full((len(folds), len(patients)), np.nan) for score in CLASS_SCORES}
    for i in range(len(folds)):
        tested = fold == i
        ids, local = np.unique(patient[tested], return_inverse=True)
        whole = _weighted_scores(p[tested], labels[tested], np.ones((1, tested.sum())))
        without = _scores_without_each(p[tested], labels[tested], local)
        local_label = np.zeros((len(ids), len(classes)), bool)
        local_label[local, labels[tested]] = True
        n_label = (local_label * local_label.sum(0)).max(1)  # for a patient of several labels: the commonest
        for score in CLASS_SCORES:
            values[score][i] = whole[score][0]
            n = np.full(len(ids), len(ids)) if score == "accuracy" else n_label
            parts[score][i, ids] = (whole[score] - without[score]) * np.sqrt(np.where(n > 1, (n - 1) / n, 1.0))
            parts[score][i, ids[np.isnan(without[score])]] = np.inf  # see _replace_infinite
    n_rarest = int(has_label[:, np.unique(labels)].sum(0).min()) if len(labels) else 0
    return {
        score: Influence(
            pd.Series(values[score], folds),
            pd.DataFrame(_replace_infinite(parts[score], values[score]), folds, patients),
            len(patients) if score == "accuracy" else n_rarest,
            training,
        )
        for score in CLASS_SCORES
    }


def _replace_infinite(parts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace infinite parts, (F, patients), by the change of the mean without their fold; nan if there is one fold."""
    defined = values[~np.isnan(values)]
    n = len(defined)
    lost = (values - defined.mean()) * n / (n - 1) if n > 1 else np.full(len(values), np.nan)
    return np.where(np.isinf(parts), lost[:, None], parts)
