"""What a stage of pretraining is to the trainer: stage one (patch encoder) and stage two (region encoder)."""

from collections.abc import Generator
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import StudentTeacher


class Objective(Protocol):
    """The loss of a stage."""

    def backward(self, networks: StudentTeacher, batch: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the centers.

        Args:
            networks: Student and teacher; the centers move in place.
            batch: As `PretrainingStage.load` yields it.

        Returns:
            The loss first, then its parts, each ().
        """
        ...


class PretrainingStage(Protocol):
    """All that stage one and stage two do differently. Both derive from it; where it says so, doing nothing is right.

    Attributes:
        unit: What a sample is called in logs and errors: regions or patches.
        config_key: The section of the config that errors name.
        networks: Student and teacher.
        objective: The loss.
        recipe: Epochs, batch size and schedules.
    """

    unit: ClassVar[str]
    config_key: ClassVar[str]
    networks: StudentTeacher
    objective: Objective
    recipe: Recipe

    def __len__(self) -> int:
        """Return the number of rows to train on."""
        ...

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Prepare an epoch; not called for an epoch that is resumed midway, which `load_state_dict` restores.

        Args:
            epoch: From 0.

        Returns:
            Columns of its history row; here none.
        """
        return {}

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch.

        Args:
            epoch: From 0.

        Returns:
            Rows of each step, int64 (batch_size,).
        """
        ...

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[Any]:
        """Load batches one after the other.

        Args:
            epoch: From 0.
            batches: Rows of each step of the epoch.
            first: Step to begin with.

        Yields:
            What `Objective.backward` takes; of several processes this one's share.
        """
        ...

    def backward(self, batch: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the centers.

        Args:
            batch: As `load` yields it.

        Returns:
            The loss first, then its parts, each (), valid until the next call.
        """
        return self.objective.backward(self.networks, batch)

    def end_epoch(self) -> dict[str, float]:
        """Finish an epoch.

        Returns:
            Further columns of its history row; here none.
        """
        return {}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch from the run's seed and a purpose.

        Args:
            keys: The purpose, such as ("drop_path", epoch, step).

        Returns:
            The seed.
        """
        ...

    def describe(self, rows: np.ndarray) -> str:
        """Describe rows of a batch for an error.

        Args:
            rows: Of the batch.

        Returns:
            Text that follows the number of the step; here none.
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Collect what a resumed run needs beside the networks.

        Returns:
            Tensors and plain values, nested; here none.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; here nothing.

        Args:
            state: Its tensors on the CPU.
        """


def shuffled_batches(n_rows: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffle rows into batches; the last, smaller one is left out unless it is the only one.

    Args:
        n_rows: Of the data.
        batch_size: Rows per step.
        rng: Draws the order.

    Returns:
        Rows of each batch, int64 (batch_size,).
    """
    order = rng.permutation(n_rows)
    return [order[start : start + batch_size] for start in range(0, max(1, n_rows - batch_size + 1), batch_size)]
