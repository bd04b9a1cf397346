"""Memory (MB), time (minutes), threads and GPUs of jobs, and the waits before another attempt."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from slpd_core import config
from slpd_core.workflow import forecast
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.slides import SlideFiles

READ_RETRIES = 2  # of a job that reads a slide: the network may fail once
FIRST_WAIT_S, WAIT_FACTOR = 10, 4  # before its second attempt; each later wait is that much longer


def per_attempt(amount: float | Callable[[Any], float]) -> Callable[[Any, int], int]:
    """Return a resource that grows with each attempt of a job.

    Args:
        amount: MB or minutes of the first attempt, or a function of the wildcards that returns them.

    Returns:
        A function of wildcards and attempt.
    """

    def resource(wildcards: Any, attempt: int) -> int:
        return attempt * round(amount(wildcards) if callable(amount) else amount)

    return resource


def last_attempt(wildcards: Any, attempt: int) -> int:
    """Tell whether this is the last attempt of a job that reads a slide.

    Args:
        wildcards: Those of the rule.
        attempt: From 1.

    Returns:
        1 or 0.
    """
    return int(attempt > READ_RETRIES)


def wait_before_attempt(wildcards: Any, attempt: int) -> int:
    """Return the wait before an attempt of a job that reads a slide; it grows, as an outage may last.

    Args:
        wildcards: Those of the rule.
        attempt: From 1.

    Returns:
        Seconds; 0 before the first attempt.
    """
    return int(FIRST_WAIT_S * WAIT_FACTOR ** (attempt - 2)) if attempt > 1 else 0


def resource_limit(limits: Mapping[str, Any], resource: str) -> int:
    """Return how much of a resource jobs may use at a time.

    Args:
        limits: By resource, a number or an object with a `value`.
        resource: Its name.

    Returns:
        The amount; 0 where neither command line nor profile limits it.
    """
    limit = limits.get(resource)
    return int(getattr(limit, "value", limit) or 0)


def overwritten_resource(overwritten: Mapping[str, Mapping[str, Any]], rule: str, resource: str) -> int:
    """Return a resource of a rule's jobs as --set-resources or the profile sets it.

    Args:
        overwritten: By rule, its resources: numbers or objects with a `value`.
        rule: The rule.
        resource: Its name.

    Returns:
        The amount; 0 where it is not set, or set by an expression.
    """
    amount = overwritten.get(rule, {}).get(resource)
    amount = getattr(amount, "value", amount)
    return amount if isinstance(amount, int) else 0


def gpus_by_rule(overwritten: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the rules whose jobs have several GPUs by --set-resources or the profile.

    Args:
        overwritten: As in `overwritten_resource`.

    Returns:
        By rule, the GPUs per job.
    """
    counts = {rule: overwritten_resource(overwritten, rule, "gpu") for rule in overwritten}
    return {rule: count for rule, count in counts.items() if count > 1}


def pretrain_memory(overwritten: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Any]) -> int:
    """Return the memory of a pretraining job on its first attempt.

    Args:
        overwritten: As in `overwritten_resource`.
        limits: As in `resource_limit`.

    Returns:
        MB: those of the rule or of --set-resources, at most those that all jobs may use.
    """
    requested = overwritten_resource(overwritten, "pretrain", "mem_mb") or forecast.PRETRAIN_MB
    return min(requested, resource_limit(limits, "mem_mb") or requested)


