"""Tables of labels: their columns and ids, and how these match the ids of the sheet."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slpd_core.artifacts.ids import normalize_id, strip_fraction
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.evaluation.imported_splits import DIFFERENCES, strip_suffix
from slpd_core.runtime import name_some

DEFAULT_TASK = "label"  # the column of that name, where no task is named
# How tables write that a value is missing; those in brackets and the last are of TCGA's clinical tables.
MISSING = {"", "na", "n/a", "nan", "--", "'--", "not reported"}
MISSING |= {"[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]"}


@dataclass(frozen=True)
class TruthColumns:
    """The columns of a table that hold the truth of a task.

    Attributes:
        values: By id, the text of each column, as the table has both; ids that lack one are left out.
        rows: Row of the table by id, the first with values (the header is row 1).
        missing: How often each text stands for a missing value.
        problems: One line per row that cannot be used.
        conflicts: By id, a line per row that contradicts the first.
    """

    values: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, int]
    missing: Mapping[str, int]
    problems: Sequence[str]
    conflicts: Mapping[str, Sequence[str]]


def read_truth(path: Path, *, columns: Sequence[str] = (DEFAULT_TASK,), id_column: str = "slide_id") -> TruthColumns:
    """Read the columns of a task and the ids that they belong to.

    Args:
        path: The table.
        columns: Columns of the truth.
        id_column: Column of the ids.

    Returns:
        Its columns.

    Raises:
        ValueError: The file is no table, or lacks a column.
    """
    table = read_text_table(path, (id_column, *columns), ragged=True)
    values: dict[str, tuple[str, ...]] = {}
    rows: dict[str, int] = {}
    missing: Counter[str] = Counter()
    problems, conflicts = [*table.problems], dict[str, list[str]]()
    for row, cells in table.rows:
        name, texts = normalize_id(cells[id_column]), tuple(normalize_id(cells[column]) for column in columns)
        if lacking := [text for text in texts if text.lower() in MISSING]:
            missing[lacking[0]] += 1
        elif not name:
            problems.append(f"row {row}: {columns[0]} is {texts[0]!r}, but {id_column} is ''; fill it in")
        else:
            rows.setdefault(name, row)
            for column, text, first in zip(columns, texts, values.setdefault(name, texts), strict=True):
                if text != first:
                    conflict = (
                        f"row {row}: {column} of {name!r} is {text!r}, but {first!r} in row {rows[name]}; keep one"
                    )
                    conflicts.setdefault(name, []).append(conflict)
    return TruthColumns(values, rows, missing, problems, conflicts)


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


def find_id_doubts(content: TruthColumns, slides: pd.DataFrame, *, key: str = "slide_id") -> list[str]:
    """Find ids of a table that match no slide, how they may be meant, and the values taken as missing.

    Args:
        content: The columns of the table.
        slides: As in `labels.read_labels`.
        key: As in `labels.read_labels`.

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
