"""What a score is worth: its interval over resampled patients, of all test slides together."""

import math

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


def weighted_average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The average precision of each of many weightings of the same cases, as `weighted_auc`: precision at each
    threshold, weighted by the recall that it adds.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive))
    found, all_found = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(all_found > 0, found / all_found, 0.0)
        return np.where(found[:, -1] > 0, (precision * hits).sum(1) / found[:, -1], np.nan)


def weighted_hits(predicted: np.ndarray, labels: np.ndarray, C: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro F1 of each of many weightings of the same predictions: (B,) each.

    predicted, labels: class indices (n,). Balanced accuracy is over the classes that are there, F1 over those that are
    there or predicted, as in `metrics.scores`.
    """
    hit = predicted == labels
    true, guessed = ((np.arange(C)[:, None] == given).astype(float) for given in (labels, predicted))
    held, said, right = weights @ true.T, weights @ guessed.T, weights @ (true * hit).T  # (B, C)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = right.sum(1) / weights.sum(1)
        recall, f1 = right / held, 2 * right / (held + said)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": _mean_of_defined(recall),
        "f1": _mean_of_defined(f1),
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is no nan."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, values, 0.0).sum(1) / defined.sum(1)


def patient_bootstrap(slides: pd.DataFrame, classes: list[str], rng: np.random.Generator) -> dict[str, float]:
    """Each score of all test slides together, {score}_pooled, and its percentile interval over resampled patients,
    {score}_low and {score}_high (LEVEL, RESAMPLES).

    slides: as `pooled` gives them. nan where a score is undefined.
    """
    found = {f"{score}_{what}": math.nan for score in metrics.SCORES for what in ("pooled", "low", "high")}
    if slides.empty:
        return found
    p, labels = metrics.probability_matrix(slides, classes)
    patient = pd.factorize(slides["patient_id"])[0]
    n = patient.max() + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), drawn])[:, patient]  # the first is the cohort as it is
    values = weighted_hits(p.argmax(1), labels, len(classes), weights)
    counted = metrics.counted_classes(labels, len(classes))
    if counted:
        values["auc"] = np.mean([weighted_auc(p[:, c], labels == c, weights) for c in counted], axis=0)
        precisions = [weighted_average_precision(p[:, c], labels == c, weights) for c in counted]
        values["average_precision"] = np.mean(precisions, axis=0)
    for score, of_each in values.items():
        found[f"{score}_pooled"] = float(of_each[0])
        if not np.isnan(of_each[1:]).all():
            low, high = np.nanquantile(of_each[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found |= {f"{score}_low": float(low), f"{score}_high": float(high)}
    return found
