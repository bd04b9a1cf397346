"""Experiment trackers: where the scalars of a training go beside its history."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from slpd_core.runtime import log
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint

PROJECT = "slpd"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise
NOT_SENT = {"init_from"}  # a path


class Tracker(Protocol):
    """Takes the scalars of each epoch; closed at the end of the job."""

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Take an epoch's scalars."""

    def close(self) -> None:
        """End the job's part of the run."""


class Trackers:
    """The trackers of a run, in its main process: TensorBoard's files beside the checkpoint, and one by its name.

    A tracker that fails is left with a warning: the training goes on, and its history has all.

    Args:
        checkpoint: Of the run; its folder names the run.
        name: wandb or mlflow; None for TensorBoard alone.
        resumed: Whether the run goes on from a checkpoint.

    Raises:
        ModuleNotFoundError: The package of the tracker is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, name: str | None, *, resumed: bool) -> None:
        self._trackers: dict[str, Tracker] = {}
        if not distributed.is_main_process():
            return
        self._trackers["tensorboard"] = TensorBoard(checkpoint.path.with_name("tensorboard"))
        if name:
            import_tracker(name)
            try:
                self._trackers[name] = TRACKERS[name](checkpoint, resumed=resumed)
            except Exception as error:  # of the network, of a server, of an account
                self._leave(name, error)

    def log(self, row: Mapping[str, float]) -> None:
        """Hand an epoch's finite scalars to each tracker.

        Args:
            row: Of the history.
        """
        scalars = {key: value for key, value in row.items() if key != "epoch" and math.isfinite(value)}
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(int(row["epoch"]), scalars)
            except Exception as error:
                self._leave(name, error)

    def close(self) -> None:
        """Close each tracker."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.close()
            except Exception as error:
                self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        self._trackers.pop(name, None)
        log.warning("%s takes no scalars (%s: %s); history.csv has them", name, type(error).__name__, error)


def import_tracker(name: str) -> Any:
    """Import the package of a tracker.

    Args:
        name: wandb or mlflow.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tracker: {name}, but {error.name} is not installed; pip install 'slpd[{name}]', or set tracker to null"
        ) from error


class TensorBoard:
    """Files of TensorBoard, one per epoch: `tensorboard --logdir` reads them while the run trains.

    Args:
        folder: Of the files; the first epoch empties it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write an epoch's scalars."""
        from torch.utils.tensorboard import SummaryWriter

        if epoch == 0 and self._folder.exists():
            shutil.rmtree(self._folder)
        with SummaryWriter(str(self._folder), filename_suffix=f".{epoch}") as writer:
            for name, value in scalars.items():
                writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Nothing is open between epochs."""


class WandB:
    """A run of Weights & Biases: https://docs.wandb.ai/ref/python.

    Args:
        checkpoint: Of the run.
        resumed: Whether to go on with the run that an earlier job began.
    """

    def __init__(self, checkpoint: Checkpoint, *, resumed: bool) -> None:
        wandb, folder = import_tracker("wandb"), checkpoint.path.parent
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_run_name(folder),
            config=_settings(checkpoint),
            dir=str(folder),
            id=_earlier_id(folder, "wandb") if resumed else None,
            resume="allow",
        )
        _keep_id(folder, "wandb", self._run.id)

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Send an epoch's scalars."""
        self._run.log(dict(scalars), step=epoch)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI: https://mlflow.org/docs/latest/ml/tracking.

    Args:
        checkpoint: Of the run.
        resumed: Whether to go on with the run that an earlier job began.
    """

    def __init__(self, checkpoint: Checkpoint, *, resumed: bool) -> None:
        mlflow, folder = import_tracker("mlflow"), checkpoint.path.parent
        self._client = mlflow.MlflowClient()
        self._run_id = _earlier_id(folder, "mlflow") if resumed else None
        if self._run_id is None:
            experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
            run = self._client.create_run(experiment.experiment_id, run_name=_run_name(folder))
            self._run_id = str(run.info.run_id)
            for key, value in _settings(checkpoint).items():
                self._client.log_param(self._run_id, key, value)
        _keep_id(folder, "mlflow", self._run_id)

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Send an epoch's scalars."""
        for name, value in scalars.items():
            self._client.log_metric(self._run_id, name, value, step=epoch)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run_id)


TRACKERS: dict[str, type[WandB | MLflow]] = {"wandb": WandB, "mlflow": MLflow}


def _run_name(folder: Path) -> str:
    return "/".join(folder.parts[-3:])  # cohort/pretrain/run


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the run was made with, without paths."""
    return {key: value for key, value in json.loads(checkpoint.run_config).items() if key not in NOT_SENT}


def _earlier_id(folder: Path, tracker: str) -> str | None:
    """Return the run that an earlier job began with this tracker, if any."""
    path = folder / "tracker.json"
    return json.loads(path.read_text()).get(tracker) if path.exists() else None


def _keep_id(folder: Path, tracker: str, run_id: str) -> None:
    (folder / "tracker.json").write_text(json.dumps({tracker: run_id}))
