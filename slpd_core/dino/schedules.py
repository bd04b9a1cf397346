"""Schedules: pure functions of the step."""

import math


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """From `start` at step 0 along half a cosine towards `end` at step `steps`."""
    share = min(max(step / max(steps, 1), 0.0), 1.0)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


def warmup_cosine(step: int, steps: int, warmup: int, peak: float, end: float) -> float:
    """Linearly from 0 to `peak` over `warmup` steps, then along half a cosine towards `end`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, steps - warmup, peak, end)
