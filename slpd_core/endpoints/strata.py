"""Strata of each kind of endpoint, by which folds are divided evenly."""

import numpy as np

from slpd_core.endpoints.survival import validated_survival

N_BINS = 4


def quantile_bins(values: np.ndarray, *, n_bins: int = N_BINS, min_count: int = 2) -> np.ndarray:
    """Divide values at their quantiles into bins that each hold enough of them.

    Args:
        values: (n,).
        n_bins: The most bins; equal values share one, so there may be fewer.
        min_count: The fewest values per bin.

    Returns:
        Index of each value's bin, from the lowest values up, int64 (n,); a single bin if no division holds enough.
    """
    for k in range(n_bins, 1, -1):
        edges = np.quantile(values, np.arange(1, k) / k) if len(values) else np.empty(0)
        bins = np.searchsorted(edges, values, side="left")
        if np.bincount(bins, minlength=k).min() >= min_count:
            return bins
    return np.zeros(len(values), np.int64)


def class_strata(labels: np.ndarray) -> np.ndarray:
    """Stratify classes, ordered or not: each is a stratum.

    Args:
        labels: Of each patient or slide, (n,).

    Returns:
        Stratum of each, str (n,).
    """
    return np.asarray(labels).astype(str)


def regression_strata(targets: np.ndarray, *, n_bins: int = N_BINS, min_count: int = 2) -> np.ndarray:
    """Stratify continuous targets by their quantiles.

    Args:
        targets: Of each patient or slide, (n,).
        n_bins, min_count: As in `quantile_bins`; pass the number of folds, so that each fold tests every stratum.

    Returns:
        Stratum of each, str (n,): q1 has the lowest targets.
    """
    bins = quantile_bins(np.asarray(targets, np.float64), n_bins=n_bins, min_count=min_count)
    return np.array([f"q{i + 1}" for i in bins], str)


def survival_strata(time: np.ndarray, event: np.ndarray, *, n_bins: int = N_BINS, min_count: int = 2) -> np.ndarray:
    """Stratify survival by event and, among events and among censored cases, by quantiles of time.

    Args:
        time, event: Of each patient or slide, as in `validated_survival`.
        n_bins, min_count: As in `regression_strata`.

    Returns:
        Stratum of each, str (n,): event-1 has the earliest events, censored-1 the shortest follow-up.
    """
    time, event = validated_survival(time, event)
    strata = np.empty(len(time), object)
    for name, side in (("event", event), ("censored", ~event)):
        bins = quantile_bins(time[side], n_bins=n_bins, min_count=min_count)
        strata[side] = [f"{name}-{i + 1}" for i in bins]
    return strata.astype(str)
