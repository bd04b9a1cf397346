"""Imported splits: the files splits_k.csv of CLAM and HIPT, matched to the slides, and what is to be known of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import store
from slpd_core.evaluation.remarks import Remark

PARTS = ("train", "val", "test")
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide", ".dcm", ".h5", ".pt")


def plain(slide_id: str) -> str:
    """A slide's id without the extension of its file."""
    suffix = next((suffix for suffix in SUFFIXES if slide_id.lower().endswith(suffix)), "")
    return slide_id[: len(slide_id) - len(suffix)]


def read_split(path: Path) -> dict[str, str]:
    """The part of each slide that a split names, ids as they stand there.

    Raises ValueError when the file is no table of train, val and test, or a slide stands there twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a CSV table ({error}); it needs columns train, val and test") from error
    missing = [part for part in PARTS if part not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(table)}; it needs {', '.join(PARTS)}"
        )
    named = [(slide_id.strip(), part) for part in PARTS for slide_id in table[part] if slide_id.strip()]
    twice = [slide_id for slide_id, count in Counter(plain(slide_id) for slide_id, _ in named).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: slide {twice[0]} stands there twice ({len(twice)} such slides); give each one part")
    return dict(named)


def import_folds(paths: Sequence[Path], slides: pd.DataFrame) -> tuple[pd.DataFrame, list[Remark]]:
    """The folds of imported splits, those of a cohort's slides that they name, and what is to be known of them.

    slides: of the whole cohort, columns slide_id, patient_id, label, status. Ids match with or without the extension
    of a slide's file. Gives columns of the `folds` table. Raises ValueError when a fold is left without slides that
    train, or that test.
    """
    by_id = {slide_id: row for row, slide_id in enumerate(slides["slide_id"])}
    by_plain_id: dict[str, int] = {}
    for slide_id, number in by_id.items():
        if (other := by_plain_id.setdefault(plain(slide_id), number)) != number:
            raise ValueError(
                f"folds.splits: slides {slides['slide_id'].iloc[other]} and {slide_id} of the sheet differ in their "
                "extension only, so that a split may name either; rename one"
            )
    usable = (slides["status"] == store.OK).to_numpy()
    folds, strange, named = [], [], set()
    for fold, path in enumerate(paths):
        part_of = np.full(len(slides), "", object)
        for slide_id, part in read_split(path).items():
            row = by_id.get(slide_id, by_plain_id.get(plain(slide_id)))
            if row is None:
                strange.append(slide_id)
            else:
                part_of[row] = part
        named |= set(np.flatnonzero(part_of != ""))
        own = slides[usable & (part_of != "")].assign(fold=fold, part=part_of[usable & (part_of != "")])
        for part in ("train", "test"):
            if not (own["part"] == part).any():
                theirs, ours = next(iter(read_split(path)), ""), slides["slide_id"].iloc[0]
                raise ValueError(
                    f"{path}: no slide is left to {part}; its ids look like {theirs!r}, the sheet's like {ours!r}"
                )
        folds.append(own)
    found = pd.concat(folds, ignore_index=True)[[*store.TABLES["folds"]]]
    unnamed = slides["slide_id"][usable & ~np.isin(np.arange(len(slides)), list(named))]
    remarks = [Remark("in the splits, not in the sheet", slide_id) for slide_id in dict.fromkeys(strange)]
    remarks += [Remark("in no split", slide_id) for slide_id in unnamed]
    return found, remarks
