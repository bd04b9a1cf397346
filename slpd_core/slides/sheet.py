"""The sheet: which slides there are, whose they are, and what they show."""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from slpd_core import store
from slpd_core.runtime import log
from slpd_core.slides.mpp import MPP_RANGE, plausible

VERSION = 3
COLUMNS = ("slide_id", "patient_id", "label", "path")
UNLABELLED = ("slide_id", "path")  # all that slides to be predicted must say
OPTIONAL = ("mpp", "site")
# Beside letters and digits of any script, what no file system, shell or pattern takes for anything but part of a name.
SIGNS_OF_IDS = " ._-()+"
NO_PLAIN_ENDS = re.compile(r"^[ .+-]|[ .]$|\.\.")
LONGEST_ID = 200  # bytes
EXAMPLE = """slide_id,patient_id,label,path,mpp
slide-1,patient-1,LUAD,slides/slide-1.svs,
slide-2,patient-2,LUSC,slides/slide-2.svs,0.5"""


def read_sheet(path: Path, labelled: bool = True) -> pd.DataFrame:
    """Read and check slides.csv: columns slide_id, patient_id, label, path and, optional, mpp (um/px) and site.

    Paths are relative to the sheet's folder. Gives those six columns, mpp as float, nan where none is given.
    labelled: False of slides to be predicted, whose patients and labels may be left out and are not looked at.
    Raises ValueError with every problem of the sheet, each with its row (the header is row 1).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such sheet. Write one with a row a slide, paths relative to it (mpp may be left out):\n"
            f"{EXAMPLE}\nor name yours in config.yaml ({'sheet: path' if labelled else 'predict: sheet'})"
            "; to see it all work first: make demo"
        )
    header, rows = read_rows(path, COLUMNS if labelled else UNLABELLED)
    slides = [
        {name: fields[header.index(name)] if name in header else "" for name in (*COLUMNS, *OPTIONAL)}
        for _, fields in rows
        if len(fields) == len(header)
    ]
    frame = pd.DataFrame(slides, columns=[*COLUMNS, *OPTIONAL], dtype=str)
    frame["path"] = [str(path.parent / name) if name else "" for name in frame["path"]]
    frame.index = pd.Index([row for row, fields in rows if len(fields) == len(header)], dtype=int)
    found = [
        f"row {row}: {len(fields)} fields, the header has {len(header)}; quote a field that holds a comma"
        for row, fields in rows
        if len(fields) != len(header)
    ]
    found += problems(frame)
    if labelled:
        found += problems_of_labels(frame)
    if found:
        raise ValueError(f"{path}: {len(found)} problem(s)\n  " + "\n  ".join(found))
    mpp = [float(mpp or "nan") for mpp in frame["mpp"]]
    return frame.assign(mpp=mpp).reset_index(drop=True)


def read_rows(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the rows that are not blank, each with its line number; empty fields beyond the header are cut.

    Raises ValueError when the file is no CSV table, or its header lacks one of the columns or has one twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, fields) for fields in reader if any(fields)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV table in UTF-8 ({error}); the first lines of one:\n{EXAMPLE}") from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    while header and not header[-1]:
        header.pop()
    known = (*COLUMNS, *OPTIONAL)
    wrong = [name for name in header if name not in known and name.lower() in known]
    if wrong:
        raise ValueError(f"{path}: column {', '.join(wrong)}; write {', '.join(name.lower() for name in wrong)}")
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(header) or "no column at all"
        raise ValueError(f"{path}: no column {', '.join(missing)} among {found}; add it. Example:\n{EXAMPLE}")
    twice = sorted({name for name in header if header.count(name) > 1 and name in known})
    if twice:
        raise ValueError(f"{path}: column {', '.join(twice)} stands there twice; keep one")
    for _, fields in lines[1:]:
        while len(fields) > len(header) and not fields[-1]:
            fields.pop()
    return header, lines[1:]


def problems(frame: pd.DataFrame) -> Iterator[str]:
    """Every problem of a sheet read as text, as one line that names row, slide, value and remedy.

    frame: indexed by line number.
    """
    first_row: dict[tuple[str, str], int] = {}
    for row, slide in zip(frame.index, frame.to_dict("records"), strict=True):
        slide_id = slide["slide_id"]
        where = f"row {row}, slide {slide_id!r}"
        if not is_plain(slide_id):
            yield f"{where}: slide_id is no plain file name; use letters, digits, inner spaces, . _ - ( ) and +"
        for key in (("slide_id", _as_disks_see_it(slide_id)), ("path", slide["path"])):
            if key in first_row:
                yield f"{where}: {key[0]} stands in row {first_row[key]} already; give each slide its own"
            first_row.setdefault(key, row)
        if not Path(slide["path"]).is_file():
            yield f"{where}: no file {slide['path'] or 'named'}; correct the path (it is relative to the sheet)"
        if slide["mpp"] and not _is_mpp(slide["mpp"]):
            low, high = MPP_RANGE
            yield f"{where}: mpp {slide['mpp']!r} is no um/px within {low}-{high}; correct it or leave it empty"
    if frame.empty:
        yield "no slides; add a row a slide"


def is_plain(slide_id: str) -> bool:
    """Whether an id can name files: it does not lead out of a folder, and is no word to a shell or to Snakemake."""
    signs = (sign in SIGNS_OF_IDS or unicodedata.category(sign)[0] in "LMN" for sign in slide_id)
    return 0 < len(slide_id.encode()) <= LONGEST_ID and all(signs) and not NO_PLAIN_ENDS.search(slide_id)


def _as_disks_see_it(slide_id: str) -> str:
    """The same for ids that some disks take for one: other in case, or in how an umlaut is composed."""
    return unicodedata.normalize("NFC", slide_id).lower()


def problems_of_labels(frame: pd.DataFrame) -> Iterator[str]:
    """Every problem with the patients and labels of a sheet, as `problems` says them."""
    for row, slide in zip(frame.index, frame.to_dict("records"), strict=True):
        for column in ("patient_id", "label"):
            if not slide[column] or slide[column] != slide[column].strip():
                where = f"row {row}, slide {slide['slide_id']!r}"
                yield f"{where}: {column} is {slide[column]!r}; fill it in, without spaces at the ends"
            elif not slide[column].isprintable():
                where = f"row {row}, slide {slide['slide_id']!r}"
                yield f"{where}: {column} {slide[column]!a} holds signs that do not show; write it anew"
    counts = frame["label"].value_counts()
    for label in counts.index[counts == 1]:
        row = frame.index[frame["label"] == label][0]
        yield f"row {row}: label {label!r} stands on one slide only; check its spelling or add slides"
    if len(counts) == 1:
        yield f"one label only ({counts.index[0]!r}); results need slides of two labels or more"


def _is_mpp(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text)) and plausible(float(text))


def require_patients(frame: pd.DataFrame, n_folds: int) -> None:
    """Check before any work that every fold can test a patient.

    Raises ValueError when there are fewer patients than folds.
    """
    patients = frame["patient_id"].nunique()
    if patients < n_folds:
        raise ValueError(
            f"folds.n_folds: {n_folds} folds of {patients} patients; lower it to {patients} or add patients"
        )


def require_new(new: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Check that no slide to be predicted is one of the cohort's, which classifiers were trained on.

    Raises ValueError naming those that are.
    """
    ids = {slide.lower(): slide for slide in cohort["slide_id"]}
    same = [slide for slide in new["slide_id"] if slide.lower() in ids]
    if same:
        names = ", ".join(same[:5]) + (" ..." if len(same) > 5 else "")
        raise ValueError(f"predict.sheet: {names} stand in the cohort's sheet too; leave them out, or rename them")


