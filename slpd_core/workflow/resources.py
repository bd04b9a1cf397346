"""Memory in MB and time in minutes that jobs ask for, their threads and GPUs, and waits before another attempt."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from slpd_core import config
from slpd_core.workflow import forecast
from slpd_core.workflow.slides import SlideFiles
from slpd_core.workflow.targets import Targets

READ_RETRIES = 2  # of a job that reads a slide: the network may fail once
FIRST_WAIT_S, WAIT_FACTOR = 10, 4  # before its second attempt, and so much longer each


def per_attempt(amount: float | Callable[[Any], float]) -> Callable[[Any, int], int]:
    """Return a resource that grows with each attempt of a job.

    Args:
        amount: MB or minutes of the first attempt, or a function of the wildcards that returns them.
    """

    def resource(wildcards: Any, attempt: int) -> int:
        return attempt * round(amount(wildcards) if callable(amount) else amount)

    return resource


def last_attempt(wildcards: Any, attempt: int) -> int:
    """Return 1 on the last attempt of a job that reads a slide, else 0."""
    return int(attempt > READ_RETRIES)


def wait_before_attempt(wildcards: Any, attempt: int) -> int:
    """Return the seconds before a job that reads a slide: none at first, then longer each time, as an outage may."""
    return int(FIRST_WAIT_S * WAIT_FACTOR ** (attempt - 2)) if attempt > 1 else 0


def resource_limit(limits: Mapping[str, Any], resource: str) -> int:
    """Return how much of a resource jobs may use at a time; 0 where neither command line nor profile says."""
    limit = limits.get(resource)
    return int(getattr(limit, "value", limit) or 0)


def gpus_by_rule(overwritten: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the rules whose jobs have several GPUs by --set-resources or the profile.

    Args:
        overwritten: By rule, its resources: plain numbers or objects with a `value`.
    """
    counts = {rule: getattr(named.get("gpu"), "value", named.get("gpu")) for rule, named in overwritten.items()}
    return {rule: count for rule, count in counts.items() if isinstance(count, int) and count > 1}


class JobResources:
    """Resources that depend on settings and slides, as functions of a rule's wildcards."""

    def __init__(self, settings: config.Config, slides: SlideFiles, targets: Targets) -> None:
        self.settings, self.slides, self.targets = settings, slides, targets
        self._weights_gb: dict[str, float] = {}

    def slide_minutes(self, start: float, *, per_gb: float) -> Callable[[Any], float]:
        """Return the time of a job on one slide: a start, and so many minutes per GB of its files."""
        return lambda wildcards: start + per_gb * self.slides.gigabytes(wildcards)

    def encoding_mb(self, wildcards: Any) -> float:
        """Return the memory to encode a slide: PyTorch, regions on their way to the encoder, its weights."""
        paths = self.targets.patch_encoder_files(wildcards)
        for path in {*paths} - self._weights_gb.keys():
            self._weights_gb[path] = os.stat(path).st_size / 1e9
        weights = sum(self._weights_gb[path] for path in paths)
        return 3000 + 20 * self.settings.regions.size_px**2 * 3 / 1e6 + 4000 * weights

    def patch_encoder_minutes(self, wildcards: Any) -> float:
        """Return the time to train a patch encoder, or to convert one."""
        recipe = self.targets.patch_encoder_recipe(wildcards)
        if not recipe:
            return 30
        n_patches = len(self.slides.cohort) * self.settings.patches.patches_per_slide
        return 60 + 60 * forecast.training_hours(n_patches, recipe["epochs"], forecast.PATCHES_PER_S)

    def patch_encoder_threads(self, wildcards: Any) -> int:
        """Return the threads of a patch encoder: many where it is trained."""
        return 8 if self.targets.patch_encoder_recipe(wildcards) else 1

    def patch_encoder_gpus(self, wildcards: Any) -> int:
        """Return the GPUs of a patch encoder: one where it is trained."""
        return 1 if self.targets.patch_encoder_recipe(wildcards) else 0

    def pretrain_minutes(self, wildcards: Any) -> float:
        """Return the time of a pretraining run."""
        n_regions, epochs = len(self.slides.cohort) * forecast.REGIONS_PER_SLIDE, self.targets.run(wildcards).epochs
        return 60 + 60 * forecast.training_hours(n_regions, epochs, forecast.REGIONS_PER_S)

    def evaluate_minutes(self, wildcards: Any) -> float:
        """Return the time of a classifier on one fold."""
        n_slides, epochs = len(self.slides.cohort), self.settings.evaluate.training.epochs
        return 30 + 60 * forecast.training_hours(n_slides, epochs, forecast.SLIDES_PER_S)
