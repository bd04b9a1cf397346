"""Check settings, sheets and splits against one another when the workflow is parsed, before any slide is opened."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import CLASSIFICATION
from slpd_core.evaluation import folds, imported_splits, split_audit
from slpd_core.evaluation.labels import describe_divided, find_label_doubts
from slpd_core.preflight import weights
from slpd_core.runtime import name_some
from slpd_core.slides import sheet as sheets

ENCODER_SHAPE = ("embed_dim", "depth", "n_heads", "global_crop_size")  # settings of a run that its start must share


def require_cohort(
    settings: config.Config,
    sheet: pd.DataFrame,
    labels: Mapping[str, pd.DataFrame],
    gpus: Mapping[str, int] = MappingProxyType({}),
    endpoints: Mapping[str, Endpoint] = MappingProxyType({}),
) -> None:
    """Check before any work that a cohort can be divided into folds and pretrained on.

    Args:
        settings: The whole config.
        sheet: The cohort's sheet, as `read_sheet` returns it.
        labels: Of each task, as `labels.read_labels` returns them.
        gpus: By rule, the GPUs of its jobs where the command line gives them several.
        endpoints: Of each task; by default classification.

    Raises:
        ValueError: Names every setting that the cohort cannot meet.
    """
    problems = []
    slides = {task: _join_labels(sheet, table) for task, table in labels.items()}
    for task, table in slides.items():
        try:
            folds.require_folds(
                table,
                settings.folds.files,
                endpoints.get(task, CLASSIFICATION),
                n_folds=settings.folds.n_folds,
                group_by=settings.folds.group_by,
            )
        except ValueError as error:
            problems.append(f"task {task}: {error}" if len(slides) > 1 else str(error))
        else:
            problems += _check_bags(settings, task, table, endpoints.get(task, CLASSIFICATION))
            problems += _check_validation(settings, table, endpoints.get(task, CLASSIFICATION))
    for key, encoder in settings.patch_encoder.encoders().items():
        paths, options = [*map(Path, encoder.files)], encoder.model_dump(include={"weights", "model_kwargs"})
        problems += weights.find_weights_problems(key, paths, encoder.name, **options)
    runs = {f"pretrain.runs.{name}": settings.pretrain.run(name) for name in settings.pretrain.runs}
    shapes = {key: {name: getattr(run, name) for name in ENCODER_SHAPE} for key, run in runs.items()}
    for key, run in runs.items():
        fold_task = settings.pretrain.fold_task or next(iter(slides), "")
        followed = slides.get(fold_task)
        per_fold = run.train_on == "train_fold" and followed is not None
        parts = _split_training(settings, followed, endpoints.get(fold_task, CLASSIFICATION)) if per_fold else [sheet]
        problems += _check_run(key, run, parts)
        if run.init_from:
            problems += _check_start(key, Path(run.init_from), shapes[key], shapes, settings.cohort)
        problems += _check_batch(key, run.batch_size, gpus.get("pretrain", 1))
    if recipe := settings.patch_encoder.recipe:
        problems += _check_batch("patch_encoder.dino", recipe.batch_size, gpus.get("patch_encoder", 1))
    if problems:
        raise ValueError("\n  ".join(dict.fromkeys(problems)))


def _check_bags(settings: config.Config, task: str, slides: pd.DataFrame, endpoint: Endpoint) -> Iterator[str]:
    """Yield why the slides of a patient cannot be one bag, or why a fold has nothing to train a number or survival."""
    labeled = slides[slides["label"] != ""].infer_objects()
    if settings.evaluate.bags == "patient" and (divided := endpoint.find_divided_patients(labeled)):
        yield f"task {task}: {describe_divided(divided)}"
    if not endpoint.has_classes and not settings.folds.files:
        try:
            folds.require_training(
                folds.add_truth(_plan_folds(settings, slides, endpoint), labeled, endpoint), endpoint
            )
        except ValueError as error:
            yield f"task {task}: {error}"


def _check_validation(settings: config.Config, slides: pd.DataFrame, endpoint: Endpoint) -> Iterator[str]:
    """Yield the folds of a task without validation slides where these choose the epoch of a network."""
    names = {name for names in settings.evaluate.classifiers.values() for name in names}
    if settings.evaluate.training.select == "last" or names.isdisjoint(config.NETWORK_CLASSIFIERS):
        return
    table = _plan_folds(settings, slides, endpoint)
    lacking = sorted({*table["fold"]} - {*table.loc[table["part"] == "val", "fold"]})
    if lacking:
        remedy = "add them to the splits" if settings.folds.splits_dir else "raise folds.val_fraction"
        yield f"evaluate.select: val, but fold {name_some(map(str, lacking))} has no validation slides; {remedy}"


def _join_labels(sheet: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The sheet with the columns of a task's labels; label is "" where a slide has none."""
    truth = labels.drop(columns="patient_id", errors="ignore")
    return sheet.merge(truth, on="slide_id", how="left").fillna({"label": ""})


def find_cohort_doubts(
    sheet: pd.DataFrame,
    labels: Mapping[str, pd.DataFrame],
    split_paths: Sequence[Path] = (),
    endpoints: Mapping[str, Endpoint] = MappingProxyType({}),
) -> list[str]:
    """Find doubts about sheet, labels and splits, which stop nothing but should be looked at.

    Args:
        sheet: The cohort's sheet.
        labels: As in `require_cohort`.
        split_paths: Imported splits, one file per fold.
        endpoints: As in `require_cohort`.

    Returns:
        One line per doubt.
    """
    doubts = sheets.find_ambiguities(sheet)
    for task, table in labels.items():
        endpoint = endpoints.get(task, CLASSIFICATION)
        doubts += [f"task {task}: {line}" for line in find_label_doubts(table, endpoint)]
        if split_paths:
            slides = _join_labels(sheet, table).assign(status=artifacts.OK)
            imported, issues = imported_splits.import_folds(split_paths, slides)
            issues += split_audit.audit_folds(folds.add_truth(imported, table, endpoint), endpoint)
            doubts += [f"folds.splits_dir: {line}" for line in split_audit.describe_issues(issues)]
    return doubts


def _check_batch(key: str, batch_size: int, gpus: int) -> Iterator[str]:
    """Yield the batch size where the GPUs of a job cannot share it evenly."""
    if batch_size % gpus:
        yield f"{key}.batch_size: {batch_size} does not divide among {gpus} GPUs; make it a multiple of {gpus}"


def _split_training(settings: config.Config, slides: pd.DataFrame, endpoint: Endpoint) -> list[pd.DataFrame]:
    """The training slides of each fold; all slides where no folds can be made, an error of its own."""
    try:
        table = _plan_folds(settings, slides, endpoint)
    except ValueError:
        return [slides]
    return [part for _, part in table[table["part"].isin(artifacts.PRETRAINING_PARTS)].groupby("fold")]


def _plan_folds(settings: config.Config, slides: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """The folds of a task's slides, as if all of them were usable."""
    section = settings.folds
    if section.files:
        return imported_splits.import_folds(section.files, slides.assign(status=artifacts.OK))[0]
    return folds.make_folds(
        slides[slides["label"] != ""],
        settings.seed,
        endpoint,
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
