"""Tables of an export: which files each slide has, and the labels in the form of each tool."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.runtime import log, name_some

VERSION = 1
TRUTH = {"regression": ["value"], "survival": ["time", "event"]}  # kind of a task -> columns of the truth


def truth_columns(labels: pd.DataFrame, kind: str, task: str) -> pd.DataFrame:
    """Name the truth of a task by the task.

    Args:
        labels: The `labels` table.
        kind: Of the task: classification, ordinal, regression or survival.
        task: Its name.

    Returns:
        Columns slide_id, patient_id and {task}, or {task}_time and {task}_event of survival.
    """
    columns = TRUTH.get(kind, ["label"])
    names = {column: task if len(columns) == 1 else f"{task}_{column}" for column in columns}
    return labels[["slide_id", "patient_id", *columns]].rename(columns=names)


def tabulate_patients(truths: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the truths of all tasks by patient, as STAMP's clinical table.

    Args:
        truths: Of each task, as `truth_columns` returns.

    Returns:
        Columns PATIENT and those of the tasks; a patient whose slides disagree on a task has no value of it.
    """
    table = pd.DataFrame({"PATIENT": sorted({patient for truth in truths for patient in truth["patient_id"]})})
    for truth in truths:
        columns = [name for name in truth if name not in ("slide_id", "patient_id")]
        distinct = truth[["patient_id", *columns]].drop_duplicates()
        torn = distinct.loc[distinct["patient_id"].duplicated(), "patient_id"].unique()
        if len(torn):
            log.warning("stamp: the slides of a patient differ in %s, left empty: %s", columns[0], name_some(torn))
        one = distinct[~distinct["patient_id"].isin(torn)].rename(columns={"patient_id": "PATIENT"})
        table = table.merge(one, "left", "PATIENT")
    return table


def _read_labels(path: Path) -> tuple[pd.DataFrame, artifacts.Meta]:
    """The `labels` table and its metadata, with the `classes` of the cohort, sorted where they have no order."""
    labels, meta = artifacts.read_table(path, "labels")
    classes = json.loads(meta["classes"]) or sorted(labels["label"].unique())
    return labels, meta | {"classes": json.dumps(classes)}


def write_bag_labels(labels: pd.DataFrame, meta: artifacts.Meta, paths: Mapping[str, str], folder: Path) -> None:
    """Write the label of each slide as torchmil reads it: a class's number, a value, or time and event.

    Args:
        labels: The `labels` table.
        meta: Its metadata; `kind` and `classes`.
        paths: Names of `labels` with {slide}, and of `classes`.
        folder: Of the format.
    """
    if meta["kind"] in TRUTH:
        values = labels[TRUTH[meta["kind"]]].to_numpy(np.float32)
    else:
        classes = json.loads(meta["classes"])
        values = labels["label"].map(classes.index).to_numpy(np.int64)[:, None]
        table = pd.DataFrame({"index": range(len(classes)), "label": classes})
        artifacts.write_csv(folder / paths["classes"], table)
    for slide_id, value in zip(labels["slide_id"], values, strict=True):
        artifacts.write_npy(folder / paths["labels"].format(slide=slide_id), value)


def write_label_tables(
    folder: Path, name: str, slides: pd.DataFrame, labels: Mapping[str, tuple[pd.DataFrame, artifacts.Meta]]
) -> None:
    """Write the tables of a format.

    Args:
        folder: Of the format.
        name: Of the format.
        slides: Columns slide_id and patient_id of the slides that have files.
        labels: Of each task the `labels` table and its metadata.
    """
    tables = config.EXPORT_FORMATS[name].tables
    exported = {
        task: (table[table["slide_id"].isin(slides["slide_id"])], meta) for task, (table, meta) in labels.items()
    }
    if name == "stamp":
        files = slides["slide_id"] + ".h5"
        artifacts.write_csv(
            folder / tables["slides"], pd.DataFrame({"PATIENT": slides["patient_id"], "FILENAME": files})
        )
        truths = [truth_columns(table, meta["kind"], task) for task, (table, meta) in exported.items()]
        artifacts.write_csv(folder / tables["clinical"], tabulate_patients(truths))
    for task, (table, meta) in exported.items():
        if name == "clam":
            truth = truth_columns(table, meta["kind"], "label").rename(columns={"patient_id": "case_id"})
            path = folder / tables["labels"].format(task=task)
            artifacts.write_csv(path, truth[["case_id", *truth.columns.drop("case_id")]])
        elif name == "torchmil":
            paths = {part: text.replace("{task}", task) for part, text in tables.items()}
            write_bag_labels(table, meta, paths, folder)


def tabulate_records(records: Sequence[Mapping[str, Any]], name: str) -> pd.DataFrame:
    """Count the files of each slide in a format.

    Args:
        records: As `export.run` writes them.
        name: Of the format.

    Returns:
        Columns slide_id, status, reason and files, the number of its files.
    """
    rows = [(one["slide_id"], one["status"], one["reason"], len(one["files"].get(name, ()))) for one in records]
    return pd.DataFrame(rows, columns=["slide_id", "status", "reason", "files"])


def run(
    *,
    record_paths: Sequence[Path],
    sheet_path: Path,
    label_paths: Mapping[str, Path],
    out_dir: Path,
    formats: Sequence[str],
) -> None:
    """Write {format}/exported.csv, one row per slide, and the tables of labels of each format.

    Args:
        record_paths: Of each slide, as `export.run` writes it.
        sheet_path: The checked sheet.
        label_paths: Of the labels of each task.
        out_dir: Folder of the formats' folders.
        formats: To write.
    """
    records = [artifacts.read_json(path) for path in record_paths]
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    labels = {task: _read_labels(path) for task, path in label_paths.items()}
    for name in formats:
        table = tabulate_records(records, name)
        with_files = sheet[sheet["slide_id"].isin(table.loc[table["files"] > 0, "slide_id"])]
        if config.EXPORT_FORMATS[name].tables:
            write_label_tables(out_dir / name, name, with_files.reset_index(drop=True), labels)
        artifacts.write_csv(out_dir / name / "exported.csv", table)
        log.info("%s: %d of %d slides", name, len(with_files), len(table))
    for one in records:
        if one["status"] != artifacts.OK:
            log.warning("%s has no features, %s: %s", one["slide_id"], one["status"], one["reason"])
