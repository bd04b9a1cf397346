"""Schedules: pure functions of the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How student and teacher are trained; the defaults are the paper's.

    Attributes:
        epochs: In all.
        batch_size: Rows per step, of all processes.
        base_lr: Peak learning rate for 256 rows per step; scales with the batch.
        min_lr: At the end.
        warmup_epochs: Of the learning rate, from 0.
        warmup_endpoint: Whether the last step of the warm-up has the full rate, and not the step after.
        weight_decay: At the start; none on biases and 1-d parameters.
        weight_decay_end: At the end.
        clip_norm: Of each parameter's gradient.
        freeze_last_layer_epochs: Epochs in which the head's last layer is frozen.
        teacher_momentum: At the start; 1 at the end.
    """

    epochs: int = 100
    batch_size: int = 256
    base_lr: float = 5e-4
    min_lr: float = 1e-6
    warmup_epochs: int = 10
    warmup_endpoint: bool = False
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip_norm: float = 3.0
    freeze_last_layer_epochs: int = 1
    teacher_momentum: float = 0.996

    def at(self, step: int, steps_per_epoch: int, batch_size: int) -> dict[str, float]:
        """Compute the schedules of a step.

        Args:
            step: From 0, over all epochs.
            steps_per_epoch: Of the data.
            batch_size: Of the step: less than the recipe's in a cohort smaller than a batch.

        Returns:
            `lr`, `weight_decay` and `teacher_momentum`.
        """
        steps, peak = self.epochs * steps_per_epoch, self.base_lr * batch_size / 256
        warmup = self.warmup_epochs * steps_per_epoch
        return {
            "lr": warmup_cosine(step, steps, warmup, peak, self.min_lr, endpoint=self.warmup_endpoint),
            "weight_decay": cosine(step, steps, self.weight_decay, self.weight_decay_end),
            "teacher_momentum": cosine(step, steps, self.teacher_momentum, 1.0),
        }


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Follow half a cosine.

    Args:
        step: From 0.
        steps: In all.
        start: Value at step 0.
        end: Value from step `steps` on.

    Returns:
        The value of the step.
    """
    progress = min(max(step / max(steps, 1), 0.0), 1.0)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def warmup_cosine(step: int, steps: int, warmup: int, peak: float, end: float, *, endpoint: bool = False) -> float:
    """Rise linearly from 0, then follow half a cosine.

    Args:
        step: From 0.
        steps: In all.
        warmup: Steps of the rise.
        peak: Value after it.
        end: Value at the end.
        endpoint: Whether the last step of the warm-up has reached `peak`, as in numpy.linspace, and not the step after.

    Returns:
        The value of the step.
    """
    if step < warmup:
        return peak * step / max(warmup - endpoint, 1)
    return cosine(step - warmup, steps - warmup, peak, end)
