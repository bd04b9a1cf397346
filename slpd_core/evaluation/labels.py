"""Labels: the truth of a task for each slide that has it, from the sheet or a table of its own."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, group_alike, loosen_id
from slpd_core.artifacts.spreadsheets import row_of_problem
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import CLASSIFICATION, make_endpoint
from slpd_core.evaluation.label_table import DEFAULT_TASK, TruthColumns, find_id_doubts, match_ids, read_truth
from slpd_core.runtime import log, name_some

VERSION = 2


def read_labels(
    path: Path,
    slides: pd.DataFrame,
    endpoint: Endpoint = CLASSIFICATION,
    *,
    task: str = DEFAULT_TASK,
    columns: Sequence[str] = (DEFAULT_TASK,),
    key: str = "slide_id",
    id_column: str = "",
    external: bool = False,
) -> pd.DataFrame:
    """Read the truth of each slide that has one.

    Args:
        path: A table of labels, one row per slide or patient.
        slides: Columns slide_id and patient_id, one row per slide of the cohort.
        endpoint: What the task predicts.
        task: Its name, for errors.
        columns: Columns of the truth, in the order of the endpoint's targets.
        key: What the rows belong to: slide_id or patient_id.
        id_column: Column of these ids; "" if it is called as `key`.
        external: Whether the slides are of an external cohort, which may have any classes, one or none.

    Returns:
        Columns slide_id, patient_id, label and the endpoint's targets, one row per slide that has all of them, in the
        order of `slides`.

    Raises:
        ValueError: The table lacks a column, has two values of one id, or values that no fold can use; names all, each
            with its row (the header is row 1).
    """
    content = read_truth(path, columns=columns, id_column=id_column or key)
    matches = match_ids(content.values.keys(), slides[key].to_list(), key=key)
    parsed, problems = _parse_truth(content, {*matches.values()}, endpoint, columns)
    labeled = slides.loc[[matches.get(name) in parsed for name in slides[key]], ["slide_id", "patient_id"]]
    truth = pd.DataFrame([parsed[matches[name]] for name in labeled[key]], columns=[*endpoint.targets])
    labels = labeled.reset_index(drop=True)
    if len(labels):
        labels = labels.assign(label=endpoint.group(truth)).join(truth[[*endpoint.columns[1:]]])
    problems += [*content.problems, *(line for name in matches.values() for line in content.conflicts.get(name, ()))]
    if external:
        problems += endpoint.find_patient_problems(labels) if len(labels) else []
    else:
        problems += find_label_problems(content, labels, {*matches.values()}, endpoint, columns=columns)
    problems = [*dict.fromkeys(problems)]
    if problems:
        problems.sort(key=row_of_problem)
        remedy = "" if external else "\n  to run without labels for now, set labels.tasks: null"
        lines = "\n  ".join(problems)
        raise ValueError(f"labels.tasks.{task}: {path}: {len(problems)} problem(s)\n  {lines}{remedy}")
    return labels


def _parse_truth(
    content: TruthColumns, names: Collection[str], endpoint: Endpoint, columns: Sequence[str]
) -> tuple[dict[str, list[Any]], list[str]]:
    """The truth of each of the names, and a line per cell that holds none."""
    parsed: dict[str, list[Any]] = {}
    problems = []
    for name in names:
        cells = []
        for target, column, text in zip(endpoint.targets, columns, content.values[name], strict=True):
            try:
                cells.append(endpoint.parse(target, text))
            except ValueError as error:
                problems.append(f"row {content.rows[name]}: {column} of {name!r} {error}")
        if len(cells) == len(columns):
            parsed[name] = cells
    return parsed, problems


def find_label_problems(
    content: TruthColumns,
    labels: pd.DataFrame,
    names: Collection[str],
    endpoint: Endpoint = CLASSIFICATION,
    *,
    columns: Sequence[str],
) -> list[str]:
    """Find labels that are one but for case or spaces, of one slide only, or all alike.

    Args:
        content: The columns of the table.
        labels: As `read_labels` returns them.
        names: Ids of the table that match a slide.
        endpoint: What the task predicts.
        columns: Their names, for the messages.

    Returns:
        One line per problem: row, value and remedy.
    """
    column = " and ".join(columns)
    nothing = f"no slide has a value in column {column}; correct the column, or the ids of its rows"
    if not endpoint.has_classes:
        return [nothing] if labels.empty else endpoint.find_cohort_problems(labels)
    first_row: dict[str, int] = {}
    for name, (value,) in content.values.items():
        if name in names:
            first_row.setdefault(value, content.rows[name])
    problems = [
        f"row {first_row[other]}: {column} {other!r} is {first!r} of row {first_row[first]} but for case or spaces; "
        "write both alike, or rename one"
        for first, *others in group_alike(first_row, fold_id)
        for other in others
    ]
    if labels.empty:
        return [*problems, nothing]
    counts = labels["label"].value_counts()
    problems += [
        f"row {first_row[label]}: {column} {label!r} is on one slide only; check its spelling or add slides"
        for label in counts.index[counts == 1]
    ]
    if len(counts) == 1:
        problems.append(f"one {column} only ({counts.index[0]!r}); results need slides of two labels or more")
    return problems


def find_label_doubts(labels: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> list[str]:
    """Find classes that look alike, and patients with slides of several classes.

    Args:
        labels: As `read_labels` returns them.
        endpoint: What the task predicts.

    Returns:
        One line per doubt; none of an endpoint without classes.
    """
    if not endpoint.has_classes:
        return []
    doubts = [
        f"label: {name_some(map(repr, group))} look alike; if they are one, write them alike"
        for group in group_alike(labels["label"], loosen_id)
    ]
    names = labels.groupby("patient_id")["label"].unique()
    return doubts + [
        f"patient {patient!r} has slides of {len(several)} labels: {', '.join(several)}"
        for patient, several in names[names.str.len() > 1].items()
    ]


def describe_divided(patients: Sequence[str]) -> str:
    """Describe patients whose slides cannot be one bag.

    Args:
        patients: As `Endpoint.find_divided_patients` returns them.

    Returns:
        A clause with the remedy.
    """
    return (
        f"evaluate.bags: patient makes one bag of a patient's slides, but those of {name_some(patients)} differ in the "
        "truth; make them equal, or set bags: slide"
    )


def labels_fingerprint(labels: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> str:
    """Hash the labels of a task.

    Args:
        labels: As `read_labels` returns them.
        endpoint: What the task predicts.

    Returns:
        32 hex digits.
    """
    return artifacts.fingerprint(json.dumps(labels.to_dict("list")), *endpoint.meta.values())


def run(
    *,
    sheet_path: Path,
    labels_path: Path,
    out_path: Path,
    task: str,
    kind: str,
    classes: Sequence[str],
    columns: Sequence[str],
    key: str,
    id_column: str,
    external: bool = False,
) -> None:
    """Write the labels of one task; log doubts about them.

    Args:
        sheet_path: The checked sheet.
        labels_path: The user's table of labels.
        out_path: The file to write.
        task: Its name.
        kind, classes: As in `kinds.make_endpoint`; of classes without an order none.
        columns, key, id_column, external: As in `read_labels`.
    """
    slides, _ = artifacts.read_table(sheet_path, "sheet")
    endpoint = make_endpoint(kind, classes)
    labels = read_labels(
        labels_path, slides, endpoint, task=task, columns=columns, key=key, id_column=id_column, external=external
    )
    content = read_truth(labels_path, columns=columns, id_column=id_column)
    for doubt in [*find_label_doubts(labels, endpoint), *find_id_doubts(content, slides, key=key)]:
        log.warning("%s: %s", labels_path, doubt)
    meta = artifacts.provenance("labels", VERSION, {}, labels_fingerprint(labels, endpoint))
    artifacts.write_table(out_path, "labels", labels, meta | {"task": task} | endpoint.meta)
    log.info("task %s: %d of %d slides have a label: %s", task, len(labels), len(slides), endpoint.describe(labels))
