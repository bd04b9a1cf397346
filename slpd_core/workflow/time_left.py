"""The time that a run has left: its jobs weighed by the preflight's forecast and by the jobs that have finished."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slpd_core.artifacts.paths import split_encoder_name
from slpd_core.runtime import JobProgress, name_some
from slpd_core.workflow.forecast import START_SECONDS
from slpd_core.workflow.resources import resource_limit

_FORECAST_RULES = {
    "tissue": "tissue",
    "patch_encoder": "patch_encoder",
    "tokens": "tokens",
    "compared_tokens": "tokens of {encoder}",
    "pretrain": "pretrain {run}",
    "evaluate": "evaluate",
    "evaluate_folds": "evaluate",
}


@dataclass(frozen=True)
class PlannedJob:
    """A job of a run.

    Attributes:
        name: Rule and subject, such as "pretrain slpd".
        stage: Of jobs that take equally long per unit.
        forecast: The stage of the preflight's forecast; "" of a job of seconds.
        units: Slides or folds of the job.
        slots: Jobs like it that run at a time.
        assumed_s: Seconds for which its rule asks, at assumed speeds.
    """

    name: str
    stage: tuple[str, ...]
    forecast: str = ""
    units: int = 1
    slots: int = 1
    assumed_s: float = START_SECONDS


def plan_job(
    rule: str,
    wildcards: Mapping[str, str],
    outputs: Sequence[str],
    *,
    slots: int = 1,
    assumed_s: float = START_SECONDS,
) -> PlannedJob:
    """Describe a job.

    Args:
        rule: Its rule; that of a job of several slides ends in its number.
        wildcards: Of the job.
        outputs: Its files.
        slots: Jobs like it that run at a time.
        assumed_s: Seconds for which its rule asks.

    Returns:
        The job.
    """
    base = re.sub(r"_\d+$", "", rule)
    subject = "/".join(wildcards.values())
    if base != rule:
        slides = [Path(path).stem for path in outputs[: len(outputs) // 2]]
        subject = " ".join(filter(None, [subject, name_some(slides, max_names=1)]))
    run = split_encoder_name(wildcards.get("region_encoder", ""))[0]
    line = _FORECAST_RULES.get(base, "").format(run=run, encoder=wildcards.get("encoder", ""))
    units = len(outputs) // 2 if line in ("evaluate", "tokens") or base == "compared_tokens" else 1
    stage = (base, wildcards.get("encoder", ""), wildcards.get("classifier", ""))
    return PlannedJob(f"{base.removesuffix('_folds')} {subject}".strip(), stage, line, max(1, units), slots, assumed_s)


def count_slots(required: Mapping[str, Any], limits: Mapping[str, Any]) -> int:
    """Count the jobs that run at a time, by their cores, nodes and GPUs.

    Args:
        required: Resources of a job, `_cores` among them.
        limits: Of all jobs together, as in `resource_limit`.

    Returns:
        At least 1.
    """
    amounts = [
        (resource_limit(limits, name), required.get(name)) for name in limits if name in ("_cores", "_nodes", "gpu")
    ]
    fitting = [limit // amount for limit, amount in amounts if limit and isinstance(amount, int) and amount > 0]
    return max(1, min(fitting, default=1))


def plan_run(workflow: Any) -> dict[int, PlannedJob]:
    """Describe the jobs of a run; rules without a log only name targets, and the preflight prints itself.

    Args:
        workflow: Snakemake's.

    Returns:
        The jobs by Snakemake's number.
    """
    planned: dict[int, PlannedJob] = {}
    asked: dict[str, dict[str, Any]] = {}
    for job in workflow.dag.needrun_jobs():
        if job.log and job.output:
            rule = job.rule.name
            if rule not in asked:  # of the first of its jobs: resources take time to compute
                resources = dict(job.resources.items())
                asked[rule] = {"slots": count_slots(resources, workflow.global_resources)}
                if isinstance(resources.get("runtime"), int):
                    asked[rule]["assumed_s"] = 60.0 * resources["runtime"]
            outputs = [str(path) for path in job.output]
            planned[workflow.dag.jobid(job)] = plan_job(rule, job.wildcards_dict, outputs, **asked[rule])
    return planned


class TimeLeft:
    """The time that is left, as the preflight adds it up: stage after stage, each with the jobs that run at a time.

    What a job takes is the preflight's forecast, corrected by the jobs of its stage that have finished. A stage that
    has neither is guessed from the time for which its rule asks, as the jobs that have finished compare with theirs.

    Args:
        jobs: All jobs of the run, by number.
        forecast: Seconds per unit, by line of the preflight's forecast; empty where none was made.
    """

    def __init__(self, jobs: Mapping[int, PlannedJob], forecast: Mapping[str, float]) -> None:
        self._jobs, self._forecast = dict(jobs), forecast
        self._pending: dict[tuple[str, ...], float] = defaultdict(float)  # seconds of jobs to begin, before correction
        self._n_pending: dict[tuple[str, ...], int] = defaultdict(int)
        self._finished: dict[tuple[str, ...], tuple[float, float]] = {}  # seconds that were measured, and forecast
        self._measured = self._assumed = 0.0  # seconds of all jobs that have finished, and for which they asked
        self._slots = {job.stage: job.slots for job in jobs.values()}
        self._unknown = {job.stage for job in jobs.values() if job.forecast and job.forecast not in forecast}
        self._waiting = set(jobs)
        for job in jobs.values():
            self._pending[job.stage] += self._weight(job)
            self._n_pending[job.stage] += 1

    def begin(self, number: int) -> None:
        """Take a job from those that wait.

        Args:
            number: Of the job.
        """
        if number in self._waiting:
            self._count(number, -1)
            self._waiting.remove(number)

    def retry(self, number: int) -> None:
        """Put a job back, to be begun again.

        Args:
            number: Of the job.
        """
        if number in self._jobs and number not in self._waiting:
            self._count(number, 1)
            self._waiting.add(number)

    def finish(self, number: int, seconds: float) -> None:
        """Learn from a job that has finished.

        Args:
            number: Of the job.
            seconds: That it took.
        """
        if job := self._jobs.get(number):
            measured, weight = self._finished.get(job.stage, (0.0, 0.0))
            self._finished[job.stage] = (measured + seconds, weight + self._weight(job))
            self._measured += seconds
            self._assumed += job.assumed_s

    def estimate(self, running: Iterable[tuple[int, float, JobProgress | None]]) -> tuple[float, bool]:
        """Estimate the time that is left.

        Args:
            running: Of each job that runs, its number, the seconds that it has run, and how far it is.

        Returns:
            Seconds, nan while nothing is known; and whether none of it is guessed.
        """
        seconds: dict[tuple[str, ...], float] = defaultdict(float)
        count, known = dict(self._n_pending), True
        for stage, n_pending in self._n_pending.items():
            if n_pending:
                seconds[stage] = self._pending[stage] * self._rate(stage)
                known = known and not self._is_guessed(stage)
        for number, elapsed, progress in running:
            job = self._jobs[number]
            if progress and progress.left_s is not None:
                left = progress.left_s
            else:
                left = self._weight(job) * self._rate(job.stage) - elapsed
                left = 0.0 if left < 0 else left  # nan stays
                known = known and not self._is_guessed(job.stage)
            seconds[job.stage] += left
            count[job.stage] = count.get(job.stage, 0) + 1
        return sum(s / max(1, min(self._slots[stage], count[stage])) for stage, s in seconds.items()), known

    def _count(self, number: int, by: int) -> None:
        """Add a job to those that wait, or take it from them."""
        job = self._jobs[number]
        self._n_pending[job.stage] += by
        self._pending[job.stage] += by * self._weight(job)

    def _weight(self, job: PlannedJob) -> float:
        """Forecast seconds of a job; those for which it asks where there is no forecast of its stage."""
        if job.stage in self._unknown:
            return job.assumed_s
        return job.units * self._forecast.get(job.forecast, START_SECONDS)

    def _is_guessed(self, stage: tuple[str, ...]) -> bool:
        """Whether a stage has neither a forecast nor a job that has finished."""
        return stage in self._unknown and stage not in self._finished

    def _rate(self, stage: tuple[str, ...]) -> float:
        """Measured seconds per second of `_weight`; nan while nothing is known."""
        if stage in self._finished:
            measured, weight = self._finished[stage]
            return measured / weight
        if stage not in self._unknown:
            return 1.0
        return self._measured / self._assumed if self._assumed else math.nan
