"""Labels: what the slides of a task are told apart by, from the sheet or a table of its own."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, group_alike, loosen_id, normalize_id, strip_fraction
from slpd_core.artifacts.spreadsheets import read_text_table, row_of_problem
from slpd_core.evaluation.imported_splits import DIFFERENCES, strip_suffix
from slpd_core.runtime import log, name_some

VERSION = 1
DEFAULT_TASK = "label"  # the column of that name, where no task is named
# How tables write that a value is missing; those in brackets and the last are of TCGA's clinical tables.
MISSING = {"", "na", "n/a", "nan", "--", "'--", "not reported"}
MISSING |= {"[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]"}


@dataclass(frozen=True)
class LabelColumn:
    """A column of a table of labels.

    Attributes:
        values: Label by id, as the table has both; ids without a value are left out.
        rows: Row of the table by id (the header is row 1).
        missing: How often each text stands for a missing value.
        problems: One line per row that cannot be used.
    """

    values: Mapping[str, str]
    rows: Mapping[str, int]
    missing: Mapping[str, int]
    problems: Sequence[str]


def read_column(path: Path, *, column: str = DEFAULT_TASK, id_column: str = "slide_id") -> LabelColumn:
    """Read a column of labels and the ids that they belong to.

    Args:
        path: The table.
        column: Column of the labels.
        id_column: Column of the ids.

    Returns:
        Its labels.

    Raises:
        ValueError: The file is no table, or lacks a column.
    """
    table = read_text_table(path, (id_column, column), ragged=True)
    values: dict[str, str] = {}
    rows: dict[str, int] = {}
    missing: Counter[str] = Counter()
    problems = [*table.problems]
    for row, cells in table.rows:
        name, value = normalize_id(cells[id_column]), normalize_id(cells[column])
        if value.lower() in MISSING:
            missing[value] += 1
        elif not name:
            problems.append(f"row {row}: {column} is {value!r}, but {id_column} is ''; fill it in")
        elif values.setdefault(name, value) != value:
            problems.append(
                f"row {row}: {column} of {name!r} is {value!r}, but {values[name]!r} in row {rows[name]}; keep one"
            )
        rows.setdefault(name, row)
    return LabelColumn(values, rows, missing, problems)


def has_labels(path: Path, *, column: str = DEFAULT_TASK, id_column: str = "slide_id") -> bool:
    """Return whether a table has a column of labels that holds a value.

    Args:
        path: The table.
        column: Column of the labels.
        id_column: A column that the table has.

    Returns:
        Whether it does.
    """
    rows = read_text_table(path, (id_column,), (column,), ragged=True).rows
    return any(normalize_id(cells.get(column, "")).lower() not in MISSING for _, cells in rows)


def match_ids(names: Collection[str], ids: Sequence[str], *, key: str = "slide_id") -> dict[str, str]:
    """Match the ids of a table with those of the sheet.

    Args:
        names: Ids of the table.
        ids: Ids of the sheet; one may stand there several times.
        key: slide_id: ids match with or without the extension of a slide's file. In either kind 101.0 is 101.

    Returns:
        Name in the table by id of the sheet. An id that stands in both matches itself; others match where no second id
        of the table or of the sheet is alike.
    """
    bare: Callable[[str], str] = strip_suffix if key == "slide_id" else strip_fraction
    exact = {name: name for name in ids if normalize_id(name) in names}
    rest = [*dict.fromkeys(name for name in ids if name not in exact)]
    of_table = Counter(map(bare, {*names} - {normalize_id(name) for name in exact}))
    of_sheet = Counter(bare(normalize_id(name)) for name in rest)
    by_bare = {bare(name): name for name in names}
    bare_ids = {name: bare(normalize_id(name)) for name in rest}
    alone = {name: key for name, key in bare_ids.items() if of_table[key] == 1 == of_sheet[key]}
    return {name: normalize_id(name) for name in exact} | {name: by_bare[key] for name, key in alone.items()}


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
        key: What the rows belong to: slide_id or patient_id.
        id_column: Column of these ids; "" if it is called as `key`.

    Returns:
        Columns slide_id, patient_id and label, one row per slide that has a label, in the order of `slides`.

    Raises:
        ValueError: The table lacks a column, has two labels of one id, or labels that no fold can use; names all, each
            with its row (the header is row 1).
    """
    content = read_column(path, column=column, id_column=id_column or key)
    matches = match_ids(content.values.keys(), slides[key].to_list(), key=key)
    label = slides[key].map(lambda name: content.values[matches[name]] if name in matches else "")
    labels = slides[["slide_id", "patient_id"]].assign(label=label)[label != ""].reset_index(drop=True)
    problems = [*content.problems, *find_label_problems(content, labels, column=column)]
    if problems:
        problems.sort(key=row_of_problem)
        lines = "\n  ".join([*problems, "to run without labels for now, set labels.tasks: null"])
        raise ValueError(f"labels.tasks.{task}: {path}: {len(problems)} problem(s)\n  {lines}")
    return labels


