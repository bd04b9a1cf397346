"""Labels: what the slides of a task are told apart by, from the sheet or a table of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, group_alike, loosen_id, normalize_id
from slpd_core.artifacts.spreadsheets import read_text_table, row_of_problem
from slpd_core.evaluation.imported_splits import strip_suffix
from slpd_core.runtime import log, name_some

VERSION = 1
DEFAULT_TASK = "label"  # the column of that name, where no task is named
# How tables write that a value is missing; the last ones are of TCGA's clinical tables.
MISSING = {"", "na", "n/a", "nan", "null", "--", "'--"}
MISSING |= {"[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]", "not reported"}


def has_labels(path: Path, column: str = DEFAULT_TASK, id_column: str = "slide_id") -> bool:
    """Return whether a table has a column of labels that holds a value.

    Args:
        path: The table.
        column: Column of the labels.
        id_column: A column that the table has.

    Returns:
        Whether it does.
    """
    rows = read_text_table(path, (id_column,), (column,), ragged=True).rows
    return any(_has_value(cells.get(column, "")) for _, cells in rows)


def read_labels(
    path: Path,
    slides: pd.DataFrame,
    *,
    task: str = DEFAULT_TASK,
    column: str = DEFAULT_TASK,
    key: str = "slide_id",
    id_column: str = "",
) -> pd.DataFrame:
    """Read the label of each slide that has one.

    Args:
        path: A table of labels, one row per slide or patient.
        slides: Columns slide_id and patient_id, one row per slide of the cohort.
        task: Its name, for errors.
        column: Column of the labels.
        key: What the rows belong to: slide_id (with or without the extension of a file) or patient_id.
        id_column: Column of these ids; "" if it is called as `key`.

    Returns:
        Columns slide_id, patient_id and label, one row per slide that has a label, in the order of `slides`.

    Raises:
        ValueError: The table lacks a column, has two labels of one id, or labels that no fold can use; names all, each
            with its row (the header is row 1).
    """
    id_column = id_column or key
    table = read_text_table(path, (id_column, column), ragged=True)
    bare: Callable[[str], str] = strip_suffix if key == "slide_id" else str
    rows: dict[str, int] = {}  # by id, the row that holds its label
    values: dict[str, str] = {}
    problems = [*table.problems]
    for row, cells in table.rows:
        name, value = bare(normalize_id(cells[id_column])), normalize_id(cells[column])
        if not _has_value(value):
            continue
        if not name:
            problems.append(f"row {row}: {column} is {value!r}, but {id_column} is ''; fill it in")
        elif values.setdefault(name, value) != value:
            problems.append(
                f"row {row}: {column} of {name!r} is {value!r}, but {values[name]!r} in row {rows[name]}; keep one"
            )
        rows.setdefault(name, row)
    label = slides[key].map(lambda name: values.get(bare(normalize_id(name)), ""))
    labels = slides[["slide_id", "patient_id"]].assign(label=label)[label != ""].reset_index(drop=True)
    problems += find_label_problems(values, rows, labels, column=column)
    if problems:
        problems.sort(key=row_of_problem)
        raise ValueError(f"labels.tasks.{task}: {path}: {len(problems)} problem(s)\n  " + "\n  ".join(problems))
    return labels


def find_label_problems(
    values: Mapping[str, str], rows: Mapping[str, int], labels: pd.DataFrame, *, column: str
) -> list[str]:
    """Find labels that are one but for case or spaces, of one slide only, or all alike.

    Args:
        values: Label by id, as the table has them.
        rows: Row of the table by id.
        labels: As `read_labels` returns them.
        column: Column of the labels, for the messages.

    Returns:
        One line per problem: row, value and remedy.
    """
    first_row: dict[str, int] = {}
    for name, value in values.items():
        first_row.setdefault(value, rows[name])
    problems = [
        f"row {first_row[other]}: {column} {other!r} is {first!r} of row {first_row[first]} but for case or spaces; "
        "write both alike, or rename one"
        for first, *others in group_alike(first_row, fold_id)
        for other in others
    ]
    if labels.empty:
        return [*problems, f"no slide has a value in column {column}; correct the column, or the ids of its rows"]
    counts = labels["label"].value_counts()
    problems += [
        f"row {first_row[label]}: {column} {label!r} is on one slide only; check its spelling or add slides"
        for label in counts.index[counts == 1]
    ]
    if len(counts) == 1:
        problems.append(f"one {column} only ({counts.index[0]!r}); results need slides of two labels or more")
    return problems


def find_label_doubts(labels: pd.DataFrame) -> list[str]:
    """Find labels that look alike, and patients with slides of several labels.

    Args:
        labels: As `read_labels` returns them.

    Returns:
        One line per doubt.
    """
    doubts = [
        f"label: {name_some(map(repr, group))} look alike; if they are one, write them alike"
        for group in group_alike(labels["label"], loosen_id)
    ]
    names = labels.groupby("patient_id")["label"].unique()
    return doubts + [
        f"patient {patient!r} has slides of {len(several)} labels: {', '.join(several)}"
        for patient, several in names[names.str.len() > 1].items()
    ]


def labels_fingerprint(labels: pd.DataFrame) -> str:
    """Hash the labels of a task.

    Args:
        labels: As `read_labels` returns them.

    Returns:
        32 hex digits.
    """
    return artifacts.fingerprint(labels.to_json())


def _has_value(text: str) -> bool:
    return normalize_id(text).lower() not in MISSING


def run(*, sheet_path: Path, labels_path: Path, out_path: Path, task: str, section: Mapping[str, str]) -> None:
    """Write the labels of one task; log doubts about them.

    Args:
        sheet_path: The checked sheet.
        labels_path: The user's table of labels.
        out_path: The file to write.
        task: Its name.
        section: column, key and id_column, as in `read_labels`.
    """
    slides, _ = artifacts.read_table(sheet_path, "sheet")
    labels = read_labels(labels_path, slides, task=task, **section)
    for doubt in find_label_doubts(labels):
        log.warning("%s: %s", labels_path, doubt)
    meta = artifacts.provenance("labels", VERSION, {**section}, labels_fingerprint(labels))
    artifacts.write_table(out_path, "labels", labels, meta | {"task": task})
    counts = ", ".join(f"{count:,} {label}" for label, count in labels["label"].value_counts().items())
    log.info("task %s: %d of %d slides have a label: %s", task, len(labels), len(slides), counts)
