"""Ordered classes: agreement and error of predicted ranks."""

import math

import numpy as np

from slpd_core.endpoints.regression import mean_absolute_error

ORDINAL_SCORES = ("kappa", "mae", "accuracy")


def quadratic_weighted_kappa(ranks: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the quadratic-weighted kappa (Cohen, 1968).

    It is 1 less the mean squared difference of ranks over that of ranks paired at random.

    Args:
        ranks, predicted: Class indices in the order of the classes, int64 (n,).

    Returns:
        1 for perfect agreement, 0 for that of chance; nan if all cases have one rank and all predictions the same.
    """
    if not len(ranks):
        return math.nan
    at_random = np.var(ranks) + np.var(predicted) + (np.mean(ranks) - np.mean(predicted)) ** 2
    return float(1 - np.mean((ranks - predicted) ** 2) / at_random) if at_random else math.nan


def score_ordinal(ranks: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score the predictions of one test part by their most probable class.

    Args:
        ranks: Class indices in the order of the classes, int64 (n,).
        probabilities: (n, C).

    Returns:
        ORDINAL_SCORES: the quadratic-weighted kappa, the mean absolute error in ranks, and accuracy; nan where
        undefined.
    """
    predicted = probabilities.argmax(1)
    return {
        "kappa": quadratic_weighted_kappa(ranks, predicted),
        "mae": mean_absolute_error(ranks, predicted),
        "accuracy": float(np.mean(ranks == predicted)) if len(ranks) else math.nan,
    }
