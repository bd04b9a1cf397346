"""Slide classifiers: fitted on the features of training slides, applied to others, written and read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from slpd_core import artifacts
from slpd_core.evaluation.features import ReadSlide
from slpd_core.evaluation.training import LR, TrainedNetwork, TrainingRecipe, Validation, choose_rate, train_network
from slpd_core.runtime import fast_imports

# A slide's features, float32 (L, D) → probabilities, float64 (C,), and the attention to each instance, float64 (L,),
# which sums to 1; None unless the network is an AttentionClassifier.
PredictSlide = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class TrainingOptions(TypedDict, total=False):
    """Options of `fit_classifier`; the defaults are HIPT's, but for `logreg_c` (HIPT has no logistic regression)."""

    epochs: int
    lr: float
    weight_decay: float
    dropout: float
    knn_n_neighbors: int
    logreg_c: float
    validation: Validation | None


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted classifier.

    Attributes:
        classifier: Its kind: knn, logreg, mil, abmil, dsmil or vit_wsi.
        classes: Class names, sorted, of all folds.
        dim: D of the features that it reads.
        arrays: State dict of a network, or the fitted arrays of knn and logreg.
        chosen: Of a network, the epoch of its weights, from 1, and the learning rate, as texts.
    """

    classifier: str
    classes: list[str]
    dim: int
    arrays: dict[str, np.ndarray]
    chosen: dict[str, str] = field(default_factory=dict)


def fit_classifier(
    read: ReadSlide,
    slide_ids: Sequence[str],
    labels: np.ndarray,
    classes: list[str],
    classifier: str,
    seed: int,
    *,
    epochs: int = 20,
    lr: float = LR,
    weight_decay: float = 3.2e-4,
    dropout: float = 0.25,
    knn_n_neighbors: int = 5,
    logreg_c: float = 1.0,
    validation: Validation | None = None,
) -> FittedClassifier:
    """Fit a classifier on slides.

    Args:
        read: Returns the features of a slide.
        slide_ids: Training slides.
        labels: Their class indices, int64 (slides,).
        classes: Labels of the classes; the training slides may lack some.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        seed: Of a network's weights, draws and dropout.
        epochs, lr, weight_decay, dropout: Of a network, as in `train_network`.
        knn_n_neighbors: As in `fit_knn`.
        logreg_c: As in `fit_logreg`.
        validation: Slides that choose a network's epoch and learning rate, by the lowest loss; None for the last epoch.

    Returns:
        The fitted classifier.

    Raises:
        ValueError: The validation loss is finite after no epoch of any learning rate.
    """
    dim = read(slide_ids[0]).shape[1]
    if classifier in ("knn", "logreg"):
        means = np.stack([read(slide_id).mean(0) for slide_id in slide_ids])
        arrays = fit_knn(means, labels, knn_n_neighbors) if classifier == "knn" else fit_logreg(means, labels, logreg_c)
        return FittedClassifier(classifier, classes, dim, arrays)
    size = dim, len(classes)

    def train(rate: float) -> TrainedNetwork:
        recipe = TrainingRecipe(epochs=epochs, lr=rate, weight_decay=weight_decay, dropout=dropout)
        return train_network(read, slide_ids, labels, size, classifier, seed, validation=validation, **recipe)

    rates = validation.lr_grid if validation and validation.lr_grid else (lr,)
    best = choose_rate(train, rates, name=classifier)
    return FittedClassifier(classifier, classes, dim, best.arrays, {"epoch": str(best.epoch), "lr": f"{best.lr:g}"})


def fit_knn(means: np.ndarray, labels: np.ndarray, n_neighbors: int = 5) -> dict[str, np.ndarray]:
    """Fit k nearest neighbors on unscaled mean features, as HIPT: keep the training slides.

    Args:
        means: Mean features of each slide, (slides, D).
        labels: Class indices, int64 (slides,).
        n_neighbors: At most as many as there are slides.

    Returns:
        means, labels and k.
    """
    return {"means": means, "labels": labels, "k": np.array([min(n_neighbors, len(means))])}


def fit_logreg(means: np.ndarray, labels: np.ndarray, c: float = 1.0) -> dict[str, np.ndarray]:
    """Fit logistic regression on standardized mean features, with L2 and balanced class weights.

    Args:
        means: Mean features of each slide, (slides, D).
        labels: Class indices, int64 (slides,).
        c: Inverse of the L2 strength.

    Returns:
        mean and scale of the features, (D,); coef and intercept; labels, the class indices of their rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(means)
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(means), labels)
    return {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "coef": model.coef_,
        "intercept": model.intercept_,
        "labels": model.classes_,
    }


