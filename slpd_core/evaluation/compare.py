"""What a score is worth: its interval over patients, and whether one row of the table is better than another."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from slpd_core.evaluation import metrics

RESAMPLES = 1000
LEVEL = 0.95


def pooled(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """All test slides together, a row a slide; of a slide that several folds test, the mean of its probabilities.

    predictions: the `evaluate` tables of all folds. Gives patient_id, label and p_{label} by slide_id.
    """
    columns = [f"p_{label}" for label in classes]
    how = {"patient_id": "first", "label": "first"} | dict.fromkeys(columns, "mean")
    return predictions.groupby("slide_id").agg(how)


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


def patient_bootstrap(slides: pd.DataFrame, classes: list[str], rng: np.random.Generator) -> dict[str, float]:
    """The AUC of all test slides together, and its percentile interval over resampled patients (LEVEL, RESAMPLES).

    slides: as `pooled` gives them. nan where the AUC is undefined.
    """
    p, labels = metrics.probability_matrix(slides, classes)
    counted = metrics.counted_classes(labels, len(classes))
    found = dict.fromkeys(("auc_pooled", "auc_low", "auc_high"), math.nan)
    if not counted:
        return found
    patient = pd.factorize(slides["patient_id"])[0]
    n = patient.max() + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), drawn])[:, patient]  # the first is the cohort as it is
    aucs = np.mean([weighted_auc(p[:, c], labels == c, weights) for c in counted], axis=0)
    found["auc_pooled"] = float(aucs[0])
    if not np.isnan(aucs[1:]).all():
        low, high = np.nanquantile(aucs[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found |= {"auc_low": float(low), "auc_high": float(high)}
    return found


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
