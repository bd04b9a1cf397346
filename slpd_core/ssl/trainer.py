"""The trainer of stage one (patch encoder) and stage two (region encoder): epochs, resume, SIGTERM, history, checks."""

import math
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slpd_core.runtime import TERMINATED, deferred_sigterm, log, progress
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.monitoring import to_tensorboard
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import StudentTeacher, apply_schedules, update_networks

STEPS_BETWEEN_CHECKS = 16  # of the loss; a check synchronizes the device
LOG_LINE = "epoch %d of %d: loss %.3f, self %.3f, KoLeo %.3f, teacher entropy %.3f, effective rank %.1f, %.1f %s/s"
LOGGED = ("loss", "loss_self", "koleo", "teacher_entropy", "effective_rank")  # columns of either stage's history


class Objective(Protocol):
    """The loss of a stage."""

    def backward(self, networks: StudentTeacher, batch: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the centers.

        Args:
            networks: Student and teacher.
            batch: As `PretrainingStage.load` yields it.

        Returns:
            The loss first, then its parts, each ().
        """
        ...


class PretrainingStage(Protocol):
    """Stage one or stage two as the trainer runs it: all that they do differently.

    Attributes:
        unit: What a sample is called in logs and errors: regions or patches.
        config_key: The section of the config that errors name.
        networks: Student and teacher.
        recipe: Epochs, batch size and schedules.
    """

    unit: ClassVar[str]
    config_key: ClassVar[str]
    networks: StudentTeacher
    recipe: Recipe

    @property
    def objective(self) -> Objective:
        """The loss."""
        ...

    def __len__(self) -> int:
        """Return the number of rows to train on."""
        ...

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Prepare an epoch; not called for an epoch that is resumed midway, which `load_state_dict` restores.

        Args:
            epoch: From 0.

        Returns:
            Columns of its history row.
        """
        ...

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

    def end_epoch(self) -> dict[str, float]:
        """Finish an epoch.

        Returns:
            Further columns of its history row.
        """
        ...

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
            Text that follows the number of the step, or "".
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Collect what a resumed run needs beside the networks.

        Returns:
            Tensors and plain values, nested.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: Its tensors on the CPU.
        """
        ...


@dataclass
class EpochState:
    """An epoch under way.

    Attributes:
        index: From 0.
        row: Its history row so far.
        metrics: What `Objective.backward` returned in the steps done, each (metrics,), mean over the processes.
    """

    index: int
    row: dict[str, float]
    metrics: list[Tensor] = field(default_factory=list)


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


def fit(stage: PretrainingStage, checkpoint: Checkpoint) -> pd.DataFrame:
    """Train a stage to the end, from its checkpoint if there is one; leaves one after each epoch.

    Args:
        stage: What is trained.
        checkpoint: Of the run.

    Returns:
        One history row per epoch: `begin_epoch`, the schedules' last values, means over the steps, `end_epoch`.

    Raises:
        ValueError: A batch does not divide evenly among the processes.
        RuntimeError: A loss is not finite.
        SystemExit: SIGTERM came within an epoch; the checkpoint holds its steps so far.
    """
    networks, epochs, batch_size = stage.networks, stage.recipe.epochs, min(stage.recipe.batch_size, len(stage))
    distributed.require_even_shards(batch_size, f"{stage.config_key}.batch_size", stage.unit)
    history, state = _resume(stage, checkpoint)
    for epoch in range(len(history), epochs):
        started = time.monotonic()
        if state is None:
            # log_out_dim is the entropy of uniform targets: the most that teacher_entropy can be.
            row = {"epoch": epoch, "log_out_dim": math.log(len(networks.teacher.head.last_layer))}
            state = EpochState(epoch, row | stage.begin_epoch(epoch))
        resumed_at = len(state.metrics)
        with deferred_sigterm() as asked_to_stop:
            if not train_epoch(stage, state, asked_to_stop):
                epoch_state = {"row": state.row, "metrics": torch.stack(state.metrics)}
                checkpoint.save(networks, history, {"epoch": epoch_state, "stage": stage.state_dict()})
                log.info("stopped in epoch %d after %d steps", epoch + 1, len(state.metrics))
                sys.exit(TERMINATED)
            row = state.row | stage.end_epoch()
            history.append(row)
            checkpoint.save(networks, history, {"epoch": None, "stage": stage.state_dict()})
            to_tensorboard(checkpoint.path.with_name("tensorboard"), row)
        rate = (len(state.metrics) - resumed_at) * batch_size / (time.monotonic() - started)
        log.info(LOG_LINE, epoch + 1, epochs, *(row[name] for name in LOGGED), rate, stage.unit)
        state = None
    return pd.DataFrame(history)


def _resume(stage: PretrainingStage, checkpoint: Checkpoint) -> tuple[list[dict[str, float]], EpochState | None]:
    """Restore a stage; returns its history and the epoch that it was stopped in, if any."""
    history, state = checkpoint.restore(stage.networks, ["epoch", "stage"])
    if not state:
        return history, None
    stage.load_state_dict(state["stage"])
    if state["epoch"] is None:
        return history, None
    metrics = list(state["epoch"]["metrics"].to(stage.networks.device))
    return history, EpochState(len(history), state["epoch"]["row"], metrics)


def train_epoch(stage: PretrainingStage, state: EpochState, asked_to_stop: Callable[[], bool] = lambda: False) -> bool:
    """Take the steps of an epoch that are left.

    Args:
        stage: What is trained.
        state: Of the epoch; its row gets the schedules' values and, at the end, means over the steps that have a value.
        asked_to_stop: Whether to stop after the step.

    Returns:
        Whether the epoch is complete.

    Raises:
        RuntimeError: A loss is not finite; losses are checked before the epoch stops or ends, so no checkpoint follows.
    """
    networks, epoch, metrics = stage.networks, state.index, state.metrics
    batches, first = stage.shuffle(epoch), len(metrics)
    n_steps = len(batches)
    with closing(stage.load(epoch, batches, first)) as loader:
        for i in progress(range(first, n_steps), n_steps - first, f"epoch {epoch + 1}", "steps"):
            torch.manual_seed(stage.torch_seed("drop_path", epoch, i) + distributed.rank())
            state.row |= apply_schedules(networks, stage.recipe, epoch * n_steps + i, n_steps, len(batches[i]))
            metrics_of_step = stage.objective.backward(networks, next(loader))
            update_networks(networks, stage.recipe.clip_norm, state.row["teacher_momentum"])
            metrics.append(torch.stack([*metrics_of_step.values()]))
            distributed.all_reduce_mean(metrics[-1])
            last = i + 1 == n_steps
            stop = not last and should_stop(i, networks.device, asked=asked_to_stop())
            if stop or last or (i + 1) % STEPS_BETWEEN_CHECKS == 0:
                check_finite(torch.stack(metrics)[:, 0], epoch, batches, stage)
            if stop:
                return False
    state.row |= dict(zip(metrics_of_step, torch.stack(metrics).nanmean(0).tolist(), strict=True))
    return True


def should_stop(step: int, device: torch.device, *, asked: bool) -> bool:
    """Decide whether an epoch stops after a step; several processes stop at the same one.

    Args:
        step: From 0.
        device: On which processes tell one another, every STEPS_BETWEEN_CHECKS steps.
        asked: Whether this process was asked to stop.

    Returns:
        Whether to stop.
    """
    if distributed.world_size() == 1:
        return asked
    return (step + 1) % STEPS_BETWEEN_CHECKS == 0 and distributed.any_rank(device, flag=asked)


def check_finite(losses: Tensor, epoch: int, batches: list[np.ndarray], stage: PretrainingStage) -> None:
    """Check that the losses of an epoch are finite; waits for the device.

    Args:
        losses: Of the steps done, (steps,).
        epoch: From 0.
        batches: Rows of each step.
        stage: What is trained.

    Raises:
        RuntimeError: A loss is not finite; names the first.
    """
    for i, loss in enumerate(losses.tolist()):
        if not math.isfinite(loss):
            raise RuntimeError(
                f"loss {loss} in epoch {epoch + 1}, step {i + 1}{stage.describe(batches[i])}: "
                f"lower {stage.config_key}.base_lr or raise {stage.config_key}.teacher_temperature; "
                "the last checkpoint is kept"
            )
