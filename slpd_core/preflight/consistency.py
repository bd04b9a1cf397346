"""Check settings, sheets and splits against one another when the workflow is parsed, before any slide is opened."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.evaluation import folds, imported_splits, split_audit
from slpd_core.preflight import weights
from slpd_core.slides import sheet as sheets

ENCODER_SHAPE = ("embed_dim", "depth", "n_heads", "global_crop_size")  # settings of a run that its start must share


def require_cohort(
    settings: config.Config, sheet: pd.DataFrame, gpus: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Check before any work that a cohort can be divided into folds and pretrained on.

    Args:
        settings: The whole config.
        sheet: The cohort's sheet, as `read_sheet` returns it.
        gpus: By rule, the GPUs of its jobs where the command line gives them several.

    Raises:
        ValueError: Names every setting that the cohort cannot meet.
    """
    problems = []
    try:
        folds.require_folds(
            sheet, settings.folds.files, n_folds=settings.folds.n_folds, group_by=settings.folds.group_by
        )
    except ValueError as error:
        problems.append(str(error))
    for key, encoder in settings.patch_encoder.encoders().items():
        paths, options = [*map(Path, encoder.files)], encoder.model_dump(include={"weights", "model_kwargs"})
        problems += weights.find_weights_problems(key, paths, encoder.name, **options)
    runs = {f"pretrain.runs.{name}": settings.pretrain.run(name) for name in settings.pretrain.runs}
    shapes = {key: {name: getattr(run, name) for name in ENCODER_SHAPE} for key, run in runs.items()}
    parts = {"all": [sheet]}
    if any(run.train_on == "train_fold" for run in runs.values()):
        parts["train_fold"] = _split_training(settings, sheet)
    for key, run in runs.items():
        problems += _check_run(key, run, parts[run.train_on])
        if run.init_from:
            problems += _check_start(key, Path(run.init_from), shapes[key], shapes, settings.cohort)
        problems += _check_batch(key, run.batch_size, gpus.get("pretrain", 1))
    if recipe := settings.patch_encoder.recipe:
        problems += _check_batch("patch_encoder.dino", recipe.batch_size, gpus.get("patch_encoder", 1))
    if problems:
        raise ValueError("\n  ".join(dict.fromkeys(problems)))


def find_cohort_doubts(sheet: pd.DataFrame, split_paths: Sequence[Path] = ()) -> list[str]:
    """Find doubts about sheet and splits, which stop nothing but should be looked at.

    Args:
        sheet: The cohort's sheet.
        split_paths: Imported splits, one file per fold.

    Returns:
        One line per doubt.
    """
    doubts = sheets.find_ambiguities(sheet)
    if split_paths:
        table, issues = imported_splits.import_folds(split_paths, sheet.assign(status=artifacts.OK))
        issues += split_audit.audit_folds(table)
        doubts += [f"folds.splits_dir: {line}" for line in split_audit.describe_issues(issues)]
    return doubts


def _check_batch(key: str, batch_size: int, gpus: int) -> Iterator[str]:
    """Yield the batch size where the GPUs of a job cannot share it evenly."""
    if batch_size % gpus:
        yield f"{key}.batch_size: {batch_size} does not divide among {gpus} GPUs; make it a multiple of {gpus}"


def _split_training(settings: config.Config, sheet: pd.DataFrame) -> list[pd.DataFrame]:
    """The training slides of each fold; the whole sheet where no folds can be made, an error of its own."""
    try:
        table = _plan_folds(settings, sheet)
    except ValueError:
        return [sheet]
    return [part for _, part in table[table["part"].isin(artifacts.PRETRAINING_PARTS)].groupby("fold")]


def _plan_folds(settings: config.Config, sheet: pd.DataFrame) -> pd.DataFrame:
    """The folds of the sheet's slides, as if all of them were usable."""
    section = settings.folds
    if section.files:
        return imported_splits.import_folds(section.files, sheet.assign(status=artifacts.OK))[0]
    return folds.make_folds(
        sheet,
        settings.seed,
        n_folds=section.n_folds,
        n_repeats=section.n_repeats,
        group_by=section.group_by,
        val_fraction=section.val_fraction,
        train_fraction=section.train_fraction,
    )


def _check_run(key: str, run: config.PretrainRunConfig, parts: Sequence[pd.DataFrame]) -> Iterator[str]:
    """Yield every setting of a run that its cohort cannot meet; parts: the training slides of each encoder."""
    if run.alpha_inter and run.inter_target != "any_region":
        unit, column = ("patients", "patient_id") if run.exclude_same_patient else ("slides", "slide_id")
        max_neighbors = min(part[column].nunique() for part in parts) - 1
        if run.n_neighbors > max_neighbors:
            where = "" if run.train_on == "all" else " that train in a fold"
            yield (
                f"{key}.n_neighbors: {run.n_neighbors} of {max_neighbors} other {unit}{where}; lower it to "
                f"{max_neighbors} or add {unit}"
            )


def _check_start(
    key: str, path: Path, shape: Mapping[str, int], shapes: Mapping[str, Mapping[str, int]], cohort: str
) -> Iterator[str]:
    """Yield why a run of this shape cannot begin with an encoder: another run's (shapes, by its key), or a file."""
    other = path.parent.name.partition(".")[0]
    first = shapes.get(f"pretrain.runs.{other}")
    if path.parent.parent == Path("results", cohort, "pretrain") and first is not None:
        for name in ENCODER_SHAPE:
            if first[name] != shape[name]:
                yield (
                    f"{key}.{name}: {shape[name]}, but it begins with run {other}, whose {name} is {first[name]}; "
                    "write both alike"
                )
        return
    from slpd_core.encoders.region_encoder import load_region_weights  # seconds, for torch: only where a file is named

    try:
        load_region_weights(
            path, (None, shape["embed_dim"], shape["depth"], shape["n_heads"], shape["global_crop_size"])
        )
    except (ValueError, OSError) as error:
        yield str(error)
