"""Continuous targets: their scale, ridge regression on mean features, and scores."""

import math

import numpy as np

REGRESSION_SCORES = ("r2", "mae", "spearman")


def target_scale(targets: np.ndarray) -> tuple[float, float]:
    """Measure the scale on which a network is trained: (target - mean) / sd.

    Args:
        targets: Of the training part, (n,).

    Returns:
        Mean and standard deviation (n); the latter is 1 for equal targets.
    """
    sd = float(np.std(targets))
    return float(np.mean(targets)), sd if sd > 0 else 1.0


def fit_ridge(features: np.ndarray, targets: np.ndarray, *, l2: float = 100.0) -> dict[str, np.ndarray]:
    """Fit ridge regression on standardized features; the intercept has no L2.

    Args:
        features: Mean features of each bag, (n, D).
        targets: (n,).
        l2: Strength of L2: minimizes the sum of squared errors plus l2 times the squared norm of the coefficients.

    Returns:
        mean and scale of the features, (D,), coef, (D,), and intercept, (1,).
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(np.asarray(features, np.float64))
    model = Ridge(alpha=l2).fit(scaler.transform(features), targets)
    return {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "coef": model.coef_,
        "intercept": np.atleast_1d(model.intercept_),
    }


def predict_ridge(model: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Predict targets by ridge regression.

    Args:
        model: As `fit_ridge` returns it.
        features: (n, D).

    Returns:
        (n,).
    """
    predictions: np.ndarray = ((features - model["mean"]) / model["scale"]) @ model["coef"] + model["intercept"]
    return predictions


def r_squared(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Compute the coefficient of determination: 1 less the squared errors over those of the mean target.

    Args:
        targets, predictions: (n,).

    Returns:
        At most 1; below 0 if the mean target predicts better; nan for equal targets or fewer than two.
    """
    if len(targets) < 2 or np.ptp(targets) == 0:
        return math.nan
    return float(1 - np.sum((targets - predictions) ** 2) / np.sum((targets - np.mean(targets)) ** 2))


def mean_absolute_error(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Compute the mean absolute error, in the unit of the targets; of ordinal classes, in ranks.

    Args:
        targets, predictions: (n,).

    Returns:
        The error; nan for no case.
    """
    return float(np.mean(np.abs(targets - predictions))) if len(targets) else math.nan


def spearman(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Compute Spearman's rank correlation; ties have their mean rank.

    Args:
        targets, predictions: (n,).

    Returns:
        -1 to 1; nan if either is the same for all cases.
    """
    from scipy.stats import rankdata

    if len(targets) < 2 or np.ptp(targets) == 0 or np.ptp(predictions) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(targets), rankdata(predictions))[0, 1])


def score_regression(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Score the predictions of one test part.

    Args:
        targets, predictions: (n,).

    Returns:
        REGRESSION_SCORES; nan where undefined.
    """
    return {
        "r2": r_squared(targets, predictions),
        "mae": mean_absolute_error(targets, predictions),
        "spearman": spearman(targets, predictions),
    }
