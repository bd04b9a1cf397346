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

    values = np.fromiter(resampled(), np.float64, n_resamples)
    values = values[~np.isnan(values)]
    if len(values) <= n_resamples / 2:
        return math.nan, math.nan
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


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
