"""The checkpoint of a pretraining run."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from slpd_core import store
from slpd_core.pretraining.networks import Networks
from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.runtime import log

PARTS = ("made_by", "history", "prototypes", "networks")
REMEDY = "delete it, the run starts anew"


class Checkpoint:
    """The state of a run after its last whole epoch, in a file that survives a killed job.

    made_by: name -> value of the run's settings, seed and tokens; a checkpoint of others is set aside with a warning.
    """

    def __init__(self, path: Path, made_by: dict[str, Any]) -> None:
        self.path, self.made_by = path, json.dumps(made_by, sort_keys=True)

    def save(self, networks: Networks, history: list[dict[str, float]], prototypes: Prototypes | None) -> None:
        """Replace the checkpoint by one of now."""
        arrays = (
            {f.name: torch.from_numpy(getattr(prototypes, f.name)) for f in fields(Prototypes)} if prototypes else {}
        )
        state = {"made_by": self.made_by, "history": history, "prototypes": arrays, "networks": networks.state()}
        with store.replacing(self.path) as part:
            torch.save(state, part)

    def restore(self, networks: Networks) -> tuple[list[dict[str, float]], Prototypes | None]:
        """Bring networks to the checkpoint's state and give its history; nothing where there is no checkpoint.

        Raises ValueError when the file is broken or of another kind.
        """
        if not self.path.exists():
            return [], None
        state = self._read()
        if state["made_by"] != self.made_by:
            self._set_aside(state["made_by"])
            return [], None
        try:
            networks.restore(state["networks"])
            arrays = {name: tensor.numpy() for name, tensor in state["prototypes"].items()}
            prototypes = Prototypes(**arrays) if arrays else None
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.path}: networks or prototypes are not a run's ({reason}); {REMEDY}") from error
        log.info("resumed after epoch %d", len(state["history"]))
        return state["history"], prototypes

    def _read(self) -> dict[str, Any]:
        try:
            state = store.read_torch(self.path)
        except ValueError as error:
            raise ValueError(f"broken checkpoint {error}; {REMEDY}") from error
        missing = [name for name in PARTS if not isinstance(state, dict) or name not in state]
        if missing:
            raise ValueError(f"{self.path}: no checkpoint of a pretraining run, it lacks {missing}; {REMEDY}")
        try:
            json.loads(state["made_by"]).keys()
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}: its settings cannot be read ({error}); {REMEDY}") from error
        return state

    def _set_aside(self, made_by: str) -> None:
        """Rename the file, by a hash of the settings that made it, so that hours of training are not overwritten."""
        aside = self.path.with_stem(f"{self.path.stem}.{store.fingerprint(made_by)[:8]}")
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