def build_predictor(model: FittedClassifier) -> PredictSlide:
    """Build the function that predicts a slide with a fitted classifier.

    Args:
        model: The fitted classifier.

    Returns:
        A function from features to probabilities and attention.
    """
    if model.classifier == "knn":
        return _knn_predictor(model)
    return _logreg_predictor(model) if model.classifier == "logreg" else _network_predictor(model)


def _knn_predictor(model: FittedClassifier) -> PredictSlide:
    from sklearn.neighbors import KNeighborsClassifier

    means, labels, k = (model.arrays[name] for name in ("means", "labels", "k"))
    fitted = KNeighborsClassifier(n_neighbors=k.item()).fit(means, labels)

    def predict(slide: np.ndarray) -> tuple[np.ndarray, None]:
        probabilities = np.zeros(len(model.classes))
        probabilities[fitted.classes_] = fitted.predict_proba(slide.mean(0)[None])[0]
        return probabilities, None

    return predict


def _logreg_predictor(model: FittedClassifier) -> PredictSlide:
    from scipy.special import softmax

    names = ("mean", "scale", "coef", "intercept", "labels")
    mean, scale, coef, intercept, labels = (model.arrays[name] for name in names)

    def predict(slide: np.ndarray) -> tuple[np.ndarray, None]:
        logits = coef @ ((slide.mean(0) - mean) / scale) + intercept
        probabilities = np.zeros(len(model.classes))
        probabilities[labels] = softmax(logits if len(labels) > 2 else np.append(0, logits))
        return probabilities, None

    return predict


def _network_predictor(model: FittedClassifier) -> PredictSlide:
    with fast_imports():
        import torch

        from slpd_core.evaluation import networks

    tensors = {name: torch.from_numpy(array) for name, array in model.arrays.items()}
    network = networks.build_network(model.classifier, model.dim, len(model.classes), 0.0, 0).eval()
    network.load_state_dict(tensors)

    @torch.inference_mode()
    def predict(slide: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        instances = torch.from_numpy(slide)
        if not isinstance(network, networks.AttentionClassifier):
            return network(instances).softmax(0).double().numpy(), None
        logits, attention = network.forward_with_attention(instances)
        return logits.softmax(0).double().numpy(), attention.double().numpy()

    return predict


def write_classifier(path: Path, model: FittedClassifier, meta: artifacts.Meta) -> None:
    """Write a fitted classifier.

    Args:
        path: A .safetensors file.
        model: The fitted classifier.
        meta: Its metadata, texts only.
    """
    description = {"classifier": model.classifier, "classes": json.dumps(model.classes), "dim": str(model.dim)}
    artifacts.write_weights(path, model.arrays, meta | description | model.chosen)


def read_classifier(path: Path) -> tuple[FittedClassifier, artifacts.Meta]:
    """Read a fitted classifier.

    Args:
        path: A file of `write_classifier`.

    Returns:
        The classifier and its metadata.

    Raises:
        ValueError: The file is broken or holds something else.
    """
    arrays, meta = artifacts.read_weights(path)
    if "classifier" not in meta:
        raise ValueError(f"{path}: no trained classifier; {artifacts.rebuild_hint(path)}")
    return FittedClassifier(meta["classifier"], json.loads(meta["classes"]), int(meta["dim"]), arrays), meta
