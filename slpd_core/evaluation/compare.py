"""Whether one row of the table is better than another."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd


def corrected_t_test(differences: np.ndarray, test_share: float) -> float:
    """Two-sided p of the mean of paired differences over folds (Nadeau and Bengio, Machine Learning 2003).

    Folds share most of their training slides, so that their differences are not independent: the variance of the mean
    is (1/k + n_test/n_train) of theirs, not 1/k. test_share: n_test/n_train. nan of fewer than two folds.
    """
    from scipy import stats

    differences = differences[~np.isnan(differences)]
    k = len(differences)
    if k < 2:
        return math.nan
    mean, variance = differences.mean(), differences.var(ddof=1)
    if variance <= (1e-12 * max(1.0, abs(mean))) ** 2:  # the same in every fold
        return 1.0 if abs(mean) < 1e-12 else 0.0
    return float(2 * stats.t.sf(abs(mean) / math.sqrt((1 / k + test_share) * variance), k - 1))


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values corrected for being many (Holm, 1979); nan stays nan and does not count."""
    values = np.array(p, float)
    corrected = np.full(len(values), np.nan)
    order = np.argsort(values)[: (~np.isnan(values)).sum()]  # nan sorts last
    stepped = np.maximum.accumulate(values[order] * (len(order) - np.arange(len(order))))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def against_best(aucs: Sequence[pd.Series], test_share: float) -> pd.DataFrame:
    """Each row of the table against the one of highest mean AUC, over the folds in which both are defined.

    aucs: of each row, indexed by fold. Gives auc_less, by how much a row's mean is lower, and p, corrected by Holm; the
    best row itself has nan.
    """
    means = [auc.mean() for auc in aucs]
    found = pd.DataFrame({"auc_less": np.nan, "p": np.nan}, index=range(len(aucs)))
    if not aucs or np.isnan(means).all():
        return found
    best = int(np.nanargmax(means))
    for number, auc in enumerate(aucs):
        if number != best:
            away = (aucs[best] - auc).to_numpy(float)
            found.loc[number, "auc_less"] = np.nanmean(away) if not np.isnan(away).all() else np.nan
            found.loc[number, "p"] = corrected_t_test(away, test_share)
    found["p"] = holm(found["p"].to_list())
    return found
