"""The checkpoint of a run of self-distillation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slpd_core import artifacts
from slpd_core.runtime import log
from slpd_core.ssl import distributed
from slpd_core.ssl.student_teacher import Networks

PARTS = ("made_by", "history", "more", "networks")
REMEDY = "delete it, the run starts anew"


class Checkpoint:
    """The state of a run, in a file that survives a killed job.

    made_by: name -> value of the run's settings, seed and tokens; a checkpoint of others is set aside with a warning.
    """

    def __init__(self, path: Path, made_by: dict[str, Any]) -> None:
        self.path, self.made_by = path, json.dumps(made_by, sort_keys=True)

    def save(self, networks: Networks, history: list[dict[str, float]], more: Mapping[str, Any]) -> None:
        """Replace the checkpoint by one of now; more: tensors and numbers, nested, that the run goes on from."""
        if not distributed.is_first():
            return
        state = {"made_by": self.made_by, "history": history, "more": dict(more), "networks": networks.state()}
        with artifacts.atomic_write(self.path) as part, part.open("wb") as file:
            torch.save(state, file)  # a file of Python's: of a full disk torch's own only says "unexpected pos"

    def restore(self, networks: Networks, names: Sequence[str] = ()) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """Bring networks to the checkpoint's state, give its history and what more it holds; nothing where there is no
        checkpoint.

        names: of what a run saves. Raises ValueError when the file is broken or of another kind.
        """
        if not self.path.exists():
            return [], {}
        state = self._read()
        distributed.wait()  # all have read it before one sets it aside
        if state["made_by"] != self.made_by:
            if distributed.is_first():
                self._set_aside(state["made_by"])
            return [], {}
        try:
            networks.restore(state["networks"])
            more = {name: state["more"][name] for name in names}
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.path}: not the state of this run ({reason}); {REMEDY}") from error
        log.info("resumed after epoch %d", len(state["history"]))
        return state["history"], more

    def _read(self) -> dict[str, Any]:
        try:
            state = artifacts.read_torch(self.path)
        except ValueError as error:
            raise ValueError(f"broken checkpoint {error}; {REMEDY}") from error
        missing = [name for name in PARTS if not isinstance(state, dict) or name not in state]
        if missing:
            raise ValueError(f"{self.path}: no checkpoint of a training run, it lacks {missing}; {REMEDY}")
        try:
            json.loads(state["made_by"]).keys()
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}: its settings cannot be read ({error}); {REMEDY}") from error
        return state

    def _set_aside(self, made_by: str) -> None:
        """Rename the file, by a hash of the settings that made it, so that hours of training are not overwritten."""
        aside = self.path.with_stem(f"{self.path.stem}.{artifacts.fingerprint(made_by)[:8]}")
        theirs, ours = json.loads(made_by), json.loads(self.made_by)
        differing = ", ".join(
            f"{key} {theirs.get(key, 'absent')} -> {ours.get(key, 'absent')}"
            for key in sorted(theirs.keys() | ours.keys())
            if key not in theirs or key not in ours or theirs[key] != ours[key]
        )
        self.path.replace(aside)
        log.warning(
            "%s is of other settings (%s): kept as %s, the run starts anew; rename it back to go on with it under "
            "those settings, or delete it",
            self.path,
            differing,
            aside.name,
        )
