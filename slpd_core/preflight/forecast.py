"""What a run will take, stage by stage: jobs, hours of work, gigabytes that stay."""

from dataclasses import dataclass

from slpd_core import config
from slpd_core.preflight import throughput
from slpd_core.preflight.slides import CohortSample, SlideProbe
from slpd_core.workflow.forecast import training_hours

START_SECONDS = 3.0  # of a job that loads PyTorch
COLOUR_BYTES = 6  # of a patch, beside its token


@dataclass(frozen=True)
class Machine:
    """What the run may use at a time: GPUs, or without any, cores. device: cuda or cpu."""

    cores: int
    gpus: int
    device: str


@dataclass(frozen=True)
class Stage:
    """A stage to come: its jobs, the hours they take one after another, how many run at a time, what they leave."""

    name: str
    jobs: int
    hours: float
    at_a_time: int
    gigabytes: float = 0.0

    @property
    def hours_here(self) -> float:
        """Hours with as many jobs at a time as the machine has room for."""
        return self.hours / max(1, min(self.at_a_time, self.jobs))


@dataclass(frozen=True)
class Encoder:
    """A patch encoder tried out: seconds a patch, the length of its tokens, the patches of a region."""

    seconds: float
    token_dim: int
    patches: int

    @property
    def region_bytes(self) -> int:
        """What a region's tokens take."""
        return self.patches * (2 * self.token_dim + COLOUR_BYTES)


def of_slides(
    settings: config.Config,
    slides: list[SlideProbe],
    sample: CohortSample,
    encoders: dict[str, Encoder],
    machine: Machine,
) -> list[Stage]:
    """The stages from pixels to tokens; encoders: by the name that evaluate.rows has for them, "patch" the own."""
    n, R = len(slides), sample.regions_of(slides)
    workers = machine.gpus or machine.cores
    stages = [Stage("tissue", n, n * sample.tissue_seconds / 3600, machine.cores)]
    if recipe := settings.patch_encoder.recipe:
        own, per_slide = settings.patch_encoder.own, settings.patches.patches_per_slide
        rate = throughput.patches_a_second(own, recipe, machine.device)
        patches_gb = n * per_slide * own.patch_px**2 * 3 / 1e9
        hours = training_hours(n * per_slide, recipe.epochs, rate)
        stages.append(Stage("patch_encoder", 1, hours, 1, patches_gb))
    for name, found in encoders.items():
        a_region = max(sample.read_seconds, found.seconds * found.patches)  # the next is read meanwhile
        if machine.device == "cpu":
            a_region = sample.read_seconds + found.seconds * found.patches
        hours = (R * a_region + n * START_SECONDS) / 3600
        title = "tokens" if name == config.PATCH_FEATURES else f"tokens of {name}"
        stages.append(Stage(title, n, hours, workers, R * found.region_bytes / 1e9))
    return stages


def of_pretraining(settings: config.Config, regions: int, token_dim: int, machine: Machine) -> list[Stage]:
    """The pretraining runs, each an encoder of all slides or one a fold."""
    stages = []
    runs = {name: settings.pretrain.run(name) for name in settings.pretrain.runs}
    rate: dict[bool, float] = {}
    for name, run in runs.items():
        if run.uses_prototypes not in rate:
            rate[run.uses_prototypes] = throughput.regions_a_second(run, settings.grid, token_dim, machine.device)
        jobs = 1 if run.slides == "all" else settings.folds.count
        share = 1.0 if run.slides == "all" else 1 - 1 / max(2, settings.folds.n_folds)
        hours = jobs * training_hours(share * regions, run.epochs, rate[run.uses_prototypes])
        stages.append(Stage(f"pretrain {name}", jobs, hours, machine.gpus or 1))
    return stages


def of_evaluation(
    settings: config.Config, slides: int, regions: int, encoders: dict[str, Encoder], machine: Machine
) -> Stage:
    """All rows and folds."""
    section, folds = settings.evaluate.training, settings.folds.count
    a_slide, hours, jobs = regions / max(1, slides), 0.0, 0
    for features, classifiers in settings.evaluate.rows.items():
        if features in settings.pretrain.runs:
            rows, dim = round(a_slide), settings.pretrain.run(features).embed_dim
        else:
            own = encoders.get(features, encoders[config.PATCH_FEATURES])
            rows, dim = round(a_slide * own.patches), 3 if features == config.COLOUR_FEATURES else own.token_dim
        for classifier in classifiers:
            epochs = 1 if classifier in ("knn", "logreg") else section.epochs
            once = throughput.seconds_a_slide(classifier, section, rows, dim)
            hours += folds * (START_SECONDS / 3600 + training_hours(slides, epochs, 1 / once))
            jobs += folds
    return Stage("evaluate", jobs, hours, machine.cores)


def duration(hours: float) -> str:
    """Hours in words, minutes where they are few."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def table(stages: list[Stage]) -> list[str]:
    """The forecast as lines of text."""
    line = "  {:24s} {:>8} {:>12} {:>12} {:>10}".format
    lines = [line("stage", "jobs", "work", "takes here", "leaves")]
    lines += [
        line(
            stage.name,
            f"{stage.jobs:,}",
            duration(stage.hours),
            duration(stage.hours_here),
            f"{stage.gigabytes:.2f} GB",
        )
        for stage in stages
    ]
    jobs = sum(stage.jobs for stage in stages)
    hours, here = sum(stage.hours for stage in stages), sum(stage.hours_here for stage in stages)
    gigabytes = sum(stage.gigabytes for stage in stages)
    return [*lines, line("all", f"{jobs:,}", duration(hours), duration(here), f"{gigabytes:.2f} GB")]
