"""The training of a classifier's network by Adam: to the last epoch, or to the best on validation bags."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.evaluation.features import ReadSlide
from slpd_core.runtime import fast_imports, generator, progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slpd_core.evaluation.task_heads import TaskHead

LR = 2e-4  # of Adam, as in HIPT (Chen et al., CVPR 2022)
HEAD = "head."  # before the names of a head's arrays


@dataclass(frozen=True)
class Bags:
    """Bags of instances, each of a slide or of a patient's slides.

    Attributes:
        ids: By which features are read.
        targets: Their truth, as `Endpoint.encode` returns it, (bags, ...).
    """

    ids: Sequence[str]
    targets: np.ndarray


@dataclass(frozen=True)
class Validation:
    """The bags that choose an epoch and a learning rate.

    Attributes:
        bags: They neither train nor test.
        lr_grid: Learning rates to choose from; none: that of the settings.
    """

    bags: Bags
    lr_grid: Sequence[float] = ()


class TrainingRecipe(TypedDict, total=False):
    """Keywords of `train_network`, but for the validation slides."""

    epochs: int
    lr: float
    weight_decay: float
    dropout: float
    cox_batch_size: int


class TrainedNetwork(NamedTuple):
    """A trained network.

    Attributes:
        arrays: Its state dict, and that of the head after `HEAD`.
        epoch: The epoch after which it had these weights, from 1.
        lr: The learning rate.
        loss: Of the validation bags; nan without any.
    """

    arrays: dict[str, np.ndarray]
    epoch: int
    lr: float
    loss: float


def train_network(
    read: ReadSlide,
    bags: Bags,
    endpoint: Endpoint,
    dim: int,
    classifier: str,
    seed: int,
    *,
    epochs: int = 20,
    lr: float = LR,
    weight_decay: float = 3.2e-4,
    dropout: float = 0.25,
    cox_batch_size: int = 32,
    validation: Validation | None = None,
) -> TrainedNetwork:
    """Train MIL, ABMIL, DS-MIL or ViT_WSI with Adam, one bag per step; several for survival.

    Args:
        read, bags, endpoint, classifier, seed: As in `fit_classifier`.
        dim: D of the features.
        epochs: Passes; each draws as many bags as there are.
        lr: Learning rate of Adam.
        weight_decay: L2 inside Adam.
        dropout: Rate of all dropout layers.
        cox_batch_size: Bags per step of Cox's partial likelihood, which compares them.
        validation: Bags that choose the epoch of lowest loss, the first of equal ones; None for the last epoch, as
            HIPT. They do not change the training.

    Returns:
        The network, as it was after the epoch; without arrays if the validation loss is finite after no epoch.
    """
    with fast_imports():
        import torch

        from slpd_core.evaluation import networks, task_heads

    head = task_heads.build_head(endpoint, bags.targets)
    network = networks.build_network(classifier, dim, head.n_outputs, dropout, seed).train()
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    targets = torch.from_numpy(bags.targets)
    best = TrainedNetwork({}, 0, lr, math.inf)

    rngs = (generator(seed, "evaluate", epoch) for epoch in range(epochs))
    drawn = [head.draw_epoch(bags.targets, rng, cox_batch_size) for rng in rngs]
    steps = ((epoch, batch) for epoch, batches in enumerate(drawn, start=1) for batch in batches)
    for epoch, batch in progress(steps, sum(map(len, drawn)), classifier, "steps"):
        optimizer.zero_grad(set_to_none=True)
        backward_bags(network, head, lambda i: torch.from_numpy(read(bags.ids[i])), batch, targets)
        optimizer.step()
        if validation and batch is drawn[epoch - 1][-1]:
            mean = validation_loss(network, head, read, validation.bags)
            if mean < best.loss:
                best = TrainedNetwork(_copy_arrays(network, head), epoch, lr, mean)
    if not validation:
        return TrainedNetwork(_copy_arrays(network, head), epochs, lr, math.nan)
    return best


def backward_bags(
    network: "nn.Module", head: "TaskHead", read: Callable[[int], "Tensor"], batch: Sequence[int], targets: "Tensor"
) -> None:
    """Add the gradients of a batch's loss, with the activations of one bag in memory at a time.

    Several bags are passed twice: first for their outputs alone, then, by the same dropout, for the gradients.

    Args:
        network: In training mode.
        head: What it learns.
        read: Returns the features of a bag by its index, (L, D).
        batch: Indices of the bags.
        targets: Of all bags.
    """
    import torch

    from slpd_core.evaluation.networks import dropout_generator

    if len(batch) == 1:
        head.loss(network(read(batch[0]))[None], targets[batch]).backward()
        return
    dropout, states, outputs = dropout_generator(network).bit_generator, [], []
    with torch.no_grad():
        for i in batch:
            states.append(dropout.state)
            outputs.append(network(read(i)))
    joined = torch.stack(outputs).requires_grad_()
    head.loss(joined, targets[batch]).backward()
    assert joined.grad is not None
    for i, state, gradient in zip(batch, states, joined.grad, strict=True):
        dropout.state = state
        network(read(i)).backward(gradient)


def choose_rate(train: Callable[[float], TrainedNetwork], rates: Sequence[float], *, name: str) -> TrainedNetwork:
    """Train a network per learning rate, and choose that of the lowest validation loss.

    Args:
        train: Trains by a learning rate, as `train_network`.
        rates: Learning rates; more than one need validation bags.
        name: Of the classifier, for the error.

    Returns:
        The network; the first of equal ones.

    Raises:
        ValueError: The validation loss is finite after no epoch of any rate.
    """
    tried = progress(map(train, rates), len(rates), name, "learning rates")
    best = min(tried, key=lambda network: network.loss)
    if not best.arrays:
        setting, shown = "lr_grid" if len(rates) > 1 else "lr", ", ".join(f"{rate:g}" for rate in rates)
        raise ValueError(f"{name} diverged while training; lower evaluate.{setting} ({shown})")
    return best


def validation_loss(network: "nn.Module", head: "TaskHead", read: ReadSlide, bags: Bags) -> float:
    """Compute the loss of the validation bags, without dropout.

    Args:
        network: In training mode, which it keeps.
        head: What it learns.
        read: Returns the features of a bag.
        bags: Validation bags.

    Returns:
        The loss.
    """
    import torch

    network.eval()
    with torch.inference_mode():
        outputs = torch.stack([network(torch.from_numpy(read(bag))) for bag in bags.ids])
        loss = head.loss(outputs, torch.from_numpy(bags.targets)).item()
    network.train()
    return loss


def _copy_arrays(network: "nn.Module", head: "TaskHead") -> dict[str, np.ndarray]:
    """The state dicts, copied."""
    state = network.state_dict() | head.state_dict(prefix=HEAD)
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}
