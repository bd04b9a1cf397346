"""The sheet: which slides there are, whose they are, and what they show."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from slpd_core import config, store
from slpd_core.runtime import log

VERSION = 1
COLUMNS = ("slide_id", "patient_id", "label", "path")
PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")
MPP_RANGE = (0.05, 5.0)  # um/px; outside it an mpp is a mistake
EXAMPLE = """slide_id,patient_id,label,path,mpp
slide-1,patient-1,LUAD,slides/slide-1.svs,
slide-2,patient-2,LUSC,slides/slide-2.svs,0.5"""


def read_sheet(path: Path) -> pd.DataFrame:
    """Read and check slides.csv: columns slide_id, patient_id, label, path and, optional, mpp (um/px).

    Paths are relative to the sheet's folder. Gives those five columns, mpp as float, nan where none is given.
    Raises ValueError with every problem of the sheet, each with its row (the header is row 1).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such sheet. Write one with a row a slide, paths relative to it (mpp may be left out):\n"
            f"{EXAMPLE}\nor name yours in config.yaml (sheet: path); to see it all work first: make demo"
        )
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a CSV table in UTF-8 ({str(error).strip()}); the first lines of one:\n{EXAMPLE}"
        ) from error
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(frame.columns)}; add it. Example:\n{EXAMPLE}"
        )
    frame = frame[[*COLUMNS]].assign(mpp=frame.get("mpp", ""))
    frame["path"] = [str(path.parent / name) for name in frame["path"]]
    found = list(problems(frame))
    if found:
        raise ValueError(f"{path}: {len(found)} problem(s)\n  " + "\n  ".join(found))
    return frame.assign(mpp=[float(mpp or "nan") for mpp in frame["mpp"]])


def problems(frame: pd.DataFrame) -> Iterator[str]:
    """Every problem of a sheet read as text, as one line that names row, slide, value and remedy."""
    first_row: dict[str, int] = {}
    for row, slide in enumerate(frame.to_dict("records"), start=2):
        slide_id = slide["slide_id"]
        where = f"row {row}, slide {slide_id!r}"
        if not PLAIN_ID.fullmatch(slide_id) or slide_id.endswith((" ", ".")) or ".." in slide_id:
            yield f"{where}: slide_id is no plain file name; use letters, digits, inner spaces, . _ and -"
        if slide_id.lower() in first_row:
            yield f"{where}: slide_id stands in row {first_row[slide_id.lower()]} already; give each slide its own"
        first_row.setdefault(slide_id.lower(), row)
        for column in ("patient_id", "label"):
            if not slide[column] or slide[column] != slide[column].strip():
                yield f"{where}: {column} is {slide[column]!r}; fill it in, without spaces at the ends"
        if not Path(slide["path"]).is_file():
            yield f"{where}: no file {slide['path']}; correct the path (it is relative to the sheet)"
        if slide["mpp"] and not _plausible(slide["mpp"]):
            low, high = MPP_RANGE
            yield f"{where}: mpp {slide['mpp']!r} is no um/px within {low}-{high}; correct it or leave it empty"
    if frame.empty:
        yield "no slides; add a row a slide"
        return
    counts = frame["label"].value_counts()
    for label in counts.index[counts == 1]:
        row = frame.index[frame["label"] == label][0] + 2
        yield f"row {row}: label {label!r} stands on one slide only; check its spelling or add slides"
    if len(counts) == 1:
        yield f"one label only ({counts.index[0]!r}); results need slides of two labels or more"


def _plausible(text: str) -> bool:
    try:
        return MPP_RANGE[0] <= float(text) <= MPP_RANGE[1]
    except ValueError:
        return False


def require_patients(frame: pd.DataFrame, n_folds: int) -> None:
    """Check before any work that every fold can test a patient.

    Raises ValueError when there are fewer patients than folds.
    """
    patients = frame["patient_id"].nunique()
    if patients < n_folds:
        raise ValueError(
            f"folds.n_folds: {n_folds} folds of {patients} patients; lower it to {patients} or add patients"
        )


def run(*, sheet_path: Path, out_path: Path, section: config.Sheet) -> None:
    """Write the checked sheet; notes patients with slides of two labels in the log."""
    frame = read_sheet(sheet_path)
    labels = frame.groupby("patient_id")["label"].unique()
    for patient, found in labels[labels.str.len() > 1].items():
        log.warning("%s: patient %s has slides of %d labels: %s", sheet_path, patient, len(found), ", ".join(found))
    meta = store.provenance("sheet", VERSION, section.model_dump(), store.file_fingerprint(sheet_path))
    store.write_table(out_path, "sheet", frame, meta)
    log.info("%d slides of %d patients", len(frame), frame["patient_id"].nunique())