def encoding_threads(limits: Mapping[str, Any]) -> int:
    """Return the threads of a job of tokens.

    Args:
        limits: As in `resource_limit`.

    Returns:
        Threads that read for a GPU where jobs may use one, at most its share of the cores; else 1.
    """
    gpus, cores = resource_limit(limits, "gpu"), resource_limit(limits, "_cores")
    if not gpus:
        return 1
    return min(forecast.READING_THREADS, max(1, cores // gpus)) if cores else forecast.READING_THREADS


class JobResources:
    """Resources that depend on settings and slides, as functions of a rule's wildcards.

    Args:
        settings: The whole config.
        slides: The files of the slides.
        encoders: Of the cohort.
    """

    def __init__(self, settings: config.Config, slides: SlideFiles, encoders: Encoders) -> None:
        self.settings, self.slides, self.encoders = settings, slides, encoders
        self._weights_gb: dict[str, float] = {}

    def slide_minutes(self, start: float, *, per_gb: float) -> Callable[[Any], float]:
        """Return the minutes of a job on one slide as a function of its wildcards.

        Args:
            start: Minutes whatever the slide's size.
            per_gb: Minutes per GB of the slide's files.

        Returns:
            A function of the wildcards that returns minutes.
        """
        return lambda wildcards: start + per_gb * self.slides.gigabytes(wildcards)

    def encoding_mb(self, wildcards: Any, threads: int, attempt: int) -> int:
        """Return the memory to encode a slide.

        Args:
            wildcards: Of a rule; `encoder` names a compared patch encoder.
            threads: Threads of the job.
            attempt: From 1.

        Returns:
            MB.
        """
        paths = self.encoders.patch_encoder_files(wildcards)
        for path in {*paths} - self._weights_gb.keys():
            self._weights_gb[path] = os.stat(path).st_size / 1e9
        weights_gb = sum(self._weights_gb[path] for path in paths)
        return attempt * round(forecast.encoding_mb(self.settings.regions.size_px, weights_gb, threads))

    def patch_encoder_minutes(self, wildcards: Any) -> float:
        """Return the time to train a patch encoder, or to convert one.

        Args:
            wildcards: As in `encoding_mb`.

        Returns:
            Minutes.
        """
        recipe = self.encoders.patch_encoder_recipe(wildcards)
        if not recipe:
            return 30
        n_patches = len(self.slides.cohort) * self.settings.patches.patches_per_slide
        return 60 + 60 * forecast.training_hours(n_patches, recipe["epochs"], forecast.PATCHES_PER_S)

    def patch_encoder_threads(self, wildcards: Any) -> int:
        """Return the threads of a patch encoder's job.

        Args:
            wildcards: As in `encoding_mb`.

        Returns:
            8 where it is trained, else 1.
        """
        return 8 if self.encoders.patch_encoder_recipe(wildcards) else 1

    def patch_encoder_gpus(self, wildcards: Any) -> int:
        """Return the GPUs of a patch encoder's job.

        Args:
            wildcards: As in `encoding_mb`.

        Returns:
            1 where it is trained, else 0.
        """
        return 1 if self.encoders.patch_encoder_recipe(wildcards) else 0

    def pretrain_minutes(self, wildcards: Any) -> float:
        """Return the time to train one encoder of a run.

        Args:
            wildcards: Of a rule; `region_encoder`.

        Returns:
            Minutes.
        """
        per_fold = self.encoders.fold(wildcards) is not None
        share = forecast.pretrain_share(per_fold=per_fold, n_folds=self.settings.folds.partition_folds)
        n_regions = share * len(self.slides.cohort) * forecast.REGIONS_PER_SLIDE
        epochs = self.encoders.pretrain_config(wildcards).epochs
        return 60 + 60 * forecast.training_hours(n_regions, epochs, forecast.REGIONS_PER_S)

    def evaluate_minutes(self, wildcards: Any) -> float:
        """Return the time to train classifiers on the folds of a job, and to predict their test slides.

        Args:
            wildcards: Of a rule; `classifier`, and `fold` where the job has one.

        Returns:
            Minutes.
        """
        training = self.settings.evaluate.training
        epochs = forecast.classifier_epochs(wildcards.classifier, training.epochs * len(training.lr_grid or (1,)))
        n_folds = 1 if hasattr(wildcards, "fold") else self.settings.folds.count
        return 30 + n_folds * 60 * forecast.training_hours(len(self.slides.cohort), epochs, forecast.SLIDES_PER_S)
