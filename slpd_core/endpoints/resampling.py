"""Resampling of patients: intervals of any statistic, and its values without each patient."""

import math
from collections.abc import Callable, Iterator

import numpy as np

Statistic = Callable[..., float]


def _rows_of_patients(patients: np.ndarray) -> list[np.ndarray]:
    """Rows of each patient, in the order of the sorted patients."""
    index = np.unique(patients, return_inverse=True)[1]
    return np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1]) if len(index) else []


def bootstrap_interval(
    statistic: Statistic,
    patients: np.ndarray,
    *arrays: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute the percentile interval of a statistic by resampling patients (Efron, 1979).

    Each resample draws as many patients as there are, with replacement, each with all its rows.

    Args:
        statistic: Function of the arrays' rows.
        patients: Patient of each row, (n,).
        *arrays: Arrays of n rows, such as time, event and risk; the risks of two models for their difference.
        rng: Draws the patients.
        n_resamples: Number of resamples.
        level: Of the interval.

    Returns:
        Its ends, over the resamples where the statistic is defined; nan if half of them or more are not, or there is
        one patient at most.
    """
    rows = _rows_of_patients(patients)
    if len(rows) < 2:
        return math.nan, math.nan

    def resampled() -> Iterator[float]:
        for _ in range(n_resamples):
            drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
            yield statistic(*(array[drawn] for array in arrays))

    return percentile_interval(np.fromiter(resampled(), np.float64, n_resamples), level)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Compute the percentile interval of a statistic from its resamples.

    Args:
        values: Of each resample, (n_resamples,); nan where the statistic is undefined.
        level: Of the interval.

    Returns:
        Its ends, over the resamples where the statistic is defined; nan if half of them or more are not.
    """
    defined = values[~np.isnan(values)]
    if len(defined) <= len(values) / 2:
        return math.nan, math.nan
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def draw_patient_weights(patients: np.ndarray, *, rng: np.random.Generator, n_resamples: int = 1000) -> np.ndarray:
    """Draw resamples of patients as weights of their rows, for statistics of many weightings at once.

    Args:
        patients: Patient of each row, (n,).
        rng: Draws the patients.
        n_resamples: Number of resamples.

    Returns:
        How often each resample has each row, int64 (n_resamples, n).
    """
    names, index = np.unique(patients, return_inverse=True)
    n = len(names)
    counts = rng.multinomial(n, np.full(n, 1 / n), n_resamples) if n else np.zeros((n_resamples, 0), np.int64)
    return np.asarray(counts[:, index], np.int64)


def without_each_patient(statistic: Statistic, patients: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
    """Compute a statistic without each patient in turn, for the jackknife of `report.uncertainty`.

    Args:
        statistic, patients, *arrays: As in `bootstrap_interval`.

    Returns:
        A value per patient, in the order of the sorted patients, float64 (patients,).
    """
    everyone = np.arange(len(patients))
    kept = (np.setdiff1d(everyone, rows) for rows in _rows_of_patients(patients))
    return np.array([statistic(*(array[rest] for array in arrays)) for rest in kept], np.float64)
