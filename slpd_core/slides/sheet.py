"""The sheet: the user's table of slides, their patients and files."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, group_alike, is_safe_id, loosen_id, normalize_id
from slpd_core.artifacts.spreadsheets import row_of_problem
from slpd_core.runtime import log, name_some
from slpd_core.slides.sheet_folder import read_sheet_folder, read_slide_files
from slpd_core.slides.sheet_table import COLUMNS, read_sheet_table
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import MPP_RANGE, is_plausible
from slpd_core.wsi.slide_files import locate

VERSION = 6
ID_COLUMNS = ("slide_id", "patient_id", "site")
TCGA_PATIENT = r"^(TCGA-\w\w-\w{4})\b"  # the patient is the first 12 characters of a barcode
MAGNIFICATION = re.compile(r"(x ?)?(\d+(?:[.,]\d+)?)( ?[x\N{MULTIPLICATION SIGN}])?", re.IGNORECASE)
OBJECTIVES = (10, 20, 40, 60, 63, 80, 100)  # powers that are no um/px of a slide


def read_sheet(
    path: str | Path | list[str], *, columns: Mapping[str, str] = MappingProxyType({}), external: bool = False
) -> pd.DataFrame:
    """Read and check a sheet: columns slide_id, path and, optional, patient_id, mpp (um/px) and site.

    A slide without a patient is of the patient in its TCGA barcode, else a patient of its own.

    Args:
        path: The sheet, whose paths are relative to its folder; a folder of slides; or a list of slides' files.
        columns: By column, its name in the sheet, if it has another.
        external: Whether its slides are only predicted. A column that the sheet lacks under its name of `columns` may
            then have our name, and patients or sites may be one but for case or spaces: no fold keeps them apart.

    Returns:
        Columns slide_id, patient_id, path, mpp, site; one row per slide. mpp is float, nan if not stated.

    Raises:
        FileNotFoundError: There is no such sheet.
        ValueError: The sheet has problems; names all, each with its row (the header is row 1) or file.
    """
    frame, problems = _read_texts(path, columns, external=external)
    for column in ID_COLUMNS:
        frame[column] = frame[column].map(normalize_id)
    frame["patient_id"] = _fill_patients(frame["patient_id"], frame["slide_id"])
    recomposed = {name: _recompose(name) for name in frame["path"] if not os.path.exists(name)}
    frame["path"] = frame["path"].map(lambda name: recomposed.get(name) or name)
    missing = [name for name, existing in recomposed.items() if not existing]
    problems += [*find_sheet_problems(frame, missing), *([] if external else find_alike_problems(frame))]
    if problems:
        problems.sort(key=row_of_problem)
        raise ValueError(f"{_name_source(path)}: {len(problems)} problem(s)\n  " + "\n  ".join(problems))
    return frame.assign(mpp=frame["mpp"].map(_read_mpp)).reset_index(drop=True)


def _read_texts(
    path: str | Path | list[str], columns: Mapping[str, str], *, external: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The texts of a sheet, as `read_sheet_table` returns them; a folder or files have paths and names alone."""
    if isinstance(path, list):
        return read_slide_files(path).reindex(columns=[*COLUMNS], fill_value=""), []
    path = Path(path).expanduser()
    if path.is_dir():
        return read_sheet_folder(path).reindex(columns=[*COLUMNS], fill_value=""), []
    return read_sheet_table(path, columns, columns_must_exist=not external)


def _name_source(path: str | Path | list[str]) -> str:
    """A sheet as messages name it."""
    return name_some(path) if isinstance(path, list) else str(Path(path).expanduser())


def read_external(
    paths: Mapping[str, str] | Mapping[str, list[str]], *, columns: Mapping[str, str] = MappingProxyType({})
) -> dict[str, pd.DataFrame]:
    """Read the sheets of external cohorts.

    Args:
        paths: By name, the sheet, as in `read_sheet`.
        columns: As in `read_sheet`.

    Returns:
        The sheets by name.
    """
    return {name: read_sheet(path, columns=columns, external=True) for name, path in paths.items()}


def _fill_patients(patients: pd.Series, slides: pd.Series) -> pd.Series:
    """Fill empty patients from the TCGA barcodes of their slides, else with the slide ids; log how many."""
    empty, barcodes = patients == "", slides.str.extract(TCGA_PATIENT)[0]
    n_empty, n_barcodes = int(empty.sum()), int(barcodes[empty].notna().sum())
    if n_barcodes:
        log.info("%d slides without patient_id: the first 12 characters of their TCGA barcodes stand in", n_barcodes)
    if n_empty > n_barcodes:
        log.info("%d slides without patient_id: their slide_id stands in, one patient each", n_empty - n_barcodes)
    return patients.where(~empty, barcodes.fillna(slides))


def _recompose(path: str) -> str:
    """Spell a missing path as an existing one, else "": spreadsheets and disks compose umlauts differently."""
    forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.exists(form)), "")


def find_sheet_problems(frame: pd.DataFrame, missing: Collection[str] = ()) -> Iterator[str]:
    """Find every problem of a sheet that was read as text.

    Args:
        frame: The sheet, indexed by row number.
        missing: Paths without a file.

    Yields:
        One line per problem: row, slide, value and remedy.
    """
    first_row: dict[tuple[str, str], int] = {}
    for row, slide in zip(frame.index, frame.to_dict("records"), strict=True):
        slide_id = slide["slide_id"]
        where = f"row {row}, slide {slide_id!r}"
        if not is_safe_id(slide_id):
            yield f"{where}: slide_id is no plain file name; use letters, digits, inner spaces, . _ - ( ) and +"
        for key in (("slide_id", fold_id(slide_id)), ("path", os.path.normpath(slide["path"]))):
            if key in first_row:
                yield f"{where}: {key[0]} is already in row {first_row[key]}; give each slide its own"
            first_row.setdefault(key, row)
        if not slide["path"] or slide["path"] in missing:
            yield f"{where}: no file {slide['path'] or 'named'}; correct the path (it is relative to the sheet)"
        elif problem := _explain_folder(slide["path"]):
            yield f"{where}: {problem}"
        if slide["mpp"] and not is_plausible(_read_mpp(slide["mpp"])):
            yield f"{where}: mpp {slide['mpp']!r} {_explain_mpp(slide['mpp'])}"
    if frame.empty:
        yield "no slides; add one row per slide"


