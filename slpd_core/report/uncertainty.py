"""What a mean over folds is worth: the part of each patient in it, its standard error and its interval."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slpd_core.report import metrics

LEVEL = 0.95
# All folds train on the same patients, which adds to the variance of their mean what no test patient shows. No unbiased
# estimate of it exists (Bengio and Grandvalet, JMLR 2004): these shares of the variance on test patients are what
# simulations asked for (benchmarks/intervals.py): differences needed 0.1 to 0.5 for linear classifiers and small
# networks, 0.6 to 0.7 for nearest neighbors. Scores that need no training add 0.
TRAINING, KNN_TRAINING = 0.3, 0.65
MAX_WEIGHTS = 5_000_000  # numbers held at a time


@dataclass(frozen=True)
class Influence:
    """A score in each fold, and the part of each patient in it.

    values: per fold, (F,). parts: per fold and patient, (F, patients), how far the patient moves the fold's score; nan
    where the fold does not test the patient. n_effective: as many patients as a score without any spread may rest on.
    training: what training adds, a share of the variance that tests each patient once.
    """

    values: pd.Series
    parts: pd.DataFrame
    n_effective: int
    training: float

    def minus(self, other: "Influence") -> "Influence":
        """Return the paired difference to another, over the folds where both are defined."""
        values = (self.values - other.values).dropna()
        parts = self.parts.sub(other.parts, fill_value=0.0)
        n_effective, training = min(self.n_effective, other.n_effective), (self.training + other.training) / 2
        return Influence(values, parts.reindex(values.index), n_effective, training)

    def standard_error(self) -> float:
        """Return the standard error of the mean over the folds where the score is defined; nan without patients.

        The jackknife over patients: of one partition with two labels, the AUC's variance is that of DeLong et al.
        (1988) fold by fold. Where folds test patients again, it is halfway between two: that of each patient's mean
        part, and that of parts that move as one, since tests of a patient differ by training, which all share.
        `training` is added for as many tests as the median patient has: patients that hold-outs never test do not show.
        """
        values = self.values.to_numpy(float)
        parts = self.parts.to_numpy(float)[~np.isnan(values)] / max(np.sum(~np.isnan(values)), 1)
        tests = (~np.isnan(parts)).sum(0)
        if not tests.any():
            return math.nan
        squares = np.nansum(parts**2, axis=0)
        apart, alike = (np.nansum(parts, axis=0) ** 2).sum(), (tests * squares).sum()
        once = np.median(tests[tests > 0]) * squares.sum()
        return math.sqrt((apart + alike) / 2 + self.training * once)

    def quantile(self, probability: float) -> float:
        """Return the quantile of Student's t that belongs to the standard error."""
        from scipy import special

        return float(special.stdtrit(max(self.parts.shape[1] - 1, 1), probability))

    def interval(self) -> tuple[float, float]:
        """Return the interval (LEVEL) of the mean of a score between 0 and 1, after Wilson (1927).

        Where all predictions are right, or nothing depends on a patient, it is that of n_effective patients.
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
    """The AUC of each of many weightings of the same cases: (B,), nan where a side weighs nothing; ties count half.

    scores: (n,); positive: bool (n,); weights: (B, n).
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    over = [np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive)]
    hits, misses = over
    below = np.cumsum(misses, axis=1) - misses
    pairs = hits.sum(1) * misses.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(pairs > 0, ((below + misses / 2) * hits).sum(1) / pairs, np.nan)


def weighted_average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The average precision of each of many weightings of the same cases, as `weighted_auc`: precision at each
    threshold, weighted by the recall that it adds.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive))
    found, all_found = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(all_found > 0, found / all_found, 0.0)
        return np.where(found[:, -1] > 0, (precision * hits).sum(1) / found[:, -1], np.nan)


