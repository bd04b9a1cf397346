"""What a network learns for each kind of endpoint: its outputs, the loss of a batch of bags, and its predictions."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.regression import target_scale
from slpd_core.evaluation.losses import (
    OrderedThresholds,
    cox_loss,
    ordinal_log_probabilities,
    ordinal_loss,
    standardized_loss,
)


class TaskHead(nn.Module):
    """The head of an endpoint.

    Attributes:
        n_outputs: Outputs K of the network per bag.
    """

    n_outputs = 1

    def draw_epoch(self, targets: np.ndarray, rng: np.random.Generator, batch_size: int) -> list[list[int]]:
        """Draw the batches of an epoch: each bag once, in random order, one per step.

        Args:
            targets: As `Endpoint.encode` returns them, of n bags.
            rng: Draws the order.
            batch_size: Bags per step, where the loss needs several.

        Returns:
            Indices of the bags of each step; n in all.
        """
        return [[i] for i in rng.permutation(len(targets)).tolist()]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            outputs: Of the network, (B, K).
            targets: As `Endpoint.encode` returns them, of B bags.

        Returns:
            Mean over the bags, a scalar.
        """
        raise NotImplementedError

    def predict(self, outputs: Tensor) -> Tensor:
        """Compute predictions.

        Args:
            outputs: Of the network, (B, K).

        Returns:
            (B, P), in the order of `Endpoint.prediction_columns`.
        """
        return outputs


class ClassificationHead(TaskHead):
    """Cross-entropy; an epoch draws bags with replacement, each class equally likely, as HIPT."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_outputs = n_classes

    def draw_epoch(self, targets: np.ndarray, rng: np.random.Generator, batch_size: int) -> list[list[int]]:
        """Draw as many bags as there are, with replacement, each class equally likely."""
        weight = 1 / np.bincount(targets)[targets]
        return [[i] for i in rng.choice(len(targets), len(targets), p=weight / weight.sum()).tolist()]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """Compute probabilities."""
        return outputs.softmax(1)


class OrdinalHead(TaskHead):
    """Likelihood of ordered classes, by thresholds that are learned."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.thresholds = OrderedThresholds(n_classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log-likelihood."""
        return ordinal_loss(outputs[:, 0], self.thresholds(), targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """Compute probabilities."""
        return ordinal_log_probabilities(outputs[:, 0], self.thresholds()).exp()


class RegressionHead(TaskHead):
    """Squared error of standardized numbers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, targets: np.ndarray) -> None:
        super().__init__()
        for name, value in zip(("mean", "scale"), target_scale(targets), strict=True):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean squared error."""
        return standardized_loss(outputs[:, 0], targets, mean=self.mean.item(), scale=self.scale.item())

    def predict(self, outputs: Tensor) -> Tensor:
        """Return to the unit of the numbers."""
        return outputs.double() * self.scale + self.mean


class SurvivalHead(TaskHead):
    """Cox's partial likelihood; each step has events and cases that outlive them."""

    def draw_epoch(self, targets: np.ndarray, rng: np.random.Generator, batch_size: int) -> list[list[int]]:
        """Deal bags with and without an event to steps of about `batch_size`, each with an event; each bag once."""
        event = targets[:, 1] > 0
        order = np.concatenate([rng.permutation(np.flatnonzero(side)) for side in (event, ~event)])
        steps = min(max(1, round(len(targets) / batch_size)), max(1, int(event.sum())))
        return [order[step::steps].tolist() for step in range(steps)]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log partial likelihood per event."""
        return cox_loss(outputs[:, 0], targets[:, 0], targets[:, 1])


def build_head(endpoint: Endpoint, targets: np.ndarray | None = None) -> TaskHead:
    """Build the head of an endpoint.

    Args:
        endpoint: Of the task.
        targets: Of the training bags, as `Endpoint.encode` returns them; None for one whose state is loaded.

    Returns:
        The head.
    """
    if endpoint.kind == "classification":
        return ClassificationHead(len(endpoint.classes))
    if endpoint.kind == "ordinal":
        return OrdinalHead(len(endpoint.classes))
    return (
        SurvivalHead() if endpoint.kind == "survival" else RegressionHead(np.zeros(2) if targets is None else targets)
    )
