"""The time, memory and disk space that a run takes, stage by stage, at the measured speeds of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slpd_core.preflight.slides import CohortSample, SlideProbe
from slpd_core.preflight.throughput import EncoderSpeed
from slpd_core.workflow.forecast import (
    EVALUATE_MB,
    PATCH_ENCODER_MB,
    PRETRAIN_MB,
    READING_THREADS,
    START_SECONDS,
    TISSUE_MB,
    classifier_epochs,
    encoding_mb,
    tokens_gb,
    training_hours,
)


@dataclass(frozen=True)
class Machine:
    """The resources that jobs may use at a time.

    Attributes:
        cores: CPU cores.
        gpus: GPUs; 0 runs everything on the cores.
        device: "cuda" or "cpu".
        pretrain_mb: Memory per pretraining job, MB.
    """

    cores: int
    gpus: int
    device: str
    pretrain_mb: float = PRETRAIN_MB


@dataclass(frozen=True)
class StageForecast:
    """The forecast of a stage.

    Attributes:
        name: The stage, and what tells its lines apart.
        jobs: Jobs.
        hours: Hours of all jobs, one after another.
        at_a_time: Jobs that the machine runs at a time.
        memory_mb: Memory per job, as its rule asks for it.
        gigabytes: Size of the files that stay.
    """

    name: str
    jobs: int
    hours: float
    at_a_time: int
    memory_mb: float
    gigabytes: float = 0.0

    @property
    def job_seconds(self) -> float:
        """Seconds per job."""
        return 3600 * self.hours / max(1, self.jobs)

    @property
    def hours_here(self) -> float:
        """Hours with as many jobs at a time as the machine has room for."""
        return self.hours / max(1, min(self.at_a_time, self.jobs))


def forecast_tissue(n_slides: int, sample: CohortSample, machine: Machine, *, method: str) -> StageForecast:
    """Forecast the tissue stage.

    Args:
        n_slides: Slides.
        sample: The slides whose tissue was timed.
        machine: The resources.
        method: By which tissue is found.

    Returns:
        The forecast.
    """
    hours = n_slides * sample.tissue_seconds / 3600
    return StageForecast("tissue", n_slides, hours, machine.cores, TISSUE_MB[method])


def forecast_patch_encoder(n_patches: int, *, patch_px: int, epochs: int, patches_per_s: float) -> StageForecast:
    """Forecast the training of the patch encoder.

    Args:
        n_patches: Patches sampled from all slides.
        patch_px: Side of a patch, px.
        epochs: Epochs.
        patches_per_s: Patches trained on per second.

    Returns:
        The forecast; its files are the patches, which are deleted once it has trained.
    """
    hours, gigabytes = training_hours(n_patches, epochs, patches_per_s), n_patches * patch_px**2 * 3 / 1e9
    return StageForecast("patch_encoder", 1, hours, 1, PATCH_ENCODER_MB, gigabytes)


def forecast_tokens(
    name: str,
    slides: Sequence[SlideProbe],
    sample: CohortSample,
    encoder: EncoderSpeed,
    machine: Machine,
    *,
    region_px: int,
) -> StageForecast:
    """Forecast the tokens of one patch encoder.

    Args:
        name: The line's name.
        slides: The slides that open.
        sample: The slides whose regions were counted and timed.
        encoder: The speed of the patch encoder.
        machine: The resources.
        region_px: Side of a region, px.

    Returns:
        The forecast.
    """
    n_regions, encode_seconds = sample.expected_regions(slides), encoder.seconds_per_patch * encoder.patches_per_region
    threads = 1
    if machine.device == "cpu":
        region_seconds = sample.read_seconds + encode_seconds
    else:
        threads = min(READING_THREADS, max(1, machine.cores // max(1, machine.gpus)))
        region_seconds = max(sample.read_seconds / threads, encode_seconds)  # the next regions are read meanwhile
    hours = (n_regions * region_seconds + len(slides) * START_SECONDS) / 3600
    gigabytes = tokens_gb(n_regions, encoder.patches_per_region, encoder.token_dim, with_colors=True)
    memory_mb = encoding_mb(region_px, encoder.weights_gb, threads)
    return StageForecast(name, len(slides), hours, machine.gpus or machine.cores, memory_mb, gigabytes)


def forecast_pretrain(
    run: str, n_encoders: int, n_regions: float, *, epochs: int, regions_per_s: float, machine: Machine
) -> StageForecast:
    """Forecast a pretraining run.

    Args:
        run: Its name.
        n_encoders: Encoders that it trains: 1, or one per fold.
        n_regions: Regions that each of them is trained on.
        epochs: Epochs.
        regions_per_s: Regions trained on per second.
        machine: The resources.

    Returns:
        The forecast.
    """
    hours = n_encoders * training_hours(n_regions, epochs, regions_per_s)
    return StageForecast(f"pretrain {run}", n_encoders, hours, machine.gpus or 1, machine.pretrain_mb)


def forecast_evaluate(
    seconds_per_slide: Mapping[tuple[str, str], float], *, n_slides: int, n_folds: int, epochs: int, machine: Machine
) -> StageForecast:
    """Forecast the training of all classifiers on all folds.

    Args:
        seconds_per_slide: By features and classifier, the seconds to train on a slide once.
        n_slides: Slides.
        n_folds: Folds in all.
        epochs: Epochs of a network.
        machine: The resources.

    Returns:
        The forecast.
    """
    hours = sum(
        START_SECONDS / 3600 + training_hours(n_slides, classifier_epochs(classifier, epochs), 1 / seconds)
        for (_, classifier), seconds in seconds_per_slide.items()
    )
    return StageForecast("evaluate", n_folds * len(seconds_per_slide), n_folds * hours, machine.cores, EVALUATE_MB)


def format_hours(hours: float) -> str:
    """Format a time in hours, in minutes where it is below one.

    Args:
        hours: Hours.

    Returns:
        The text.
    """
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def format_forecast(stages: Sequence[StageForecast]) -> list[str]:
    """Format the forecast as a table of text.

    Args:
        stages: The forecasts of the stages.

    Returns:
        The lines: a heading, one per stage, and their sum.
    """
    line = "  {:24s} {:>8} {:>12} {:>12} {:>12} {:>10}".format
    lines = [line("stage", "jobs", "work", "takes here", "memory/job", "leaves")]
    for stage in stages:
        times = (format_hours(stage.hours), format_hours(stage.hours_here))
        memory, leaves = f"{stage.memory_mb:,.0f} MB", f"{stage.gigabytes:.2f} GB"
        lines.append(line(stage.name, f"{stage.jobs:,}", *times, memory, leaves))
    hours, here = sum(stage.hours for stage in stages), sum(stage.hours_here for stage in stages)
    jobs, gigabytes = sum(stage.jobs for stage in stages), sum(stage.gigabytes for stage in stages)
    return [*lines, line("all", f"{jobs:,}", format_hours(hours), format_hours(here), "", f"{gigabytes:.2f} GB")]
