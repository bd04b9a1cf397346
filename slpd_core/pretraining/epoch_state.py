"""An epoch that has begun, and how a checkpoint holds it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slpd_core.pretraining.objective import Targets
from slpd_core.pretraining.prototypes import Prototypes


@dataclass
class Epoch:
    """An epoch that has begun.

    row: of its history, so far. measured: of the steps done, MEASURED of each, on the device.
    """

    row: dict[str, float]
    prototypes: Prototypes | None
    targets: Targets | None
    measured: list[Tensor]

    def state(self) -> dict[str, Any]:
        """What a run that is stopped within the epoch goes on from."""
        found = {"row": self.row, "measured": torch.stack(self.measured)} | prototypes_state(self.prototypes)
        return found | {"targets": vars(self.targets) if self.targets else None}

    @classmethod
    def of_state(cls, state: dict[str, Any], device: str) -> "Epoch":
        """Take up what `state` gave."""
        targets = state["targets"]
        if targets:
            rows = {term: rows.to(device) for term, rows in targets["rows"].items()}
            targets = Targets(targets["vectors"].to(device), rows)
        measured = list(state["measured"].to(device))
        return cls(state["row"], prototypes_of_state(state), targets, measured)


def prototypes_state(prototypes: Prototypes | None) -> dict[str, Any]:
    """Prototypes as a checkpoint holds them."""
    arrays = vars(prototypes).items() if prototypes else ()
    return {"prototypes": {name: torch.from_numpy(array) for name, array in arrays}}


def prototypes_of_state(state: dict[str, Any]) -> Prototypes | None:
    """Take up what `prototypes_state` gave."""
    arrays = state["prototypes"]
    return Prototypes(**{name: tensor.numpy() for name, tensor in arrays.items()}) if arrays else None
