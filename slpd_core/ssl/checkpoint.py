"""The checkpoint of a run of self-distillation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slpd_core import artifacts
from slpd_core.runtime import log
from slpd_core.ssl import distributed
from slpd_core.ssl.student_teacher import StudentTeacher

STATE_KEYS = ("run_config", "history", "extra_state", "networks")
RENAMED_KEYS = {"made_by": "run_config", "more": "extra_state"}  # of earlier versions
REMEDY = "delete it; the run then starts from the beginning"


class Checkpoint:
    """The state of a run, in a file that survives a killed job.

    Args:
        path: Of the file.
        run_config: Settings, seed and data of the run; a checkpoint of others is archived with a warning.
    """

    def __init__(self, path: Path, run_config: dict[str, Any]) -> None:
        self.path, self.run_config = path, json.dumps(run_config, sort_keys=True)

    def save(self, networks: StudentTeacher, history: list[dict[str, float]], extra_state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by the present state.

        Args:
            networks: Student and teacher.
            history: One row per epoch.
            extra_state: Tensors and plain values, nested, that a resumed run needs.
        """
        if not distributed.is_main_process():
            return
        state = {"run_config": self.run_config, "history": history, "extra_state": dict(extra_state)}
        state["networks"] = networks.state_dict()
        with artifacts.atomic_write(self.path) as part, part.open("wb") as file:
            torch.save(state, file)  # a file of Python's: of a full disk torch's own only says "unexpected pos"

    def restore(
        self, networks: StudentTeacher, names: Sequence[str] = ()
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """Restore a run, if there is a checkpoint.

        Args:
            networks: Changed in place.
            names: Of the extra state that the run needs.

        Returns:
            Its history and extra state; both empty without a checkpoint of this run.

        Raises:
            ValueError: The file is broken or of another kind.
        """
        if not self.path.exists():
            return [], {}
        state = self._read()
        distributed.barrier()  # all have read it before one sets it aside
        if state["run_config"] != self.run_config:
            if distributed.is_main_process():
                self._archive(state["run_config"])
            return [], {}
        try:
            networks.load_state_dict(state["networks"])
            extra_state = {name: state["extra_state"][name] for name in names}
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.path}: not the state of this run ({reason}); {REMEDY}") from error
        log.info("resumed after epoch %d", len(state["history"]))
        return state["history"], extra_state

    def _read(self) -> dict[str, Any]:
        try:
            loaded = artifacts.read_torch(self.path)
        except ValueError as error:
            raise ValueError(f"broken checkpoint {error}; {REMEDY}") from error
        items: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
        state = {RENAMED_KEYS.get(key, key): value for key, value in items.items()}
        missing = [name for name in STATE_KEYS if name not in state]
        if missing:
            raise ValueError(f"{self.path}: no checkpoint of a training run: it lacks {missing}; {REMEDY}")
        try:
            json.loads(state["run_config"]).keys()
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}: unreadable settings ({error}); {REMEDY}") from error
        return state

    def _archive(self, run_config: str) -> None:
        """Rename the file, by a hash of the settings that made it, so that hours of training are not overwritten."""
        aside = self.path.with_stem(f"{self.path.stem}.{artifacts.fingerprint(run_config)[:8]}")
        theirs, ours = json.loads(run_config), json.loads(self.run_config)
        differing = ", ".join(
            f"{key} {theirs.get(key, 'absent')} -> {ours.get(key, 'absent')}"
            for key in sorted(theirs.keys() | ours.keys())
            if key not in theirs or key not in ours or theirs[key] != ours[key]
        )
        self.path.replace(aside)
        log.warning(
            "%s is of other settings (%s): kept as %s, and the run starts from the beginning; rename it back to resume "
            "it with those settings, or delete it",
            self.path,
            differing,
            aside.name,
        )
