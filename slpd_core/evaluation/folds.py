"""Folds: which slides train, validate and test; no patient is ever on both sides. Or imported splits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import CLASSIFICATION, Classification, read_endpoint
from slpd_core.evaluation import imported_splits, split_audit
from slpd_core.evaluation.partition import group_ids, hold_out, partition
from slpd_core.runtime import generator, log

VERSION = 11
FOLD_PARTS = ("train", "val", "test", "unlabeled")


def group_slides(
    slides: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION, *, n_folds: int = 10, group_by: str = "patient"
) -> pd.DataFrame:
    """Group slides for leak-free folds, and check that they can be divided.

    Args:
        slides: Columns slide_id, patient_id, label, and site where it groups.
        endpoint: What the task predicts; labels are checked only where they are classes.
        n_folds: Folds of a partition.
        group_by: As in `group_ids`.

    Returns:
        Columns slide_id, label and, as patient_id, the group.

    Raises:
        ValueError: There is no slide, one label only, a label of one group only, or fewer groups than folds.
    """
    if slides.empty:
        raise ValueError("no slide is left: all are quarantined or without tissue; the ledger names the reasons")
    groups = slides[["slide_id", "label"]].assign(patient_id=group_ids(slides, group_by))
    n_groups, labels = groups["patient_id"].nunique(), sorted(slides["label"].unique())
    if endpoint.has_classes and len(labels) < 2:
        raise ValueError(f"only one label is left ({labels[0]}); add slides of another")
    counts = groups.groupby("label")["patient_id"].nunique()
    if endpoint.has_classes and (counts < 2).any():
        raise ValueError(
            f"label {counts.idxmin()!r} has one {group_by} only: no fold can train and test it; add {group_by}s"
        )
    if n_groups < n_folds:
        raise ValueError(
            f"folds.n_folds: {n_folds} folds, but only {n_groups} {group_by}s; lower it to {n_groups} or "
            f"add {group_by}s"
        )
    return groups


def require_folds(
    slides: pd.DataFrame,
    split_paths: Sequence[Path] = (),
    endpoint: Endpoint = CLASSIFICATION,
    *,
    n_folds: int = 10,
    group_by: str = "patient",
) -> None:
    """Check before any work that a sheet's slides can be divided, or that the imported splits name them.

    Args:
        slides: Columns slide_id, patient_id, label ("" where a slide has none), the truth, site.
        split_paths: Imported splits, fold after fold; without any, folds are drawn.
        endpoint: What the task predicts.
        n_folds, group_by: As in `make_folds`.

    Raises:
        ValueError: They cannot be divided.
    """
    if split_paths:
        imported, _ = imported_splits.import_folds(split_paths, slides.assign(status=artifacts.OK))
        require_training(add_truth(imported, slides, endpoint), endpoint)
    else:
        group_slides(slides[slides["label"] != ""], endpoint, n_folds=n_folds, group_by=group_by)


def add_truth(folds: pd.DataFrame, slides: pd.DataFrame, endpoint: Endpoint) -> pd.DataFrame:
    """Add the columns of the truth to folds.

    Args:
        folds: Columns of the `folds` table.
        slides: Columns slide_id and the truth.
        endpoint: What the task predicts.

    Returns:
        The folds, in their order.
    """
    truth = slides.set_index("slide_id")[[*endpoint.targets]].loc[folds["slide_id"]].infer_objects()
    return folds.assign(**{name: truth[name].to_numpy() for name in endpoint.targets})


def require_training(folds: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> None:
    """Require that a classifier can be trained on each fold.

    Args:
        folds: A `folds` table, with the truth.
        endpoint: What the task predicts.

    Raises:
        ValueError: A training part has one label only, or no event.
    """
    for fold, rows in folds[folds["part"] == "train"].groupby("fold"):
        if problem := endpoint.find_training_problem(rows):
            raise ValueError(f"fold {fold}: {problem}; lower folds.n_folds or add slides")


def make_folds(
    slides: pd.DataFrame,
    seed: int,
    endpoint: Endpoint = CLASSIFICATION,
    *,
    n_folds: int = 10,
    n_repeats: int = 1,
    group_by: str = "patient",
    val_fraction: float = 0.0,
    train_fraction: float = 1.0,
) -> pd.DataFrame:
    """Draw folds grouped by patient or site and stratified by label; each repeat tests every slide once.

    Args:
        slides: Columns slide_id, patient_id, label, and site where it groups; in any order.
        seed: Of all draws.
        endpoint: What the task predicts.
        n_folds: Folds of a partition.
        n_repeats: Partitions.
        group_by: "patient" or "site", as in `group_ids`.
        val_fraction: Of the training patients, for validation.
        train_fraction: Of the other training patients, those that train; the rest is `unlabeled`.

    Returns:
        Columns fold, slide_id, patient_id, label, part; a row per fold and slide.

    Raises:
        ValueError: As `group_slides`.
    """
    slides = slides.sort_values("slide_id", ignore_index=True)
    groups = group_slides(slides, endpoint, n_folds=n_folds, group_by=group_by)
    counts = groups.groupby("label")["patient_id"].nunique()
    if endpoint.has_classes and (counts < n_folds).any():
        rare = ", ".join(f"{label} ({counts[label]})" for label in counts.index[counts < n_folds])
        log.warning(
            "fewer %ss than folds for %s: some test parts lack the label, and are scored without it", group_by, rare
        )
    tables = []
    for repeat in range(n_repeats):
        test_fold = partition(groups, n_folds, seed, repeat)
        for i in range(n_folds):
            fold = repeat * n_folds + i
            part = np.where(test_fold == i, "test", "train").astype(object)
            for name, fraction, keys in (
                ("val", val_fraction, (fold,)),
                ("unlabeled", 1 - train_fraction, ("spare", fold)),  # the seed keeps the part's first name
            ):
                chosen = hold_out(groups[part == "train"], fraction, generator(seed, "folds", *keys))
                part[(part == "train") & groups["patient_id"].isin(chosen).to_numpy()] = name
            tables.append(slides.assign(fold=fold, part=part))
    return pd.concat(tables, ignore_index=True)[[*artifacts.TABLES["folds"]]]


def require_equal_labels(slides: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> None:
    """Check that slides of equal content have the same label.

    Args:
        slides: Columns slide_id, slide_fingerprint, and the truth.
        endpoint: What the task predicts.

    Raises:
        ValueError: Some differ; names them.
    """
    problems = []
    for _, rows in slides.groupby("slide_fingerprint", sort=False):
        truth = rows[[*endpoint.targets]].drop_duplicates()
        if len(truth) > 1:
            values = ", ".join(" and ".join(map(repr, one)) for one in truth.itertuples(index=False, name=None))
            problems.append(
                f"{', '.join(rows['slide_id'])} are the same slide, byte for byte, of labels {values}; correct the "
                "labels or remove all but one"
            )
    if problems:
        raise ValueError("\n  ".join(problems))


def run(
    *,
    ledger_path: Path,
    sheet_path: Path,
    labels_path: Path,
    out_path: Path,
    remarks_path: Path,
    section: config.FoldsConfig,
    seed: int,
) -> None:
    """Write the folds of a task's usable slides, and the table of remarks on them.

    Args:
        ledger_path: The cohort's ledger.
        sheet_path: The checked sheet, for the sites.
        labels_path: The labels of the task.
        out_path: The `folds` table.
        remarks_path: The `remarks` table.
        section: Of the config.
        seed: Of all draws.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    labels, labels_meta = artifacts.read_table(labels_path, "labels")
    slides = ledger.merge(sheet[["slide_id", "site"]], on="slide_id", how="left")
    slides = slides.merge(labels.drop(columns="patient_id"), on="slide_id", how="left").fillna({"label": ""})
    usable = slides[(slides["status"] == artifacts.OK) & (slides["label"] != "")]
    endpoint = read_endpoint(labels_meta)
    require_equal_labels(usable, endpoint)
    issues = split_audit.audit_slides(slides)
    if section.splits_dir:
        folds, import_issues = imported_splits.import_folds(section.files, slides)
        issues += import_issues
    else:
        folds = make_folds(
            usable,
            seed,
            endpoint,
            n_folds=section.n_folds,
            n_repeats=section.n_repeats,
            group_by=section.group_by,
            val_fraction=section.val_fraction,
            train_fraction=section.train_fraction,
        )
    folds = add_truth(folds, labels, endpoint)
    require_training(folds, endpoint)
    remarks = split_audit.tabulate_issues(issues + split_audit.audit_folds(folds, endpoint))
    for fold, rows in folds.groupby("fold"):
        counts = rows["part"].value_counts().to_dict()
        log.info("fold %d: %s", fold, ", ".join(f"{counts[part]} {part}" for part in FOLD_PARTS if part in counts))
    files = map(artifacts.file_fingerprint, section.files)
    inputs = [meta["fingerprint"], labels_meta["fingerprint"], str(seed), *files]
    provenance = artifacts.provenance("folds", VERSION, section.model_dump(), *inputs)
    if endpoint.kind == "classification":
        endpoint = Classification(tuple(sorted(folds["label"].unique())))
    provenance |= {"ledger": meta["fingerprint"], "task": labels_meta["task"]} | endpoint.meta
    provenance |= imported_splits.recognize_splits(section.files)
    artifacts.write_table(out_path, "folds", folds, provenance)
    artifacts.write_both(remarks_path, "remarks", remarks, provenance)
