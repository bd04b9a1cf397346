"""How well a risk orders right-censored cases: the C-index and the time-dependent AUC.

The risks of two folds have no common scale: score each fold, then take the mean.
"""

import math

import numpy as np

from slpd_core.endpoints.survival import censoring_survival, kaplan_meier, validated_survival

SURVIVAL_SCORES = ("c_index", "mean_auc")


def concordance_index(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Compute the fraction of comparable pairs that the risk orders right (Harrell et al., JAMA 1982).

    Two cases are comparable if one has its event while the other is still at risk; a case that is censored at the time
    of the event is. Two events at one time are not comparable. Equal risks count half.

    Args:
        time, event: As in `validated_survival`.
        risk: The higher, the earlier the event is expected, (n,).

    Returns:
        The C-index: 0.5 for equal risks; nan without a comparable pair.
    """
    comparable, wrong, tied = _compare_pairs(time, event, risk)
    n_pairs = comparable.sum()
    return float((n_pairs - wrong.sum() - tied.sum() / 2) / n_pairs) if n_pairs else math.nan


def case_discordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Compute for each case the fraction of its comparable pairs that the risk orders wrong.

    Args:
        time, event, risk: As in `concordance_index`.

    Returns:
        (n,): 0.5 for equal risks; nan for a case without a comparable pair. Weighted by pairs, their mean is 1 less the
        C-index.
    """
    comparable, wrong, tied = _compare_pairs(time, event, risk)
    first = np.flatnonzero(event)
    n_pairs, n_wrong = comparable.sum(0), wrong.sum(0) + tied.sum(0) / 2
    n_pairs[first] += comparable.sum(1)
    n_wrong[first] += wrong.sum(1) + tied.sum(1) / 2
    fractions: np.ndarray = np.divide(n_wrong, n_pairs, out=np.full(len(n_pairs), math.nan), where=n_pairs > 0)
    return fractions


def _compare_pairs(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of each case with an event and each case: which are comparable, and of these ordered wrong, and tied."""
    time, event = validated_survival(time, event)
    first = np.flatnonzero(event)[:, None]
    comparable = (time > time[first]) | ((time == time[first]) & ~event)
    return comparable, comparable & (risk > risk[first]), comparable & (risk == risk[first])


def auc_times(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Choose the times of the time-dependent AUC: the quartiles of the event times.

    Args:
        time, event: Of all cases of the cohort, so that folds share the times; as in `validated_survival`.

    Returns:
        Ascending, (3,); fewer if quartiles are equal, none without an event.
    """
    time, event = validated_survival(time, event)
    return np.unique(np.quantile(time[event], (0.25, 0.5, 0.75))) if event.any() else np.empty(0)


def cumulative_dynamic_auc(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    at: np.ndarray,
    *,
    censoring: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the AUC that tells cases with an event until a time from those without one.

    Each event has the weight 1 / G(t-), the inverse probability of being still under follow-up (Uno et al., JASA 2007;
    Hung and Chiang, 2010). Cases that are censored before a time do not count at it. Equal risks count half.

    Args:
        time, event, risk: As in `concordance_index`.
        at: Times, (T,).
        censoring: Times and events that G is estimated from, such as the training part's; by default the cases.

    Returns:
        AUC at each time, (T,); nan where no event has happened, nobody is left, or an event has G = 0.
    """
    time, event = validated_survival(time, event)
    G = censoring_survival(*((time, event) if censoring is None else censoring), time)
    aucs = np.full(len(at), math.nan)
    for i, t in enumerate(at):
        case, control = event & (time <= t), time > t
        if case.any() and control.any() and G[case].all():
            later = risk[case, None] - risk[control]
            aucs[i] = np.average(((later > 0) + (later == 0) / 2).mean(1), weights=1 / G[case])
    return aucs


def mean_dynamic_auc(time: np.ndarray, event: np.ndarray, aucs: np.ndarray, at: np.ndarray) -> float:
    """Average the time-dependent AUC, weighted by the drop of the Kaplan–Meier curve since the time before.

    Args:
        time, event: As in `validated_survival`.
        aucs: As `cumulative_dynamic_auc` returns them, (T,).
        at: Their times, ascending, (T,).

    Returns:
        The mean over the times where it is defined; nan if it is nowhere.
    """
    defined = ~np.isnan(aucs)
    if not defined.any():
        return math.nan
    drops = -np.diff(kaplan_meier(time, event).at(at[defined]), prepend=1.0)
    return float(np.average(aucs[defined], weights=drops))


def score_survival(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    at: np.ndarray,
    *,
    censoring: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, float]:
    """Score the risks of one test part.

    Args:
        time, event, risk, at, censoring: As in `cumulative_dynamic_auc`.

    Returns:
        SURVIVAL_SCORES: the C-index and the mean of the time-dependent AUC; nan where undefined.
    """
    aucs = cumulative_dynamic_auc(time, event, risk, at, censoring=censoring)
    return {
        "c_index": concordance_index(time, event, risk),
        "mean_auc": mean_dynamic_auc(time, event, aucs, at),
    }