def weighted_hits(predicted: np.ndarray, labels: np.ndarray, C: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro F1 of each of many weightings of the same predictions: (B,) each.

    predicted, labels: class indices (n,). Balanced accuracy is over the classes that are there, F1 over those that are
    there or predicted, as in `metrics.scores`.
    """
    hit = predicted == labels
    true, guessed = ((np.arange(C)[:, None] == given).astype(float) for given in (labels, predicted))
    held, said, right = weights @ true.T, weights @ guessed.T, weights @ (true * hit).T  # (B, C)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = right.sum(1) / weights.sum(1)
        recall, f1 = right / held, 2 * right / (held + said)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": _mean_of_defined(recall),
        "f1": _mean_of_defined(f1),
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is no nan."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, values, 0.0).sum(1) / defined.sum(1)


def weighted_scores(p: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return each score of `metrics.scores` for each of many weightings of the same predictions.

    Args:
        p: probabilities, (n, C).
        labels: class indices, (n,).
        weights: (B, n).

    Returns:
        Score to (B,); AUC and average precision are nan where no class stands beside others.
    """
    counted = metrics.scored_classes(labels, p.shape[1])
    aucs = np.array([weighted_auc(p[:, c], labels == c, weights) for c in counted]).reshape(-1, len(weights))
    precisions = np.array([weighted_average_precision(p[:, c], labels == c, weights) for c in counted])
    precisions = np.where(np.isnan(aucs), np.nan, precisions.reshape(-1, len(weights)))
    means = {"auc": _mean_of_defined(aucs.T), "average_precision": _mean_of_defined(precisions.T)}
    return weighted_hits(p.argmax(1), labels, p.shape[1], weights) | means


def _scores_without_each(p: np.ndarray, labels: np.ndarray, patient: np.ndarray) -> dict[str, np.ndarray]:
    """Each score without each patient: (patients,), nan where it is undefined then; patient: of each case, from 0."""
    n_patients, step = patient.max() + 1, max(1, MAX_WEIGHTS // len(patient))
    blocks = [
        weighted_scores(p, labels, (np.arange(start, min(start + step, n_patients))[:, None] != patient).astype(float))
        for start in range(0, n_patients, step)
    ]
    return {score: np.concatenate([block[score] for block in blocks]) for score in metrics.SCORES}


def influences(predictions: pd.DataFrame, classes: list[str], training: float = TRAINING) -> dict[str, Influence]:
    """Return each score's influence: the score in each fold, and each patient's part by leaving the patient out.

    A fold whose score is undefined without a patient (the only one of a label) is left out of the mean with it.

    Args:
        predictions: the `evaluate` tables of all folds; a row per fold and slide, or patient.
        classes: labels in the order of the probabilities.
        training: what training adds to the variance; KNN_TRAINING of nearest neighbors.

    Returns:
        Score to its influence, for each of `metrics.SCORES`.
    """
    p, labels = metrics.probability_matrix(predictions, classes)
    patient, patients = pd.factorize(predictions["patient_id"])
    fold, folds = pd.factorize(predictions["fold"], sort=True)
    shows = np.zeros((len(patients), len(classes)), bool)  # a patient may have slides of several labels
    shows[patient, labels] = True
    values = {score: np.full(len(folds), np.nan) for score in metrics.SCORES}
    parts = {score: np.full((len(folds), len(patients)), np.nan) for score in metrics.SCORES}
    for i in range(len(folds)):
        tested = fold == i
        ids, local = np.unique(patient[tested], return_inverse=True)
        whole = weighted_scores(p[tested], labels[tested], np.ones((1, tested.sum())))
        without = _scores_without_each(p[tested], labels[tested], local)
        tested_shows = np.zeros((len(ids), len(classes)), bool)
        tested_shows[local, labels[tested]] = True
        of_label = (tested_shows * tested_shows.sum(0)).max(1)  # of a patient of several labels, the commonest
        for score in metrics.SCORES:
            values[score][i] = whole[score][0]
            n = np.full(len(ids), len(ids)) if score == "accuracy" else of_label
            parts[score][i, ids] = (whole[score] - without[score]) * np.sqrt(np.where(n > 1, (n - 1) / n, 1.0))
            parts[score][i, ids[np.isnan(without[score])]] = np.inf  # the fold is left out, below
    n_rarest = int(shows[:, np.unique(labels)].sum(0).min()) if len(labels) else 0
    return {
        score: Influence(
            pd.Series(values[score], folds),
            pd.DataFrame(_without_fold(parts[score], values[score]), folds, patients),
            len(patients) if score == "accuracy" else n_rarest,
            training,
        )
        for score in metrics.SCORES
    }


def _without_fold(parts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The parts (F, patients), where they are infinite what the mean over folds loses without the fold; nan of one."""
    defined = values[~np.isnan(values)]
    n = len(defined)
    lost = (values - defined.mean()) * n / (n - 1) if n > 1 else np.full(len(values), np.nan)
    return np.where(np.isinf(parts), lost[:, None], parts)
