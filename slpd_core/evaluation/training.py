"""The training of a classifier's network by Adam: to the last epoch, or to the best on validation slides."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from slpd_core.evaluation.features import ReadSlide
from slpd_core.runtime import fast_imports, generator, progress

if TYPE_CHECKING:
    from torch import nn

LR = 2e-4  # of Adam, as in HIPT (Chen et al., CVPR 2022)


@dataclass(frozen=True)
class Validation:
    """The slides that choose an epoch and a learning rate.

    Attributes:
        slide_ids: Slides that neither train nor test.
        labels: Their class indices, int64 (slides,).
        lr_grid: Learning rates to choose from; none: that of the settings.
    """

    slide_ids: Sequence[str]
    labels: np.ndarray
    lr_grid: Sequence[float] = ()


class TrainingRecipe(TypedDict, total=False):
    """Keywords of `train_network`, but for the validation slides."""

    epochs: int
    lr: float
    weight_decay: float
    dropout: float


class TrainedNetwork(NamedTuple):
    """A trained network.

    Attributes:
        arrays: Its state dict.
        epoch: The epoch after which it had these weights, from 1.
        lr: The learning rate.
        loss: Mean cross-entropy of the validation slides; nan without any.
    """

    arrays: dict[str, np.ndarray]
    epoch: int
    lr: float
    loss: float


def sample_epoch(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the slides of an epoch with replacement, each class equally likely.

    Args:
        labels: Class indices, int64 (slides,).
        rng: Draws the slides.

    Returns:
        As many slide indices as slides, int64 (slides,).
    """
    weight = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=weight / weight.sum())


def train_network(
    read: ReadSlide,
    slide_ids: Sequence[str],
    labels: np.ndarray,
    size: tuple[int, int],
    classifier: str,
    seed: int,
    *,
    epochs: int = 20,
    lr: float = LR,
    weight_decay: float = 3.2e-4,
    dropout: float = 0.25,
    validation: Validation | None = None,
) -> TrainedNetwork:
    """Train MIL, ABMIL, DS-MIL or ViT_WSI with Adam, one slide per step.

    Args:
        read, slide_ids, labels, classifier, seed: As in `fit_classifier`.
        size: D of the features and C.
        epochs: Passes; each draws as many slides as there are.
        lr: Learning rate of Adam.
        weight_decay: L2 inside Adam.
        dropout: Rate of all dropout layers.
        validation: Slides that choose the epoch of lowest loss, the first of equal ones; None for the last epoch, as
            HIPT. They do not change the training.

    Returns:
        The network, as it was after the epoch; without arrays if the validation loss is finite after no epoch.
    """
    with fast_imports():
        import torch
        import torch.nn.functional as F

        from slpd_core.evaluation import networks

    network = networks.build_network(classifier, *size, dropout, seed).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    targets = torch.from_numpy(labels)
    best = TrainedNetwork({}, 0, lr, math.inf)

    def draws() -> Iterator[int]:
        for epoch in range(epochs):
            yield from sample_epoch(labels, generator(seed, "evaluate", epoch)).tolist()

    steps = progress(draws(), epochs * len(slide_ids), classifier, "slides")
    for step, i in enumerate(steps, start=1):
        logits = network(torch.from_numpy(read(slide_ids[i])))
        loss = F.cross_entropy(logits[None], targets[i : i + 1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if validation and step % len(slide_ids) == 0:
            mean = validation_loss(network, read, validation)
            if mean < best.loss:
                best = TrainedNetwork(_copy_arrays(network), step // len(slide_ids), lr, mean)
    if not validation:
        return TrainedNetwork(_copy_arrays(network), epochs, lr, math.nan)
    return best


def choose_rate(train: Callable[[float], TrainedNetwork], rates: Sequence[float], *, name: str) -> TrainedNetwork:
    """Train a network per learning rate, and choose that of the lowest validation loss.

    Args:
        train: Trains by a learning rate, as `train_network`.
        rates: Learning rates; more than one need validation slides.
        name: Of the classifier, for the error.

    Returns:
        The network; the first of equal ones.

    Raises:
        ValueError: The validation loss is finite after no epoch of any rate.
    """
    best = min(map(train, rates), key=lambda network: network.loss)
    if not best.arrays:
        setting, shown = "lr_grid" if len(rates) > 1 else "lr", ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(f"{name} diverged while training; lower evaluate.{setting} ({shown})")
    return best


def validation_loss(network: "nn.Module", read: ReadSlide, validation: Validation) -> float:
    """Compute the mean cross-entropy of the validation slides, without dropout.

    Args:
        network: In training mode, which it keeps.
        read: Returns the features of a slide.
        validation: The slides.

    Returns:
        The loss.
    """
    import torch
    import torch.nn.functional as F

    network.eval()
    with torch.inference_mode():
        logits = torch.stack([network(torch.from_numpy(read(slide_id))) for slide_id in validation.slide_ids])
        loss = F.cross_entropy(logits, torch.from_numpy(validation.labels)).item()
    network.train()
    return loss


def _copy_arrays(network: "nn.Module") -> dict[str, np.ndarray]:
    """The state dict as arrays of their own."""
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
