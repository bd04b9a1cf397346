"""Groups of endpoints without classes, by which folds are stratified and pictures colored."""

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


def regression_groups(values: np.ndarray) -> np.ndarray:
    """Group numbers by their quartiles.

    Args:
        values: Of each patient or slide, (n,).

    Returns:
        Name of each group, str (n,), such as "q1 (up to 2.5)"; fewer groups where many values are equal.
    """
    bins = quantile_bins(np.asarray(values, np.float64))
    ends = [values[bins == i].max() for i in range(bins.max(initial=0))]
    last = f"q{len(ends) + 1} (above {ends[-1]:.4g})" if ends else "all"
    names = [*(f"q{i} (up to {end:.4g})" for i, end in enumerate(ends, start=1)), last]
    return np.array([names[i] for i in bins], object)


def survival_groups(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Group survival by event, and events and censored cases by the median of their times.

    Args:
        time, event: Of each patient or slide, as in `validated_survival`.

    Returns:
        Name of each group, str (n,), such as "early event (up to 24)" and "late event (above 24)".
    """
    time, event = validated_survival(time, event)
    groups = np.empty(len(time), object)
    for name, side in (("event", event), ("censored", ~event)):
        bins = quantile_bins(time[side], n_bins=2)
        edge = time[side][bins == 0].max(initial=0)
        names = [f"early {name} (up to {edge:.4g})", f"late {name} (above {edge:.4g})"] if bins.any() else [name]
        groups[side] = [names[i] for i in bins]
    return groups
