"""Right-censored survival: Kaplan–Meier curves, the split at a median risk, the log-rank test."""

import math
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # of a product of probabilities


def validated_survival(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check follow-up times and events.

    Args:
        time: Time until the event or the end of follow-up, (n,).
        event: Whether the event was seen: bool, or 0 and 1, (n,).

    Returns:
        Times, float64 (n,), and events, bool (n,).

    Raises:
        ValueError: The lengths differ, a time is negative or not finite, or an event is neither 0 nor 1.
    """
    time, event = np.asarray(time, np.float64), np.asarray(event)
    if time.ndim != 1 or time.shape != event.shape:
        raise ValueError(f"survival: times {time.shape} and events {event.shape}; one of each per case is needed")
    if wrong := [float(value) for value in time if not 0 <= value < math.inf]:
        raise ValueError(f"survival: time {wrong[0]:g}; times must be finite and not negative")
    if wrong := [value for value in event.tolist() if value not in (0, 1)]:
        raise ValueError(f"survival: event {wrong[0]!r}; code an event as 1 and a censored case as 0")
    return time, event.astype(bool)


@dataclass(frozen=True)
class SurvivalCurve:
    """A Kaplan–Meier curve: steps at the distinct times, 1 before the first.

    Attributes:
        time: Distinct times, ascending, float64 (T,).
        survival: Probability to survive beyond each time, (T,).
        low, high: Ends of its interval, (T,); nan where nobody survives.
        at_risk: Cases whose follow-up lasts at least until the time, int64 (T,).
        events: Events at the time, int64 (T,).
    """

    time: np.ndarray
    survival: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Evaluate the curve; after the last time it stays level.

        Args:
            times: (n,).

        Returns:
            Probability to survive beyond each time, (n,); nan for a curve of no case.
        """
        start = 1.0 if len(self.time) else math.nan
        return np.append(start, self.survival)[np.searchsorted(self.time, times, side="right")]

    def median(self) -> float:
        """Return the first time beyond which at most half survive.

        Returns:
            The time; nan if more than half survive.
        """
        reached = self.time[self.survival <= 0.5 + ROUNDING]
        return float(reached[0]) if len(reached) else math.nan

    def restricted_mean(self, horizon: float) -> float:
        """Integrate the curve from 0 to a horizon: the mean survival time within it.

        Args:
            horizon: In the unit of the times.

        Returns:
            The restricted mean survival time; nan for a curve of no case.
        """
        edges = np.concatenate(([0.0], self.time[self.time < horizon], [horizon]))
        return float(self.at(edges[:-1]) @ np.diff(edges))


def kaplan_meier(time: np.ndarray, event: np.ndarray, *, level: float = 0.95) -> SurvivalCurve:
    """Estimate the survival function (Kaplan and Meier, JASA 1958).

    Intervals are pointwise: Greenwood's variance of log S on the log(-log S) scale, which keeps them between 0 and 1
    (Kalbfleisch and Prentice, 1980).

    Args:
        time, event: As in `validated_survival`.
        level: Of the intervals.

    Returns:
        The curve; empty for no case.
    """
    from scipy.special import ndtri

    time, event = validated_survival(time, event)
    times, index = np.unique(time, return_inverse=True)
    events = np.bincount(index[event], minlength=len(times))
    at_risk = len(time) - np.searchsorted(np.sort(time), times)
    survival = np.cumprod(1 - events / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(events / (at_risk * (at_risk - events)))
        width = ndtri((1 + level) / 2) * np.sqrt(variance) / -np.log(survival)
        low, high = (np.where(survival == 1, 1.0, survival ** np.exp(sign * width)) for sign in (1, -1))
    return SurvivalCurve(times, survival, low, high, at_risk, events)


def censoring_survival(time: np.ndarray, event: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Estimate the probability to be still under follow-up just before each time.

    It is the Kaplan–Meier curve of censoring. Of a tied event and censoring the event comes first.

    Args:
        time, event: As in `validated_survival`.
        at: Times, (m,).

    Returns:
        G(t-), (m,).
    """
    time, event = validated_survival(time, event)
    times, index = np.unique(time, return_inverse=True)
    events, censored = (np.bincount(index[kind], minlength=len(times)) for kind in (event, ~event))
    at_risk = len(time) - np.searchsorted(np.sort(time), times) - events
    survival = np.cumprod(1 - censored / np.maximum(at_risk, 1))
    return np.append(1.0, survival)[np.searchsorted(times, at, side="left")]


def split_at_median(risk: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Split cases into low and high risk.

    Args:
        risk: (n,).
        reference: Risks whose median divides, such as those of the training part; by default `risk`.

    Returns:
        Whether the risk is above the median, bool (n,).
    """
    reference = risk if reference is None else reference
    return np.asarray(risk > np.median(reference)) if len(reference) else np.zeros(len(risk), bool)


def logrank_test(time: np.ndarray, event: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Test whether two groups have the same survival function (Mantel, 1966), two-sided.

    Args:
        time, event: As in `validated_survival`.
        group: Whether each case belongs to the second group, bool (n,).

    Returns:
        The statistic, chi-squared with one degree of freedom, and p; nan if a group is empty, or no event finds both
        groups at risk.
    """
    from scipy.stats import CensoredData, logrank

    time, event = validated_survival(time, event)
    group = np.asarray(group, bool)
    if group.all() or not group.any():
        return math.nan, math.nan
    first, second = (CensoredData(time[side & event], right=time[side & ~event]) for side in (~group, group))
    with np.errstate(divide="ignore", invalid="ignore"):
        result = logrank(first, second)
    if not np.isfinite(result.statistic):
        return math.nan, math.nan
    return float(result.statistic**2), float(result.pvalue)
