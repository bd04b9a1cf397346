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


class Checkpoint:
    """The state of a run after its last whole epoch, in a file that survives a killed job.

    made_by: the settings, seed and tokens of the run; a checkpoint of others is set aside with a warning.
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

        Raises ValueError when the file is broken.
        """
        if not self.path.exists():
            return [], None
        try:
            state = store.read_torch(self.path)
        except ValueError as error:
            raise ValueError(f"broken checkpoint {error}; delete it, the run starts anew") from error
        if state["made_by"] != self.made_by:
            theirs, ours = json.loads(state["made_by"]), json.loads(self.made_by)
            differing = [f"{key} {theirs.get(key)} -> {ours[key]}" for key in ours if theirs.get(key) != ours[key]]
            log.warning("%s is of other settings (%s): the run starts anew", self.path, ", ".join(differing))
            return [], None
        networks.restore(state["networks"])
        log.info("resumed after epoch %d", len(state["history"]))
        arrays = {name: tensor.numpy() for name, tensor in state["prototypes"].items()}
        return state["history"], Prototypes(**arrays) if arrays else None
