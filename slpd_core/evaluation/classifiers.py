"""Models: a classifier trained on one fold, what it predicts of a slide, and the file it is kept in."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slpd_core import artifacts, config
from slpd_core.evaluation.features import ReadSlide
from slpd_core.runtime import fast_imports, generator, progress

# A slide's features, float32 (L, D) → probabilities, float64 (C,), and the attention to each instance, float64 (L,),
# which sums to 1; None of a classifier without attention.
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class FittedClassifier:
    """A trained classifier.

    classes: the sorted labels of all folds. dim: D of the features it reads. arrays: the state dict of a network; of a
    classifier of means, what it holds of the training slides.
    """

    classifier: str
    classes: list[str]
    dim: int
    arrays: dict[str, np.ndarray]


def train(
    read: ReadSlide,
    slide_ids: Sequence[str],
    labels: np.ndarray,
    classes: list[str],
    classifier: str,
    section: config.ClassifierTrainingConfig,
    seed: int,
) -> FittedClassifier:
    """Train a classifier on slides; labels: their class indices, int64 (slides,)."""
    dim = read(slide_ids[0]).shape[1]
    if classifier in ("knn", "logreg"):
        means = np.stack([read(slide).mean(0) for slide in slide_ids])
        arrays = neighbours(means, labels, section) if classifier == "knn" else regression(means, labels, section)
    else:
        arrays = train_network(read, slide_ids, labels, (dim, len(classes)), classifier, section, seed)
    return FittedClassifier(classifier, classes, dim, arrays)


def neighbours(
    means: np.ndarray, labels: np.ndarray, section: config.ClassifierTrainingConfig
) -> dict[str, np.ndarray]:
    """k nearest neighbours, unscaled, as HIPT: the training slides themselves. means: (slides, D)."""
    return {"means": means, "labels": labels, "k": np.array([min(section.knn_n_neighbors, len(means))])}


def regression(
    means: np.ndarray, labels: np.ndarray, section: config.ClassifierTrainingConfig
) -> dict[str, np.ndarray]:
    """Logistic regression with L2 on standardised embeddings, all classes of the same weight. means: (slides, D)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(means)
    model = LogisticRegression(C=section.logreg_c, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(means), labels)
    return {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "coef": model.coef_,
        "intercept": model.intercept_,
        "labels": model.classes_,
    }


def sample_slides(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One epoch: as many draws as slides, with replacement, each class equally likely; int64 (slides,)."""
    weight = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=weight / weight.sum())


def train_network(
    read: ReadSlide,
    slide_ids: Sequence[str],
    labels: np.ndarray,
    size: tuple[int, int],
    classifier: str,
    section: config.ClassifierTrainingConfig,
    seed: int,
) -> dict[str, np.ndarray]:
    """Train MIL, ABMIL, DS-MIL or ViT_WSI, one slide a step; gives its state dict. size: D and C."""
    with fast_imports():
        import torch
        import torch.nn.functional as F

        from slpd_core.evaluation import networks

    network = networks.build(classifier, *size, section.dropout, seed).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=section.lr, weight_decay=section.weight_decay, fused=True)
    targets = torch.from_numpy(labels)

    def draws() -> Iterator[int]:
        for epoch in range(section.epochs):
            yield from sample_slides(labels, generator(seed, "evaluate", epoch)).tolist()

    for slide in progress(draws(), section.epochs * len(slide_ids), classifier, "slides"):
        logits = network(torch.from_numpy(read(slide_ids[slide])))
        loss = F.cross_entropy(logits[None], targets[slide : slide + 1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def predictor(model: FittedClassifier) -> Predict:
    """What a trained classifier makes of a slide."""
    if model.classifier == "knn":
        return _knn_predictor(model)
    return _logreg_predictor(model) if model.classifier == "logreg" else _network_predictor(model)


def _knn_predictor(model: FittedClassifier) -> Predict:
    from sklearn.neighbors import KNeighborsClassifier

    means, labels, k = (model.arrays[name] for name in ("means", "labels", "k"))
    fitted = KNeighborsClassifier(n_neighbors=k.item()).fit(means, labels)

    def predict(slide: np.ndarray) -> tuple[np.ndarray, None]:
        probabilities = np.zeros(len(model.classes))
        probabilities[fitted.classes_] = fitted.predict_proba(slide.mean(0)[None])[0]
        return probabilities, None

    return predict


def _logreg_predictor(model: FittedClassifier) -> Predict:
    from scipy.special import softmax

    mean, scale, coef, intercept, labels = (
        model.arrays[name] for name in ("mean", "scale", "coef", "intercept", "labels")
    )

    def predict(slide: np.ndarray) -> tuple[np.ndarray, None]:
        logits = coef @ ((slide.mean(0) - mean) / scale) + intercept
        probabilities = np.zeros(len(model.classes))
        probabilities[labels] = softmax(logits if len(labels) > 2 else np.append(0, logits))
        return probabilities, None

    return predict


def _network_predictor(model: FittedClassifier) -> Predict:
    with fast_imports():
        import torch

        from slpd_core.evaluation import networks

    tensors = {name: torch.from_numpy(array) for name, array in model.arrays.items()}
    network = networks.build(model.classifier, model.dim, len(model.classes), 0.0, 0).eval()
    network.load_state_dict(tensors)

    @torch.inference_mode()
    def predict(slide: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        instances = torch.from_numpy(slide)
        if not isinstance(network, networks.AttentionClassifier):
            return network(instances).softmax(0).double().numpy(), None
        logits, attention = network.with_attention(instances)
        return logits.softmax(0).double().numpy(), attention.double().numpy()

    return predict


def write(path: Path, model: FittedClassifier, meta: artifacts.Meta) -> None:
    """Write a trained classifier; meta: texts only."""
    own = {"classifier": model.classifier, "classes": json.dumps(model.classes), "dim": str(model.dim)}
    artifacts.write_weights(path, model.arrays, meta | own)


def read(path: Path) -> tuple[FittedClassifier, artifacts.Meta]:
    """Read a trained classifier and its metadata.

    Raises ValueError when the file is broken or holds something else.
    """
    arrays, meta = artifacts.read_weights(path)
    if "classifier" not in meta:
        raise ValueError(f"{path}: no trained classifier; {artifacts.rebuild_hint(path)}")
    return FittedClassifier(meta["classifier"], json.loads(meta["classes"]), int(meta["dim"]), arrays), meta
