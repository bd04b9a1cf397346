"""Scores of an external cohort: of the ensemble of folds and of single folds, with intervals by patients."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.resampling import draw_patient_weights, percentile_interval
from slpd_core.endpoints.scores import SCORES
from slpd_core.report.operating_point import score_threshold
from slpd_core.report.weighted_scores import weighted_scores

Z = 1.959964  # of a normal interval of 95 %
NO_SPREAD = 1e-12  # of a statistic that is the same in all resamples


@dataclass(frozen=True)
class Cases:
    """Slides or patients of an external cohort, as the classifiers of the folds predict them.

    Attributes:
        table: patient_id and the truth of each case, n rows.
        predictions: Of each fold, (F, n, P).
    """

    table: pd.DataFrame
    predictions: np.ndarray

    @property
    def ensemble(self) -> np.ndarray:
        """Mean prediction over the folds, (n, P)."""
        mean: np.ndarray = self.predictions.mean(0)
        return mean


def gather_cases(predictions: pd.DataFrame, endpoint: Endpoint, *, by: str = "slide_id") -> Cases:
    """Gather the predictions of one model.

    Args:
        predictions: Columns fold, slide_id, patient_id, those of the truth and of the predictions.
        endpoint: Of the task.
        by: patient_id for the mean prediction over a patient's slides; those that differ in the truth stay apart.

    Returns:
        The cases, sorted by id.
    """
    keys = [*dict.fromkeys((by, "patient_id", *endpoint.columns))]
    means = predictions.groupby(["fold", *keys])[endpoint.prediction_columns].mean().reset_index()
    n_folds = max(1, means["fold"].nunique())  # without any slide: one fold without cases
    table = means[keys].iloc[: len(means) // n_folds]
    shape = n_folds, len(table), len(endpoint.prediction_columns)
    return Cases(table, means[endpoint.prediction_columns].to_numpy(np.float64).reshape(shape))


def score_cases(
    cases: Cases, endpoint: Endpoint, *, rng: np.random.Generator, n_resamples: int = 1000
) -> dict[str, float]:
    """Score the ensemble of the folds and the single folds, with 95 % intervals by resampling patients.

    Args:
        cases: Of one model.
        endpoint: Of the task.
        rng: Draws the patients.
        n_resamples: Number of resamples.

    Returns:
        Of each score: {score}, of the ensemble, {score}_low and _high; {score}_fold_mean, the mean over single folds,
        _fold_sd, _fold_low and _fold_high. nan where undefined.
    """
    truth, weights = endpoint.encode(cases.table), _draw_weights(cases, rng, n_resamples)
    ensemble = _score_weighted(endpoint, truth, cases.ensemble, weights)
    folds = [_score_weighted(endpoint, truth, of_fold, weights) for of_fold in cases.predictions]
    columns: dict[str, float] = {}
    for score in endpoint.scores:
        bounds, n_effective = (SCORES[score].low, SCORES[score].high), _effective_patients(cases, score, endpoint)
        columns |= _describe(score, ensemble[score], n_effective, bounds)
        values = np.array([of_fold[score] for of_fold in folds])
        mean = _describe(f"{score}_fold", values.mean(0), n_effective, bounds)
        columns |= {f"{score}_fold_mean": mean.pop(f"{score}_fold")} | mean
        columns[f"{score}_fold_sd"] = float(values[:, 0].std(ddof=1)) if len(folds) > 1 else math.nan
    return columns


def score_operating_point(
    cases: Cases, endpoint: Endpoint, threshold: float, *, rng: np.random.Generator, n_resamples: int = 1000
) -> dict[str, float]:
    """Score a threshold on the ensemble's probability of class 1 of two, with 95 % intervals by resampling patients.

    Args:
        cases, endpoint, rng, n_resamples: As in `score_cases`.
        threshold: From which a case is called class 1.

    Returns:
        threshold; sensitivity, specificity, ppv and npv, each also with _low and _high.
    """
    positive, called = endpoint.encode(cases.table) == 1, cases.ensemble[:, 1] >= threshold
    patients = cases.table["patient_id"]
    groups = {"sensitivity": positive, "specificity": ~positive, "ppv": called, "npv": ~called}
    rates = score_threshold(called, positive, _draw_weights(cases, rng, n_resamples))
    columns = {"threshold": threshold}
    for name, values in rates.items():
        undefined = np.full(len(values), np.nan) if math.isnan(threshold) else values
        columns |= _describe(name, undefined, patients[groups[name]].nunique())
    return columns


def _draw_weights(cases: Cases, rng: np.random.Generator, n_resamples: int) -> np.ndarray:
    """Weights of the cases, (1 + n_resamples, n): all once, then the resamples; nothing to draw from one patient."""
    patients = cases.table["patient_id"].to_numpy(str)
    n_drawn = n_resamples if len(np.unique(patients)) > 1 else 0
    drawn = draw_patient_weights(patients, rng=rng, n_resamples=n_drawn)
    return np.concatenate([np.ones((1, len(patients)), np.int64), drawn])


def _score_weighted(
    endpoint: Endpoint, truth: np.ndarray, predictions: np.ndarray, weights: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Each score under each weighting, (B,), nan where it is undefined."""
    if not len(truth):
        return {score: np.full(len(weights), np.nan) for score in endpoint.scores}
    if endpoint.kind == "classification":
        return weighted_scores(predictions, truth, weights.astype(float))
    rows = (np.repeat(np.arange(len(truth)), counts) for counts in weights)
    lines = [endpoint.score_arrays(truth[drawn], predictions[drawn], truth) for drawn in rows]
    return {score: np.array([line[score] for line in lines]) for score in endpoint.scores}


def _effective_patients(cases: Cases, score: str, endpoint: Endpoint) -> int:
    """Patients that a score without any spread stands on: all for a mean over cases, else those of the rarest class."""
    patients = cases.table["patient_id"]
    if score == "accuracy" or not endpoint.has_classes:
        return int(patients.nunique())
    return int(patients.groupby(cases.table["label"]).nunique().min()) if len(patients) else 0


def _describe(
    name: str, values: np.ndarray, n_effective: int, bounds: tuple[float, float] = (0.0, 1.0)
) -> dict[str, float]:
    """A statistic, the first of the values, and its interval over the others.

    Resamples that are all alike tell nothing of its spread: the interval is then Wilson's (1927) of n_effective
    patients, mapped to the statistic's bounds; nan without two of them.
    """
    value, resampled = float(values[0]), values[1:]
    low, high = percentile_interval(resampled) if len(resampled) else (math.nan, math.nan)
    if high - low < NO_SPREAD:
        low, high = (math.nan, math.nan) if math.isinf(bounds[1] - bounds[0]) else _wilson(value, n_effective, bounds)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _wilson(value: float, n: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Wilson's interval of n patients of a statistic between two bounds."""
    (lowest, highest), z2 = bounds, Z**2
    share = (value - lowest) / (highest - lowest)
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    low, high = max(center - half, 0.0), min(center + half, 1.0)
    return lowest + (highest - lowest) * low, lowest + (highest - lowest) * high
