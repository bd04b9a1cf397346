"""Nearest neighbors by unscaled mean features, as HIPT's k-NN, for survival and continuous targets."""

import numpy as np

from slpd_core.endpoints.survival import kaplan_meier, validated_survival


def nearest_cases(means: np.ndarray, queries: np.ndarray, n_neighbors: int = 5) -> np.ndarray:
    """Find the training cases nearest to each query, by Euclidean distance.

    Args:
        means: Mean features of each training bag, (n, D).
        queries: Mean features to look up, (m, D).
        n_neighbors: At most as many as there are training bags.

    Returns:
        Their indices, the nearest first, int64 (m, k).
    """
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=min(n_neighbors, len(means))).fit(means)
    indices: np.ndarray = fitted.kneighbors(queries, return_distance=False)
    return indices


def predict_knn_regression(
    means: np.ndarray, targets: np.ndarray, queries: np.ndarray, *, n_neighbors: int = 5
) -> np.ndarray:
    """Predict the mean target of the nearest neighbors.

    Args:
        means, queries, n_neighbors: As in `nearest_cases`.
        targets: Of the training bags, (n,).

    Returns:
        (m,).
    """
    predictions: np.ndarray = targets[nearest_cases(means, queries, n_neighbors)].mean(1)
    return predictions


def predict_knn_risk(
    means: np.ndarray, time: np.ndarray, event: np.ndarray, queries: np.ndarray, *, n_neighbors: int = 5
) -> np.ndarray:
    """Predict risk by the Kaplan–Meier curve of the nearest neighbors.

    The risk is minus their restricted mean survival time up to the last event of all training bags. Where the follow-up
    of the neighbors ends earlier, their curve stays level.

    Args:
        means, queries, n_neighbors: As in `nearest_cases`.
        time, event: Of the training bags, as in `survival.validated_survival`.

    Returns:
        Risks, (m,); all equal if no training bag has an event.
    """
    time, event = validated_survival(time, event)
    horizon = float(time[event].max(initial=0.0))
    neighbors = nearest_cases(means, queries, n_neighbors)
    return np.array([-kaplan_meier(time[near], event[near]).restricted_mean(horizon) for near in neighbors])