def require_masks(slide_ids: Iterable[str], folder: str | None) -> None:
    """Check before any work that tissue outlined by hand belongs to slides of a sheet.

    folder: tissue.masks. Raises FileNotFoundError when there is no such folder, ValueError naming masks of no slide.
    """
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"tissue.masks: no folder {folder}; correct it or leave it empty (null)")
    strange = sorted({path.stem for path in Path(folder).glob("*.geojson")} - set(slide_ids))
    if strange:
        names = ", ".join(strange[:5]) + (" ..." if len(strange) > 5 else "")
        raise ValueError(f"tissue.masks: no slide of a sheet is called {names}; name a mask {{slide_id}}.geojson")


def identity(frame: pd.DataFrame) -> str:
    """What a checked sheet says, but for where the slides lie: hashed into 32 hex digits."""
    return store.fingerprint(frame.drop(columns="path").to_json())


def run(*, sheet_path: Path, out_path: Path, labelled: bool) -> None:
    """Write the checked sheet, but for where the slides lie; notes patients with slides of two labels in the log."""
    frame = read_sheet(sheet_path, labelled)
    labels = frame[frame["patient_id"] != ""].groupby("patient_id")["label"].unique()
    for patient, found in labels[labels.str.len() > 1].items():
        log.warning("%s: patient %s has slides of %d labels: %s", sheet_path, patient, len(found), ", ".join(found))
    store.write_table(
        out_path, "sheet", frame.drop(columns="path"), store.provenance("sheet", VERSION, {}, identity(frame))
    )
    log.info("%d slides of %d patients", len(frame), frame["patient_id"].nunique())
