"""The sheet: which slides there are, whose they are, and what they show."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, group_alike, loosen_id, normalize_id
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.runtime import log, name_some
from slpd_core.wsi.mpp import MPP_RANGE, is_plausible

VERSION = 5
COLUMNS = ("slide_id", "patient_id", "label", "path")
UNLABELED_COLUMNS = ("slide_id", "path")  # all that slides to be predicted must say
OPTIONAL_COLUMNS = ("mpp", "site")
NAME_COLUMNS = ("slide_id", "patient_id", "label", "site")
# Beside letters and digits of any script, what no file system, shell or pattern takes for anything but part of a name.
ID_PUNCTUATION = " ._-()+"
UNSAFE_ID = re.compile(r"^[ .+-]|[ .]$|\.\.")
MAX_ID_BYTES = 200  # bytes
TCGA_PATIENT = r"^(TCGA-\w\w-\w{4})\b"
EXAMPLE = """slide_id,patient_id,label,path,mpp
slide-1,patient-1,LUAD,slides/slide-1.svs,
slide-2,patient-2,LUSC,slides/slide-2.svs,0.5"""


def read_sheet(path: Path, *, labeled: bool = True) -> pd.DataFrame:
    """Read and check slides.csv: columns slide_id, patient_id, label, path and, optional, mpp (um/px) and site.

    Paths are relative to the sheet's folder. Gives those six columns, mpp as float, nan where none is given.
    labeled: False of slides to be predicted, whose patients and labels may be left out and are not looked at.
    Raises ValueError with every problem of the sheet, each with its row (the header is row 1).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such sheet. Write one with a row a slide, paths relative to it (mpp may be left out):\n"
            f"{EXAMPLE}\nor name yours in config.yaml ({'sheet: path' if labeled else 'predict: sheet'})"
            "; to see it all work first: make demo"
        )
    table = read_text_table(
        path, COLUMNS if labeled else UNLABELED_COLUMNS, (*COLUMNS, *OPTIONAL_COLUMNS), example=EXAMPLE
    )
    frame = pd.DataFrame([row for _, row in table.rows], columns=[*COLUMNS, *OPTIONAL_COLUMNS], dtype=str).fillna("")
    frame.index = pd.Index([number for number, _ in table.rows], dtype=int)
    for column in NAME_COLUMNS:
        frame[column] = frame[column].map(normalize_id)
    frame["path"] = [os.path.join(path.parent, name) if name else "" for name in frame["path"]]
    lost = {name: _recompose(name) for name in frame["path"] if not os.path.isfile(name)}
    frame["path"] = frame["path"].map(lambda name: lost.get(name) or name)
    found = [*table.problems, *find_sheet_problems(frame, [name for name, there in lost.items() if not there])]
    if labeled:
        found += find_label_problems(frame)
    if found:
        raise ValueError(f"{path}: {len(found)} problem(s)\n  " + "\n  ".join(found))
    return frame.assign(mpp=frame["mpp"].map(_read_mpp)).reset_index(drop=True)


def _recompose(path: str) -> str:
    """A path that no file has as one has it, else "": spreadsheets and disks compose umlauts differently."""
    forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.isfile(form)), "")


def find_sheet_problems(frame: pd.DataFrame, lost: Collection[str] = ()) -> Iterator[str]:
    """Every problem of a sheet read as text, as one line that names row, slide, value and remedy.

    frame: indexed by line number. lost: paths where no file is.
    """
    first_row: dict[tuple[str, str], int] = {}
    for row, slide in zip(frame.index, frame.to_dict("records"), strict=True):
        slide_id = slide["slide_id"]
        where = f"row {row}, slide {slide_id!r}"
        if not is_safe_id(slide_id):
            yield f"{where}: slide_id is no plain file name; use letters, digits, inner spaces, . _ - ( ) and +"
        for key in (("slide_id", fold_id(slide_id)), ("path", os.path.normpath(slide["path"]))):
            if key in first_row:
                yield f"{where}: {key[0]} stands in row {first_row[key]} already; give each slide its own"
            first_row.setdefault(key, row)
        if not slide["path"] or slide["path"] in lost:
            yield f"{where}: no file {slide['path'] or 'named'}; correct the path (it is relative to the sheet)"
        if slide["mpp"] and not is_plausible(_read_mpp(slide["mpp"])):
            low, high = MPP_RANGE
            yield f"{where}: mpp {slide['mpp']!r} is no um/px within {low}-{high}; correct it or leave it empty"
    if frame.empty:
        yield "no slides; add a row a slide"