def _explain_folder(path: str) -> str:
    """Explain why a folder is no slide; "" for one that is, and for a file."""
    with suppress(OSError):  # its jobs report it
        try:
            if os.path.isdir(path):
                locate(Path(path))
        except SlideError as error:
            return str(error)
    return ""


def find_alike_problems(frame: pd.DataFrame) -> Iterator[str]:
    """Find patients and sites of a sheet that are one but for case or spaces.

    Args:
        frame: The sheet, indexed by row number.

    Yields:
        One line per problem, as `find_sheet_problems`.
    """
    for column in ("patient_id", "site"):
        for first, *others in group_alike(frame[column], fold_id):
            for other in others:
                yield (
                    f"row {_row_of(frame, column, other)}: {column} {other!r} is {first!r} of row "
                    f"{_row_of(frame, column, first)} but for case or spaces; write both alike, or rename one"
                )


def _row_of(frame: pd.DataFrame, column: str, text: str) -> int:
    return int(frame.index[frame[column] == text][0])


def _read_mpp(text: str) -> float:
    """Parse a number with a decimal point or comma; nan for any other text."""
    is_number = re.fullmatch(r"[+]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?", text)
    return float(text.replace(",", ".")) if is_number else float("nan")


def _explain_mpp(text: str) -> str:
    """Why a text is no mpp, and the remedy; names a magnification as such."""
    match = MAGNIFICATION.fullmatch(text)
    power = float(match[2].replace(",", ".")) if match else 0.0
    if match and power and (match[1] or match[3] or power in OBJECTIVES):
        mpp = f"mpp is about {10 / power:.2g} um/px at {power:g}x"
        return f"is a magnification; {mpp}; write the slide's or leave it empty"
    low, high = MPP_RANGE
    return f"is no um/px within {low}-{high}; correct it or leave it empty"


def find_ambiguities(frame: pd.DataFrame) -> list[str]:
    """Find ambiguities of a checked sheet.

    These are ids that look alike, and patients that the TCGA barcodes of their slides join.

    Args:
        frame: The checked sheet.

    Returns:
        One line per ambiguity.
    """
    groups: dict[tuple[str, ...], str] = {}  # ids that look alike, and the first column that has them
    for column in ID_COLUMNS:
        for group in group_alike(frame[column], loosen_id):
            groups.setdefault(tuple(group), column)
    ambiguities = [
        f"{column}: {name_some(map(repr, group))} look alike; if they are one, write them alike"
        for group, column in groups.items()
    ]
    patients = frame.groupby(frame["slide_id"].str.extract(TCGA_PATIENT)[0])["patient_id"].unique()
    return ambiguities + [
        f"patient_id: {name_some(map(repr, names))} are one by the barcode of their slides, {barcode}"
        for barcode, names in patients[patients.str.len() > 1].items()
    ]


def require_new(cohort: pd.DataFrame, external: Mapping[str, pd.DataFrame]) -> None:
    """Check that each slide is in one sheet only: all results of a slide lie under its id.

    Args:
        cohort: The cohort's sheet, on whose slides classifiers were trained.
        external: By name, the sheets of external cohorts.

    Raises:
        ValueError: Two sheets have a slide; names both and the slides.
    """
    sheet_of = dict.fromkeys(map(fold_id, cohort["slide_id"]), "the cohort's sheet")
    problems = []
    for name, sheet in external.items():
        key, first_of = f"predict.sheet.{name}", {slide: sheet_of.get(fold_id(slide)) for slide in sheet["slide_id"]}
        for other in dict.fromkeys(filter(None, first_of.values())):
            same = name_some([slide for slide, first in first_of.items() if first == other])
            problems.append(f"{key}: {same} are in {other} too; remove them from one of the two, or rename them")
        sheet_of = dict.fromkeys(map(fold_id, sheet["slide_id"]), key) | sheet_of
    if problems:
        raise ValueError("\n  ".join(problems))


def sheet_fingerprint(frame: pd.DataFrame) -> str:
    """Hash a checked sheet without the paths of its slides.

    Args:
        frame: The checked sheet.

    Returns:
        32 hex digits.
    """
    return artifacts.fingerprint(frame.drop(columns="path").to_json())


def run(*, sheet_path: str | list[str], out_path: Path, columns: Mapping[str, str], external: bool = False) -> None:
    """Check a sheet and write it without the paths of its slides; log its ambiguities.

    Args:
        sheet_path: The user's sheet, as in `read_sheet`.
        out_path: The file to write.
        columns, external: As in `read_sheet`.
    """
    frame = read_sheet(sheet_path, columns=columns, external=external)
    for ambiguity in find_ambiguities(frame):
        log.warning("%s: %s", _name_source(sheet_path), ambiguity)
    artifacts.write_table(
        out_path,
        "sheet",
        frame.drop(columns="path"),
        artifacts.provenance("sheet", VERSION, {}, sheet_fingerprint(frame)),
    )
    log.info("%d slides of %d patients", len(frame), frame["patient_id"].nunique())
