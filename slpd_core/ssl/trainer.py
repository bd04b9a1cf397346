"""The steps of an epoch: which rows, whether their losses are numbers, and where they stop."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slpd_core.runtime import progress
from slpd_core.ssl import distributed

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
    if distributed.count() == 1:
        return asked
    return (step + 1) % STEPS_BETWEEN_CHECKS == 0 and distributed.anyone(asked, device)


def take_steps(
    step: Callable[[int], Tensor],
    count: int,
    measured: list[Tensor],
    look_at: Callable[[Tensor], None],
    asked_to_stop: Callable[[], bool],
    what: str,
) -> bool:
    """The steps of an epoch, from the one it had come to; gives whether it came to its end.

    step: takes the step of a number and gives what is measured of it, its loss first; the mean over the processes is
    added to `measured`. look_at: raises if a loss is not finite; it is given those so far from time to time, at the
    end, and before the epoch stops, so that no checkpoint holds what follows from such a loss.
    """
    first = len(measured)
    for number in progress(range(first, count), count - first, what, "steps"):
        measured.append(step(number))
        distributed.average(measured[-1])
        last = number + 1 == count
        stops = not last and stops_after(number, asked_to_stop(), measured[-1].device)
        if stops or last or (number + 1) % STEPS_BETWEEN_CHECKS == 0:
            look_at(torch.stack(measured)[:, 0])
        if stops:
            return False
    return True
