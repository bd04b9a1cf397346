"""The columns of a sheet: ours, and the names that they have in the user's table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from slpd_core.artifacts.column_names import ColumnNames, quote_name

REQUIRED_COLUMNS = ("slide_id", "path")
COLUMNS = ("slide_id", "patient_id", "label", "path", "mpp", "site")
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


def name_columns(renamed: Mapping[str, str], *, must_exist: bool = True) -> ColumnNames:
    """Build the names of a sheet's columns from the setting.

    Args:
        renamed: By column, its name in the sheet: the setting sheet.columns.
        must_exist: False lets a column that is renamed have our name too.

    Returns:
        The names.
    """
    names = {column: (name,) if must_exist else (name, column) for column, name in renamed.items()}
    return ColumnNames("sheet.columns", names, ALIASES)


def require_patients(path: Path, header: Sequence[str], names: ColumnNames) -> None:
    """Check that no column which may name the patients goes unread: slides of one patient would count as several.

    Args:
        path: The sheet, for the error.
        header: The names of the sheet's columns.
        names: The names of our columns in it.

    Raises:
        ValueError: There is no patient_id, but a column that people use for it.
    """
    alias = names.find_alias("patient_id", header)
    if alias and not names.locate(["patient_id"], header):
        slide_id = names.names("slide_id")[0]
        raise ValueError(
            f"{path}: no column patient_id, but {quote_name(alias)} may be it; set sheet.columns: {{patient_id: "
            f"{quote_name(alias)}}}, or {{patient_id: {quote_name(slide_id)}}} if each slide is a patient of its own"
        )
