"""Uncertainty of a mean over folds: the influence of each patient, the standard error and the interval."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import metrics
from slpd_core.report.weighted_scores import scores_without_each, weighted_scores

LEVEL = 0.95
# All folds train on the same patients. That adds a variance to their mean that no test patient shows, and of which no
# unbiased estimate exists (Bengio and Grandvalet, JMLR 2004). It is taken as a fraction of the variance over test
# patients, from simulations (benchmarks/intervals.py): differences needed 0.1 to 0.5 for linear classifiers and small
# networks, 0.6 to 0.7 for nearest neighbors. Scores that need no training add 0.
TRAINING, KNN_TRAINING = 0.3, 0.65
MAX_LOG = 700.0  # exp of more is infinite
MIN_ERROR = 1e-12  # a standard error below it is none
SHARES = ("accuracy", "mae")  # means over cases, whatever their class


@dataclass(frozen=True)
class Influence:
    """A score in each fold, and the influence of each patient on it.

    Attributes:
        values: The score of each fold, (F,).
        parts: How far each patient moves the score of each fold, (F, patients); nan if the fold does not test it.
        n_effective: Patients that stand for the sample size of a score without any spread.
        training: Variance that training adds, as a fraction of the variance if each patient is tested once.
        bounds: The least and the highest value of the score.
    """

    values: pd.Series
    parts: pd.DataFrame
    n_effective: int
    training: float
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def width(self) -> float:
        """The largest difference of two values of the score."""
        return self.bounds[1] - self.bounds[0]

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
        return Influence(values, parts.reindex(values.index), n_effective, training, self.bounds)

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
        """Compute the interval (LEVEL) of the mean score.

        Between two bounds, mapped to 0 and 1, it is Wilson's (1927). A score that is at a bound in all folds, or on
        which no patient has an influence, has the interval of n_effective patients. With one bound it is that of
        Student's t on the logarithm of the distance from it; none without a distance or an influence.

        Returns:
            Its ends; nan if the mean or its standard error is.
        """
        mean, error, (lowest, highest) = float(self.values.mean()), self.standard_error(), self.bounds
        if math.isnan(mean) or math.isnan(error):
            return math.nan, math.nan
        t = self.quantile((1 + LEVEL) / 2)
        if math.isinf(lowest):
            near, far = _log_interval(highest - mean, error, t)
            return highest - far, highest - near
        if math.isinf(highest):
            near, far = _log_interval(mean - lowest, error, t)
            return lowest + near, lowest + far
        share, share_error = (mean - lowest) / self.width, error / self.width
        low, high = _wilson_interval(share, share_error, t, self.n_effective)
        return lowest + self.width * low, lowest + self.width * high


def _wilson_interval(mean: float, error: float, t: float, n_effective: int) -> tuple[float, float]:
    """Wilson's interval of a mean between 0 and 1, for the sample size that its standard error implies."""
    spread = mean * (1 - mean)
    n = spread / error**2 if error > MIN_ERROR and spread > 0 else n_effective
    center = (mean + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * math.sqrt(spread / n + t**2 / (4 * n**2))
    return max(center - half, 0.0), min(center + half, 1.0)


def _log_interval(distance: float, error: float, t: float) -> tuple[float, float]:
    """Interval of a positive number on the logarithmic scale, its standard error by the delta method."""
    if not (distance > 0 and error > MIN_ERROR * distance):
        return math.nan, math.nan
    factor = math.exp(min(t * error / distance, MAX_LOG))
    return distance / factor, distance * factor


def compute_influences(
    predictions: pd.DataFrame, endpoint: Endpoint, training: float = TRAINING
) -> dict[str, Influence]:
    """Compute each score in each fold, and each patient's influence on it by leaving the patient out.

    A fold whose score is undefined without a patient (the only one of a label) leaves the mean with the patient.

    Args:
        predictions: The `evaluate` tables of all folds; a row per fold and slide, or fold and patient.
        endpoint: Of the task.
        training: Variance that training adds; KNN_TRAINING for nearest neighbors.

    Returns:
        Score to its influence, for each of the endpoint's scores.
    """
    truth, predicted = endpoint.encode(predictions), endpoint.predictions(predictions)
    cohort = endpoint.encode(metrics.unique_cases(predictions))
    patient, patients = pd.factorize(predictions["patient_id"])
    fold, folds = pd.factorize(predictions["fold"], sort=True)
    values = {score: np.full(len(folds), np.nan) for score in endpoint.scores}
    parts = {score: np.full((len(folds), len(patients)), np.nan) for score in endpoint.scores}
    for i in range(len(folds)):
        tested = fold == i
        ids, local = np.unique(patient[tested], return_inverse=True)
        whole, without = _leave_each_out(endpoint, truth[tested], predicted[tested], local, cohort)
        n_alike = _count_alike(endpoint, truth[tested], local)
        for score in endpoint.scores:
            values[score][i] = whole[score]
            n = np.full(len(ids), len(ids)) if score in SHARES else n_alike
            parts[score][i, ids] = (whole[score] - without[score]) * np.sqrt(np.where(n > 1, (n - 1) / n, 1.0))
            parts[score][i, ids[np.isnan(without[score])]] = np.inf  # see _replace_infinite
    n_effective = _count_effective(endpoint, truth, patient)
    return {
        score: Influence(
            pd.Series(values[score], folds),
            pd.DataFrame(_replace_infinite(parts[score], values[score]), folds, patients),
            len(patients) if score in SHARES else n_effective,
            training,
            (SCORES[score].low, SCORES[score].high),
        )
        for score in endpoint.scores
    }


def compute_mean_influence(cases: pd.DataFrame, score: str, training: float = TRAINING) -> Influence:
    """Compute the mean of a score of single cases in each fold, and each patient's influence by leaving it out.

    Args:
        cases: Columns fold, patient_id and the score, between 0 and 1; cases where it is nan do not count.
        score: Its column.
        training: As in `compute_influences`.

    Returns:
        The influence.
    """
    cases = cases.dropna(subset=[score])
    by_fold = cases.groupby("fold")[score].agg(["sum", "count"])
    by_patient = cases.groupby(["fold", "patient_id"])[score].agg(["sum", "count"])
    sums, counts = (by_patient[name].unstack() for name in ("sum", "count"))
    values, n_patients = by_fold["sum"] / by_fold["count"], counts.notna().sum(axis=1)
    rest = counts.rsub(by_fold["count"], axis=0)
    without = sums.rsub(by_fold["sum"], axis=0) / rest.mask(rest == 0)
    parts = without.rsub(values, axis=0).mul(np.sqrt((n_patients - 1) / n_patients), axis=0)
    alone = counts.notna() & (rest == 0)  # the only patient of a fold
    replaced = _replace_infinite(parts.mask(alone, np.inf).to_numpy(float), values.to_numpy(float))
    return Influence(
        values, pd.DataFrame(replaced, parts.index, parts.columns), cases["patient_id"].nunique(), training
    )


def _leave_each_out(
    endpoint: Endpoint, truth: np.ndarray, predicted: np.ndarray, patient: np.ndarray, cohort: np.ndarray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Each score of a fold, and without each of its patients, (patients,); patient: index of each case's."""
    if endpoint.kind == "classification":
        whole = weighted_scores(predicted, truth, np.ones((1, len(truth))))
        return {score: value[0] for score, value in whole.items()}, scores_without_each(predicted, truth, patient)
    kept = [patient != i for i in range(patient.max() + 1)]
    rest = [endpoint.score_arrays(truth[rows], predicted[rows], cohort) for rows in kept]
    without = {score: np.array([scores[score] for scores in rest]) for score in endpoint.scores}
    return endpoint.score_arrays(truth, predicted, cohort), without


def _count_alike(endpoint: Endpoint, truth: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """For classification, the patients of each patient's class, of its commonest if it has several; else all."""
    n_patients = patient.max() + 1
    if endpoint.kind != "classification":
        return np.full(n_patients, n_patients)
    has_label = np.zeros((n_patients, len(endpoint.classes)), bool)
    has_label[patient, truth] = True
    counts: np.ndarray = (has_label * has_label.sum(0)).max(1)
    return counts


def _count_effective(endpoint: Endpoint, truth: np.ndarray, patient: np.ndarray) -> int:
    """Patients of the rarest class, with an event, or all."""
    rows = [np.full(len(truth), True)]
    if endpoint.has_classes:
        rows = [truth == c for c in np.unique(truth)]
    elif endpoint.kind == "survival":
        rows = [truth[:, 1] > 0]
    return min((len(np.unique(patient[some])) for some in rows), default=0)


def _replace_infinite(parts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace infinite parts, (F, patients), by the change of the mean without their fold; nan if there is one fold."""
    defined = values[~np.isnan(values)]
    n = len(defined)
    lost = (values - defined.mean()) * n / (n - 1) if n > 1 else np.full(len(values), np.nan)
    return np.where(np.isinf(parts), lost[:, None], parts)
