"""Classifiers of bags: fitted on the features of training bags, applied to others, written and read.

They predict any endpoint: `logreg` stands for the linear model of each, `knn` for its nearest neighbors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from slpd_core import artifacts
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.evaluation.features import ReadSlide
from slpd_core.evaluation.mean_classifiers import Arrays, build_mean_predictor, fit_knn, fit_linear
from slpd_core.evaluation.training import (
    HEAD,
    LR,
    Bags,
    TrainedNetwork,
    TrainingRecipe,
    Validation,
    choose_rate,
    train_network,
)
from slpd_core.evaluation.whitening import split_whitening
from slpd_core.runtime import fast_imports

TRAINING_RISKS = "training_risks"
# A bag's features, float32 (L, D) → its prediction, float64 (P,), and the attention to each instance, float64 (L,),
# which sums to 1; None unless the network is an AttentionClassifier.
PredictSlide = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class TrainingOptions(TypedDict, total=False):
    """Options of `fit_classifier`; the defaults are HIPT's where it has them."""

    epochs: int
    lr: float
    weight_decay: float
    dropout: float
    cox_batch_size: int
    knn_n_neighbors: int
    logreg_c: float
    linear_l2: float
    validation: Validation | None


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted classifier.

    Attributes:
        classifier: Its kind: knn, logreg, mil, abmil, dsmil or vit_wsi.
        endpoint: What it predicts.
        dim: D of the features that it reads.
        arrays: State dict of a network, or the fitted arrays of knn and logreg; of survival `training_risks`, the
            median and the standard deviation of the training bags' risks, (2,); and the arrays of a `Whitening` of the
            features, if they are whitened.
        chosen: Of a network, the epoch of its weights, from 1, and the learning rate, as texts.
    """

    classifier: str
    endpoint: Endpoint
    dim: int
    arrays: Arrays
    chosen: dict[str, str] = field(default_factory=dict)


def fit_classifier(
    read: ReadSlide,
    bags: Bags,
    endpoint: Endpoint,
    classifier: str,
    seed: int,
    *,
    epochs: int = 20,
    lr: float = LR,
    weight_decay: float = 3.2e-4,
    dropout: float = 0.25,
    cox_batch_size: int = 32,
    knn_n_neighbors: int = 5,
    logreg_c: float = 1.0,
    linear_l2: float = 100.0,
    validation: Validation | None = None,
) -> FittedClassifier:
    """Fit a classifier on bags.

    Args:
        read: Returns the features of a bag.
        bags: Training bags; they may lack some classes.
        endpoint: What to predict.
        classifier: knn, logreg, mil, abmil, dsmil or vit_wsi.
        seed: Of a network's weights, draws and dropout.
        epochs, lr, weight_decay, dropout, cox_batch_size: Of a network, as in `train_network`.
        knn_n_neighbors: As in `fit_knn`.
        logreg_c, linear_l2: As in `fit_linear`.
        validation: Bags that choose a network's epoch and learning rate, by the lowest loss; None for the last epoch.

    Returns:
        The fitted classifier.

    Raises:
        ValueError: The validation loss is finite after no epoch of any learning rate.
    """
    dim = read(bags.ids[0]).shape[1]
    if classifier in ("knn", "logreg"):
        means = np.stack([read(bag).mean(0) for bag in bags.ids])
        if classifier == "knn":
            arrays = fit_knn(means, bags.targets, knn_n_neighbors)
        else:
            arrays = fit_linear(means, bags.targets, endpoint, logreg_c=logreg_c, linear_l2=linear_l2)
        return _add_training_risks(FittedClassifier(classifier, endpoint, dim, arrays), read, bags)

    def train(rate: float) -> TrainedNetwork:
        recipe = TrainingRecipe(
            epochs=epochs, lr=rate, weight_decay=weight_decay, dropout=dropout, cox_batch_size=cox_batch_size
        )
        return train_network(read, bags, endpoint, dim, classifier, seed, validation=validation, **recipe)

    rates = validation.lr_grid if validation and validation.lr_grid else (lr,)
    best = choose_rate(train, rates, name=classifier)
    chosen = {"epoch": str(best.epoch), "lr": f"{best.lr:g}"}
    return _add_training_risks(FittedClassifier(classifier, endpoint, dim, best.arrays, chosen), read, bags)


def _add_training_risks(model: FittedClassifier, read: ReadSlide, bags: Bags) -> FittedClassifier:
    """The classifier with the scale of its training bags' risks, if it predicts survival."""
    if model.endpoint.kind != "survival":
        return model
    predict = build_predictor(model)
    risks = np.concatenate([predict(read(bag))[0] for bag in bags.ids])
    scale = np.array([np.median(risks), risks.std() or 1.0])
    return replace(model, arrays=model.arrays | {TRAINING_RISKS: scale})


def build_predictor(model: FittedClassifier) -> PredictSlide:
    """Build the function that predicts a bag with a fitted classifier.

    Args:
        model: The fitted classifier.

    Returns:
        A function from features to prediction and attention; it whitens the features if they are to be.
    """
    whitening, arrays = split_whitening(model.arrays)
    if whitening is not None:
        predict_whitened = build_predictor(replace(model, arrays=arrays))
        return lambda bag: predict_whitened(whitening(bag))
    if model.classifier not in ("knn", "logreg"):
        predict = _network_predictor(model)
    else:
        from_means = build_mean_predictor(model.classifier, model.endpoint, model.arrays)

        def predict(bag: np.ndarray) -> tuple[np.ndarray, None]:
            return from_means(bag.mean(0)[None])[0], None

    if TRAINING_RISKS not in model.arrays:
        return predict
    median, deviation = model.arrays[TRAINING_RISKS]

    def predict_on_scale(bag: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        risk, attention = predict(bag)
        return (risk - median) / deviation, attention

    return predict_on_scale


def _network_predictor(model: FittedClassifier) -> PredictSlide:
    with fast_imports():
        import torch

        from slpd_core.evaluation import networks, task_heads

    tensors = {name: torch.from_numpy(array) for name, array in model.arrays.items() if name != TRAINING_RISKS}
    learned = {name.removeprefix(HEAD): tensors.pop(name) for name in [*tensors] if name.startswith(HEAD)}
    head = task_heads.build_head(model.endpoint)
    head.load_state_dict(learned)
    network = networks.build_network(model.classifier, model.dim, head.n_outputs, 0.0, 0).eval()
    network.load_state_dict(tensors)

    @torch.inference_mode()
    def predict(bag: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        instances, attention = torch.from_numpy(bag), None
        if isinstance(network, networks.AttentionClassifier):
            outputs, attention = network.forward_with_attention(instances)
        else:
            outputs = network(instances)
        prediction = head.predict(outputs[None])[0].double().numpy()
        return prediction, None if attention is None else attention.double().numpy()

    return predict


def write_classifier(path: Path, model: FittedClassifier, meta: artifacts.Meta) -> None:
    """Write a fitted classifier.

    Args:
        path: A .safetensors file.
        model: The fitted classifier.
        meta: Its metadata, texts only.
    """
    description = {"classifier": model.classifier, "dim": str(model.dim)}
    artifacts.write_weights(path, model.arrays, meta | description | model.endpoint.meta | model.chosen)


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
    return FittedClassifier(meta["classifier"], read_endpoint(meta), int(meta["dim"]), arrays), meta