def find_label_problems(content: LabelColumn, labels: pd.DataFrame, *, column: str) -> list[str]:
    """Find labels that are one but for case or spaces, of one slide only, or all alike.

    Args:
        content: The column of the table.
        labels: As `read_labels` returns them.
        column: Its name, for the messages.

    Returns:
        One line per problem: row, value and remedy.
    """
    first_row: dict[str, int] = {}
    for name, value in content.values.items():
        first_row.setdefault(value, content.rows[name])
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


def find_id_doubts(content: LabelColumn, slides: pd.DataFrame, *, key: str = "slide_id") -> list[str]:
    """Find ids of a table that match no slide, how they may be meant, and the values taken as missing.

    Args:
        content: The column of the table.
        slides: As in `read_labels`.
        key: As in `read_labels`.

    Returns:
        One line per doubt.
    """
    matched = match_ids(content.values.keys(), slides[key].to_list(), key=key)
    unmatched = [name for name in content.values if name not in {*matched.values()}]
    unlabeled = [name for name in dict.fromkeys(slides[key]) if name not in matched]
    doubts = [f"{len(unmatched)} of its ids match no {key} of the sheet: {name_some(unmatched)}"] if unmatched else []
    for words, change in DIFFERENCES.items():
        of_table = {change(name): name for name in unmatched}
        pair = next(((of_table[change(name)], name) for name in unlabeled if change(name) in of_table), None)
        if pair:
            doubts.append(f"{pair[0]!r} and the sheet's {pair[1]!r} differ only in {words}; write both the same way")
            break
    counts = ", ".join(f"{text!r} ({count})" for text, count in content.missing.items() if text)
    return [*doubts, f"taken as no value: {counts}"] if counts else doubts


def labels_fingerprint(labels: pd.DataFrame) -> str:
    """Hash the labels of a task.

    Args:
        labels: As `read_labels` returns them.

    Returns:
        32 hex digits.
    """
    return artifacts.fingerprint(labels.to_json())


def run(*, sheet_path: Path, labels_path: Path, out_path: Path, task: str, columns: Mapping[str, str]) -> None:
    """Write the labels of one task; log doubts about them.

    Args:
        sheet_path: The checked sheet.
        labels_path: The user's table of labels.
        out_path: The file to write.
        task: Its name.
        columns: column, key and id_column, as in `read_labels`.
    """
    slides, _ = artifacts.read_table(sheet_path, "sheet")
    labels = read_labels(labels_path, slides, task=task, **columns)
    content = read_column(labels_path, column=columns["column"], id_column=columns["id_column"])
    for doubt in [*find_label_doubts(labels), *find_id_doubts(content, slides, key=columns["key"])]:
        log.warning("%s: %s", labels_path, doubt)
    meta = artifacts.provenance("labels", VERSION, {}, labels_fingerprint(labels))
    artifacts.write_table(out_path, "labels", labels, meta | {"task": task})
    counts = ", ".join(f"{count:,} {label}" for label, count in labels["label"].value_counts().items())
    log.info("task %s: %d of %d slides have a label: %s", task, len(labels), len(slides), counts)
