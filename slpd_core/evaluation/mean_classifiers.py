"""Classifiers of mean features: nearest neighbors, and the linear model of each endpoint."""

from collections.abc import Callable

import numpy as np

from slpd_core.endpoints.cox import fit_cox, predict_cox
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.neighbors import predict_knn_regression, predict_knn_risk
from slpd_core.endpoints.regression import fit_ridge, predict_ridge

Arrays = dict[str, np.ndarray]
PredictMeans = Callable[[np.ndarray], np.ndarray]  # mean features of one bag, (1, D) → its prediction, (1, P)


def fit_knn(means: np.ndarray, targets: np.ndarray, n_neighbors: int = 5) -> Arrays:
    """Fit k nearest neighbors on unscaled mean features, as HIPT: keep the training bags.

    Args:
        means: Mean features of each bag, (bags, D).
        targets: As `Endpoint.encode` returns them, (bags, ...).
        n_neighbors: At most as many as there are bags.

    Returns:
        means, targets and k.
    """
    return {"means": means, "targets": targets, "k": np.array([min(n_neighbors, len(means))])}


def fit_logreg(means: np.ndarray, labels: np.ndarray, c: float = 1.0, *, unlabeled: np.ndarray | None = None) -> Arrays:
    """Fit logistic regression on standardized mean features, with L2 and balanced class weights.

    Args:
        means: Mean features of each slide, (slides, D).
        labels: Class indices, int64 (slides,).
        c: Inverse of the L2 strength.
        unlabeled: Mean features that these are standardized by, (n, D); by default themselves.

    Returns:
        mean and scale of the features, (D,); coef and intercept; labels, the class indices of their rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(means if unlabeled is None else unlabeled)
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(means), labels)
    return {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "coef": model.coef_,
        "intercept": model.intercept_,
        "labels": model.classes_,
    }


def fit_linear(
    means: np.ndarray, targets: np.ndarray, endpoint: Endpoint, *, logreg_c: float = 1.0, linear_l2: float = 100.0
) -> Arrays:
    """Fit the linear model of an endpoint: logistic regression of classes, ridge regression, Cox regression.

    Args:
        means, targets: As in `fit_knn`.
        endpoint: What to predict.
        logreg_c: As in `fit_logreg`.
        linear_l2: L2 of ridge and of Cox regression, as in `fit_ridge` and `fit_cox`.

    Returns:
        The fitted arrays.
    """
    if endpoint.has_classes:
        return fit_logreg(means, targets, logreg_c)
    if endpoint.kind == "regression":
        return fit_ridge(means, targets, l2=linear_l2)
    return fit_cox(means, targets[:, 0], targets[:, 1] > 0, l2=linear_l2)


def build_mean_predictor(classifier: str, endpoint: Endpoint, arrays: Arrays) -> PredictMeans:
    """Build the function that predicts from mean features.

    Args:
        classifier: knn or logreg.
        endpoint: What it predicts.
        arrays: As `fit_knn` or `fit_linear` returns them.

    Returns:
        A function from the mean features of one bag, (1, D), to its prediction, (1, P).
    """
    return (_knn_predictor if classifier == "knn" else _linear_predictor)(endpoint, arrays)


def _knn_predictor(endpoint: Endpoint, arrays: Arrays) -> PredictMeans:
    means, targets, k = (arrays[name] for name in ("means", "targets", "k"))
    if endpoint.kind == "regression":
        return lambda bag: predict_knn_regression(means, targets, bag, n_neighbors=k.item())[:, None]
    if endpoint.kind == "survival":
        time, event = targets[:, 0], targets[:, 1] > 0
        return lambda bag: predict_knn_risk(means, time, event, bag, n_neighbors=k.item())[:, None]
    from sklearn.neighbors import KNeighborsClassifier

    fitted = KNeighborsClassifier(n_neighbors=k.item()).fit(means, targets)

    def predict(bag: np.ndarray) -> np.ndarray:
        probabilities = np.zeros((len(bag), len(endpoint.classes)))
        probabilities[:, fitted.classes_] = fitted.predict_proba(bag)
        return probabilities

    return predict


def _linear_predictor(endpoint: Endpoint, arrays: Arrays) -> PredictMeans:
    if endpoint.kind == "regression":
        return lambda bag: predict_ridge(arrays, bag)[:, None]
    if endpoint.kind == "survival":
        return lambda bag: predict_cox(arrays, bag)[:, None]
    from scipy.special import softmax

    names = ("mean", "scale", "coef", "intercept", "labels")
    mean, scale, coef, intercept, labels = (arrays[name] for name in names)

    def predict(bag: np.ndarray) -> np.ndarray:
        logits = coef @ ((bag[0] - mean) / scale) + intercept
        probabilities = np.zeros((1, len(endpoint.classes)))
        probabilities[:, labels] = softmax(logits if len(labels) > 2 else np.append(0, logits))
        return probabilities

    return predict
