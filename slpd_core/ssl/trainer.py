"""The trainer of stage one (patch encoder) and stage two (region encoder): epochs, resume, SIGTERM, history, checks."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slpd_core.runtime import TERMINATED, deferred_sigterm, log, note_progress, progress
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.stage import PretrainingStage
from slpd_core.ssl.student_teacher import apply_schedules, update_networks
from slpd_core.ssl.trackers import Trackers

STEPS_BETWEEN_CHECKS = 16  # of the loss; a check synchronizes the device
LOG_LINE = "epoch %d of %d: loss %.3f, self %.3f, KoLeo %.3f, teacher entropy %.3f, effective rank %.1f, %.1f %s/s"
LOGGED = ("loss", "loss_self", "koleo", "teacher_entropy", "effective_rank")  # columns of either stage's history


@dataclass
class EpochState:
    """An epoch under way.

    Attributes:
        index: From 0.
        row: Its history row so far.
        metrics: What `PretrainingStage.backward` returned in the steps done, each (metrics,), mean over the processes.
    """

    index: int
    row: dict[str, float]
    metrics: list[Tensor] = field(default_factory=list)


def fit(stage: PretrainingStage, checkpoint: Checkpoint, tracker: str | None = None) -> pd.DataFrame:
    """Train a stage to the end, from its checkpoint if there is one; leaves one after each epoch.

    Args:
        stage: What is trained.
        checkpoint: Of the run.
        tracker: wandb or mlflow, which gets the history too; None for TensorBoard alone.

    Returns:
        One history row per epoch: `begin_epoch`, the schedules' last values, means over the steps, `end_epoch`. Without
        epochs, empty columns epoch and loss.

    Raises:
        ModuleNotFoundError: The package of the tracker is not installed.
        ValueError: A batch does not divide evenly among the processes.
        RuntimeError: A loss is not finite.
        SystemExit: SIGTERM came within an epoch; the checkpoint holds its steps so far.
    """
    networks, epochs, batch_size = stage.networks, stage.recipe.epochs, min(stage.recipe.batch_size, len(stage))
    distributed.require_even_shards(batch_size, f"{stage.config_key}.batch_size", stage.unit)
    history, state = _resume(stage, checkpoint)
    tracker = tracker if len(history) < epochs else None
    with closing(Trackers(checkpoint, tracker, resumed=bool(history))) as trackers:
        for epoch in progress(range(len(history), epochs), epochs, "training", "epochs", done=len(history)):
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
                trackers.log(row)
            rate = (len(state.metrics) - resumed_at) * batch_size / (time.monotonic() - started)
            log.info(LOG_LINE, epoch + 1, epochs, *(row[name] for name in LOGGED), rate, stage.unit)
            state = None
    return pd.DataFrame(history or {"epoch": [], "loss": []})


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
        for i in progress(range(first, n_steps), n_steps, f"epoch {epoch + 1}", "steps", done=first):
            torch.manual_seed(stage.torch_seed("drop_path", epoch, i) + distributed.rank())
            state.row |= apply_schedules(networks, stage.recipe, epoch * n_steps + i, n_steps, len(batches[i]))
            metrics_of_step = stage.backward(next(loader))
            update_networks(networks, stage.recipe.clip_norm, state.row["teacher_momentum"])
            metrics.append(torch.stack([*metrics_of_step.values()]))
            distributed.all_reduce_mean(metrics[-1])
            last = i + 1 == n_steps
            stop = not last and should_stop(i, networks.device, asked=asked_to_stop())
            if stop or last or (i + 1) % STEPS_BETWEEN_CHECKS == 0:
                losses = torch.stack(metrics)[:, 0]
                check_finite(losses, epoch, batches, stage)
                note_progress(f"loss {losses.mean().item():.2f}")
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
