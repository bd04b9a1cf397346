"""Slides that one job encodes: on a GPU the start of a process takes as long as many a slide.

A job's slides are its inputs, so they are chosen once, recorded in `state/`, and kept: another number of GPUs or a new
slide changes no job that there is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.resources import overwritten_resource, resource_limit
from slpd_core.workflow.slides import SlideFiles

MAX_SLIDES = 50  # of a job, unless the user says more
JOBS_PER_GPU, JOBS_PER_CORE = 4, 8  # so that none waits long for the last


def choose_slides_per_job(
    n_slides: int, overwritten: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Any]
) -> int:
    """Choose how many slides a job encodes.

    Args:
        n_slides: Slides to encode.
        overwritten: Resources of rules that the user sets; `slides_per_job` of tokens is taken as it is.
        limits: Of resources, for all jobs together.

    Returns:
        A number from 1 on, by default small enough that no GPU and no core idles.
    """
    if by_user := overwritten_resource(overwritten, "tokens", "slides_per_job"):
        return max(1, by_user)
    without_gpus = "gpu" in overwritten.get("tokens", {}) and not overwritten_resource(overwritten, "tokens", "gpu")
    gpus = 0 if without_gpus else resource_limit(limits, "gpu")
    n_jobs = gpus * JOBS_PER_GPU or resource_limit(limits, "_cores") * JOBS_PER_CORE or n_slides
    return min(max(1, n_slides // n_jobs), MAX_SLIDES) if n_jobs else 1


@dataclass(frozen=True)
class SlideJob:
    """A job that encodes several slides.

    Attributes:
        number: Among the cohort's jobs of several slides.
        slides: Ids of its slides.
        paths: Of the cohort.
        encoder: "" for the cohort's own patch encoder, the wildcard {encoder} for a compared one.
    """

    number: int
    slides: tuple[str, ...]
    paths: CohortPaths
    encoder: str = ""

    @property
    def rule_of_one(self) -> str:
        """The rule that encodes one slide."""
        return "compared_tokens" if self.encoder else "tokens"

    @property
    def rule(self) -> str:
        """The rule of this job alone."""
        return f"{self.rule_of_one}_{self.number}"

    @property
    def folder(self) -> str:
        """The folder of its files in those of results, logs and benchmarks."""
        return f"compared/{self.encoder}/" if self.encoder else ""

    def files(self, pattern: Callable[..., Path]) -> list[str]:
        """Return a file of each slide.

        Args:
            pattern: Of `paths`.

        Returns:
            The files.
        """
        return [str(pattern(slide, encoder=self.encoder)) for slide in self.slides]

    def kept_dir(self, wildcards: Any) -> str:
        """Return the folder of tokens kept for later jobs.

        Args:
            wildcards: Of the rule; `encoder`.

        Returns:
            Its path.
        """
        return str(self.paths.kept_tokens_dir(encoder=getattr(wildcards, "encoder", "")))

    def each(self, function: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
        """Turn a function of the wildcard `slide` into one of the job.

        Args:
            function: Of the wildcards.

        Returns:
            A function of wildcards that returns the values of all slides.
        """

        def values(wildcards: Any) -> list[Any]:
            encoder = getattr(wildcards, "encoder", "")
            return [function(SimpleNamespace(slide=slide, encoder=encoder)) for slide in self.slides]

        return values

    def total(self, function: Callable[[Any], float]) -> Callable[[Any], float]:
        """Turn a quantity of the wildcard `slide` into that of the job.

        Args:
            function: Of the wildcards.

        Returns:
            A function of wildcards that returns the sum over all slides.
        """
        return lambda wildcards: sum(self.each(function)(wildcards))


class JoinedSlides:
    """The jobs of several slides of a cohort; each of the other slides has a job of its own.

    What the user sets for the rules of one slide, as by --set-resources and --set-threads, holds for theirs too.

    Args:
        paths: Of the cohort.
        slides: Of the cohort, and of external ones, which have jobs of their own.
        encoders: Of the cohort.
        workflow: Snakemake's. A process that does not plan, as that of a job, keeps to what is recorded.

    Raises:
        ValueError: The record is broken.
    """

    def __init__(self, paths: CohortPaths, slides: SlideFiles, encoders: Encoders, workflow: Any) -> None:
        settings = workflow.resource_settings
        self._path = paths.joined_slides()
        self._recorded = _read_record(self._path)
        self._new: list[list[str]] = []
        if workflow.is_main_process:
            taken = {slide for joined in self._recorded for slide in joined}
            taken |= {path.stem for path in paths.tokens_dir().glob("*.h5")}
            for group in (slides.cohort, *slides.external.values()):
                to_encode = [slide for slide in group if slide not in taken]
                size = choose_slides_per_job(len(to_encode), settings.overwrite_resources, workflow.global_resources)
                self._new += _split_evenly(to_encode, size)
        present = [tuple(slide for slide in joined if slide in slides.rows) for joined in self._recorded + self._new]
        names = ("", "{encoder}") if encoders.settings.patch_encoder.compared else ("",)
        self.jobs = [SlideJob(i, ids, paths, name) for i, ids in enumerate(present) if ids for name in names]
        for overwritten in (settings.overwrite_resources, settings.overwrite_threads):
            for job in self.jobs:
                if job.rule_of_one in overwritten:
                    overwritten.setdefault(job.rule, overwritten[job.rule_of_one])

    def record(self) -> None:
        """Record the jobs, so that later runs and the jobs' own processes know them."""
        if self._new:
            artifacts.write_json(self._path, {"slides": self._recorded + self._new})


def _split_evenly(slides: list[str], size: int) -> list[list[str]]:
    """Split slides in their order into lists of at most `size`, as even as may be; none where each is alone."""
    n_lists = -(-len(slides) // size)
    bounds = [len(slides) * i // max(1, n_lists) for i in range(n_lists + 1)]
    return [slides[start:stop] for start, stop in pairwise(bounds) if stop - start > 1]


def _read_record(path: Path) -> list[list[str]]:
    """Read the slides of each recorded job; none without a record."""
    try:
        return list(artifacts.read_json(path)["slides"])
    except FileNotFoundError:
        return []
