"""Schedules: pure functions of the step."""

import math


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """From `start` at step 0 along half a cosine towards `end` at step `steps`."""
    share = min(max(step / max(steps, 1), 0.0), 1.0)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


def warmup_cosine(step: int, steps: int, warmup: int, peak: float, end: float, *, endpoint: bool = False) -> float:
    """Rise linearly from 0 over `warmup` steps, then follow half a cosine from `peak` towards `end`.

    Args:
        endpoint: Whether the last step of the warm-up has reached `peak`, as in numpy.linspace, and not the step after.
    """
    if step < warmup:
        return peak * step / max(warmup - endpoint, 1)
    return cosine(step - warmup, steps - warmup, peak, end)