def is_safe_id(slide_id: str) -> bool:
    """Whether an id can name files: it does not lead out of a folder, and is no word to a shell or to Snakemake."""
    signs = (sign in ID_PUNCTUATION or unicodedata.category(sign)[0] in "LMN" for sign in slide_id)
    return 0 < len(slide_id.encode()) <= MAX_ID_BYTES and all(signs) and not UNSAFE_ID.search(slide_id)


def find_label_problems(frame: pd.DataFrame) -> Iterator[str]:
    """Every problem with the patients, labels and sites of a sheet, as `problems` says them."""
    for column in ("patient_id", "label"):
        for row, slide in frame[frame[column] == ""].iterrows():
            yield f"row {row}, slide {slide['slide_id']!r}: {column} is ''; fill it in"
    for column in ("patient_id", "label", "site"):
        for first, *others in group_alike(frame[column], fold_id):
            for other in others:
                yield (
                    f"row {_row_of(frame, column, other)}: {column} {other!r} is {first!r} of row "
                    f"{_row_of(frame, column, first)} but for case or spaces; write both alike, or rename one"
                )
    counts = frame["label"].value_counts()
    for label in counts.index[counts == 1]:
        row = _row_of(frame, "label", label)
        yield f"row {row}: label {label!r} stands on one slide only; check its spelling or add slides"
    if len(counts) == 1:
        yield f"one label only ({counts.index[0]!r}); results need slides of two labels or more"


def _row_of(frame: pd.DataFrame, column: str, text: str) -> int:
    return int(frame.index[frame[column] == text][0])


def _read_mpp(text: str) -> float:
    """The number of a field, with a decimal point or comma; nan for any other text."""
    number = re.fullmatch(r"[+]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?", text)
    return float(text.replace(",", ".")) if number else float("nan")


def find_ambiguities(frame: pd.DataFrame) -> list[str]:
    """Return what a checked sheet leaves in doubt, a line each.

    Ids that look alike, patients with two labels, and patients that are one by the TCGA barcodes of their slides.
    """
    doubts = [
        f"{column}: {name_some(map(repr, group))} look alike; if they are one, write them alike"
        for column in ("slide_id", "patient_id", "label", "site")
        for group in group_alike(frame[column], loosen_id)
    ]
    patients = frame.groupby(frame["slide_id"].str.extract(TCGA_PATIENT)[0])["patient_id"].unique()
    doubts += [
        f"patient_id: {name_some(map(repr, names))} are one by the barcode of their slides, {barcode}"
        for barcode, names in patients[patients.str.len() > 1].items()
    ]
    labels = frame[frame["patient_id"] != ""].groupby("patient_id")["label"].unique()
    return doubts + [
        f"patient {patient!r} has slides of {len(names)} labels: {', '.join(names)}"
        for patient, names in labels[labels.str.len() > 1].items()
    ]


def require_new(new: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Check that no slide to be predicted is one of the cohort's, which classifiers were trained on.

    Raises ValueError naming those that are.
    """
    ids = {fold_id(slide) for slide in cohort["slide_id"]}
    same = [slide for slide in new["slide_id"] if fold_id(slide) in ids]
    if same:
        raise ValueError(
            f"predict.sheet: {name_some(same)} stand in the cohort's sheet too; remove them from the sheet or rename "
            "them"
        )


def sheet_fingerprint(frame: pd.DataFrame) -> str:
    """What a checked sheet says, but for where the slides lie: hashed into 32 hex digits."""
    return artifacts.fingerprint(frame.drop(columns="path").to_json())


def run(*, sheet_path: Path, out_path: Path, labeled: bool) -> None:
    """Write the checked sheet, but for where the slides lie; what it leaves in doubt goes into the log."""
    frame = read_sheet(sheet_path, labeled=labeled)
    for doubt in find_ambiguities(frame):
        log.warning("%s: %s", sheet_path, doubt)
    artifacts.write_table(
        out_path,
        "sheet",
        frame.drop(columns="path"),
        artifacts.provenance("sheet", VERSION, {}, sheet_fingerprint(frame)),
    )
    log.info("%d slides of %d patients", len(frame), frame["patient_id"].nunique())
