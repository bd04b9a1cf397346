"""What is measured of embedded regions whose truth is known."""

from typing import Any

import numpy as np

N_NEIGHBORS, REGION_NEIGHBORS, REPEATS = 5, 10, 4


def slide_means(embedded: np.ndarray, slide_of: np.ndarray) -> np.ndarray:
    """Average the regions (R, D) of each slide, (N, D)."""
    return np.stack([embedded[slide_of == slide].mean(0) for slide in np.unique(slide_of)])


def cross_validated_auc(features: np.ndarray, labels: np.ndarray, model: Any, seed: int) -> float:
    """Return the AUC of out-of-fold probabilities, the mean of REPEATS times five folds."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    scores = []
    for repeat in range(REPEATS):
        folds = StratifiedKFold(5, shuffle=True, random_state=100 * seed + repeat)
        predicted = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")[:, 1]
        scores.append(roc_auc_score(labels, predicted))
    return float(np.mean(scores))


def transferred_auc(features: np.ndarray, labels: np.ndarray, train: np.ndarray, model: Any) -> float:
    """Return the AUC of a model fitted on some slides, on the others."""
    from sklearn.metrics import roc_auc_score

    predicted = model.fit(features[train], labels[train]).predict_proba(features[~train])[:, 1]
    return float(roc_auc_score(labels[~train], predicted))


def variance_between(embedded: np.ndarray, groups: np.ndarray) -> float:
    """Return the fraction of the variance between groups (eta squared)."""
    centred = embedded - embedded.mean(0)
    within = sum(((centred[groups == g] - centred[groups == g].mean(0)) ** 2).sum() for g in np.unique(groups))
    return float(1 - within / (centred**2).sum())


def neighbor_votes(embedded: np.ndarray, slide_of: np.ndarray, kind: np.ndarray, k: int, kinds: int) -> np.ndarray:
    """Count the kinds among each region's k nearest by cosine in other slides, (R, kinds)."""
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    cosine = np.where(slide_of[:, None] == slide_of, -np.inf, unit @ unit.T)
    nearest = kind[np.argsort(-cosine, axis=1, kind="stable")[:, :k]]
    return np.stack([(nearest == each).sum(1) for each in range(kinds)], 1)


def linear_probe() -> Any:
    """Return a logistic regression that chooses its regularization by cross-validation."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=[1e-3, 1e-2, 1e-1, 1.0], cv=4, max_iter=2000))


def classifiers() -> dict[str, Any]:
    """Return the classifiers of slides: k-NN, the primary measure's, and a linear probe."""
    from sklearn.neighbors import KNeighborsClassifier

    return {"kNN AUC": KNeighborsClassifier(N_NEIGHBORS), "LR AUC": linear_probe()}


def measure(
    embedded: np.ndarray,
    slide_of: np.ndarray,
    labels: np.ndarray,
    phenotype: np.ndarray,
    seed: int,
    train: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure embedded regions (R, D); with `train` (slides,) classifiers learn of these slides for the rest."""
    slides = slide_means(embedded, slide_of)
    scores = {
        name: cross_validated_auc(slides, labels, model, seed)
        if train is None
        else transferred_auc(slides, labels, train, model)
        for name, model in classifiers().items()
    }
    permuted = np.random.default_rng(seed).permutation(labels)
    votes = neighbor_votes(embedded, slide_of, phenotype, REGION_NEIGHBORS, phenotype.max() + 1)
    return scores | {
        "permuted": cross_validated_auc(slides, permuted, classifiers()["kNN AUC"], seed),
        "phenotype": float((votes.argmax(1) == phenotype).mean()),
        "eta2 phenotype": variance_between(embedded, phenotype),
        "eta2 slide": variance_between(embedded, slide_of),
    }
