"""What needs only texts: settings, sheets and splits held against one another when the workflow is read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation import folds, imported_splits, split_audit
from slpd_core.preflight import weights
from slpd_core.slides import sheet as sheets


def require_cohort(
    settings: config.Config, sheet: pd.DataFrame, gpus: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Check before any work that a cohort can be divided into folds and pretrained on as the settings say.

    sheet: as `read_sheet` returns it. gpus: rule -> GPUs that a job of it was given on the command line. Raises
    ValueError naming every setting that cannot be.
    """
    problems = []
    try:
        folds.require_folds(sheet, settings.folds)
    except ValueError as error:
        problems.append(str(error))
    for key, encoder in settings.patch_encoder.each().items():
        problems += weights.find_problems(key, encoder)
    runs = {f"pretrain.runs.{name}": settings.pretrain.run(name) for name in settings.pretrain.runs}
    parts = {"all": [sheet]}
    if any(run.slides == "train_only" for run in runs.values()):
        parts["train_only"] = _split_training(settings, sheet)
    for key, run in runs.items():
        problems += _check_run(key, run, settings, parts[run.slides])
    problems += _check_batches(settings, gpus)
    if problems:
        raise ValueError("\n  ".join(dict.fromkeys(problems)))


def find_doubts(settings: config.Config, sheet: pd.DataFrame) -> list[str]:
    """Return what sheet and splits leave in doubt, a line each: it stops nothing, and should be looked at."""
    doubts = sheets.find_doubts(sheet)
    if settings.folds.splits:
        made, remarked = imported_splits.import_folds(settings.folds.files, sheet.assign(status=artifacts.OK))
        doubts += [f"folds.splits: {line}" for line in split_audit.count(remarked + split_audit.audit_folds(made))]
    return doubts


def _check_batches(settings: config.Config, gpus: Mapping[str, int]) -> Iterator[str]:
    """Every batch that the GPUs of a job cannot share evenly."""
    batches = {f"pretrain.runs.{name}": settings.pretrain.run(name).batch_size for name in settings.pretrain.runs}
    jobs = [("pretrain", key, size) for key, size in batches.items()]
    if settings.patch_encoder.recipe:
        jobs.append(("patch_encoder", "patch_encoder.dino", settings.patch_encoder.recipe.batch_size))
    for rule, key, size in jobs:
        if size % (count := gpus.get(rule, 1)):
            yield f"{key}.batch_size: {size} does not divide among {count} GPUs; make it a multiple of {count}"


def _split_training(settings: config.Config, sheet: pd.DataFrame) -> list[pd.DataFrame]:
    """The slides that pretraining sees in each fold; the sheet where no folds can be made, which is named by itself."""
    try:
        made = folds.plan_folds(sheet, settings.folds, settings.seed)
    except ValueError:
        return [sheet]
    return [part for _, part in made[made["part"].isin(artifacts.PRETRAINING_PARTS)].groupby("fold")]


def _check_run(
    key: str, run: config.PretrainRunConfig, settings: config.Config, parts: Sequence[pd.DataFrame]
) -> Iterator[str]:
    """Every setting of a pretraining run that its cohort cannot meet; parts: the slides that each encoder sees."""
    if run.alpha_inter and run.inter != "any_region":
        unit, column = ("patients", "patient_id") if run.exclude_same_patient else ("slides", "slide_id")
        most = min(part[column].nunique() for part in parts) - 1
        if run.n_neighbors > most:
            where = "" if run.slides == "all" else " that train in a fold"
            yield (
                f"{key}.n_neighbors: {run.n_neighbors} of {most} other {unit}{where}; lower it to {most} or add {unit}"
            )
    if run.init_from:
        yield from _check_start(key, run, settings)


def _check_start(key: str, run: config.PretrainRunConfig, settings: config.Config) -> Iterator[str]:
    """Why a run cannot begin with the encoder it names: another run's of this cohort, or a file."""
    path = Path(run.init_from or "")
    other = path.parent.name.partition(".")[0]
    if path.parent.parent == Path("results", settings.cohort, "pretrain") and other in settings.pretrain.runs:
        first = settings.pretrain.run(other)
        for name in ("embed_dim", "depth", "n_heads", "global_crop_size"):
            if getattr(first, name) != getattr(run, name):
                yield (
                    f"{key}.{name}: {getattr(run, name)}, but it begins with run {other}, whose {name} is "
                    f"{getattr(first, name)}; write both alike"
                )
        return
    from slpd_core.encoders.region_encoder import read_state  # seconds, for torch: only where a file is named

    try:
        read_state(path, (None, run.embed_dim, run.depth, run.n_heads, run.global_crop_size))
    except (ValueError, OSError) as error:
        yield str(error)
