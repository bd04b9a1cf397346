"""The steps of an epoch: which rows, and whether their losses are numbers."""

import math

import numpy as np
import torch
from torch import Tensor

from slpd_core.dino import processes

STEPS_BETWEEN_CHECKS = 16  # of the loss; a check waits for the device


def batches(n_rows: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """All rows, shuffled, in batches; the last is left out unless it is the only one."""
    order = rng.permutation(n_rows)
    return [order[start : start + batch_size] for start in range(0, max(1, n_rows - batch_size + 1), batch_size)]


def first_not_finite(losses: Tensor) -> tuple[int, float] | None:
    """The first step whose loss is not finite, and that loss; None where there is none. losses: (steps,)."""
    values = enumerate(losses.tolist())
    return next(((number, value) for number, value in values if not math.isfinite(value)), None)


def stops_after(step: int, asked: bool, device: torch.device) -> bool:
    """Whether an epoch stops after this step, as something asked for: at once, or where several processes train, at the
    next step at which all of them ask one another.
    """
    if processes.count() == 1:
        return asked
    return (step + 1) % STEPS_BETWEEN_CHECKS == 0 and processes.anyone(asked, device)
