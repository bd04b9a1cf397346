"""The table of a sheet: its columns, the names that they have in it, and its texts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from slpd_core.artifacts.column_names import ColumnNames, quote_name
from slpd_core.artifacts.spreadsheets import read_text_table

REQUIRED_COLUMNS = ("slide_id", "path")
COLUMNS = ("slide_id", "patient_id", "path", "mpp", "site")
# Names that people use. They are only suggested: a column is read under another name if sheet.columns says so.
ALIASES = {
    "slide_id": ("slide", "slide_name", "filename", "file", "image_id", "image", "wsi", "scan", "id", "name"),
    "patient_id": (
        *("case_id", "case", "patient", "case_submitter_id", "submitter_id", "patient_barcode", "subject_id"),
        *("subject", "participant_id", "participant"),
    ),
    "label": ("diagnosis", "subtype", "class", "category", "target", "oncotree_code", "histology", "y"),
    "path": ("filepath", "slide_path", "image_path", "full_path", "location", "filename", "file"),
}
EXAMPLE = """slide_id,patient_id,label,path,mpp
slide-1,patient-1,LUAD,slides/slide-1.svs,
slide-2,patient-2,LUSC,slides/slide-2.svs,0.5"""


def read_sheet_table(
    path: Path, columns: Mapping[str, str], *, columns_must_exist: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Read the texts of a sheet that is a table.

    Args:
        path: The table; paths in it are relative to its folder.
        columns: By column, its name in the table, if it has another.
        columns_must_exist: False lets a column that is not there under its name of `columns` have our name.

    Returns:
        COLUMNS, indexed by row number (the header is row 1), "" for no text; and one line per row that cannot be read.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It is no table, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such sheet. Write one with one row per slide; paths are relative to it, patient_id and mpp "
            f"are optional:\n{EXAMPLE}\nor name yours, or a folder of slides, in config.yaml (sheet: path, or predict: "
            "sheet); to see it all work first: make demo"
        )
    renamed = {column: (name,) if columns_must_exist else (name, column) for column, name in columns.items()}
    names = ColumnNames("sheet.columns", renamed, ALIASES)
    required = (*REQUIRED_COLUMNS, *columns) if columns_must_exist else REQUIRED_COLUMNS
    table = read_text_table(path, required, COLUMNS, names=names, example=EXAMPLE)
    if columns_must_exist:
        _require_patients(path, table.header, names)
    frame = pd.DataFrame([row for _, row in table.rows], columns=[*COLUMNS], dtype=str).fillna("")
    frame["path"] = [os.path.join(path.parent, os.path.expanduser(name)) if name else "" for name in frame["path"]]
    return frame.set_index(pd.Index([row for row, _ in table.rows], dtype=int)), table.problems


def _require_patients(path: Path, header: Sequence[str], names: ColumnNames) -> None:
    """Raise ValueError where a column that may name the patients goes unread: each slide would be one of its own."""
    alias = names.find_alias("patient_id", header)
    if alias and not names.locate(["patient_id"], header):
        slide_id = names.names("slide_id")[0]
        raise ValueError(
            f"{path}: no column patient_id, but {quote_name(alias)} may be it; set sheet.columns: {{patient_id: "
            f"{quote_name(alias)}}}, or {{patient_id: {quote_name(slide_id)}}} if each slide is a patient of its own"
        )
