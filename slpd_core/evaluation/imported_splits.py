"""Imported splits: the files splits_k.csv of CLAM and HIPT, matched to the slides, and what is to be known of them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, loosen_id, normalize_id, without_fraction
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.evaluation.split_audit import SplitIssue
from slpd_core.runtime import log

PARTS = ("train", "val", "test")
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide", ".dcm", ".h5", ".pt")
UUID_TAIL = re.compile(r"\.[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
# What ids may differ in without being taken for one: how the message calls it, and what is left without it.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "their case": fold_id,
    "their zeros and separators": loosen_id,
    "their folders": lambda slide_id: re.split(r"[/\\]", slide_id)[-1],
    "the UUID at their ends, as of TCGA's files": lambda slide_id: UUID_TAIL.sub("", slide_id),
}
# Fingerprints of splits that others published, as `recognize_splits` takes them: what they are called.
PUBLISHED_SPLITS = {
    "2efc9947fe092a7aa85a316f0ee18d23": "HIPT's ten splits of TCGA-BRCA",
    "2b6e1cbf630bb67257fb26c24bf65867": "HIPT's ten splits of TCGA-NSCLC",
}


def plain(slide_id: str) -> str:
    """Return a slide's id without the extension of its file, and 101 for the 101.0 of a column with gaps."""
    suffix = next((suffix for suffix in SUFFIXES if slide_id.lower().endswith(suffix)), "")
    return without_fraction(slide_id[: len(slide_id) - len(suffix)])


def read_split(path: Path) -> dict[str, str]:
    """Return the part of each slide that a split names, ids as it has them.

    Raises ValueError when the file is no table of train, val and test, or names a slide twice.
    """
    table = read_text_table(path, PARTS, ragged=True)
    if table.problems:
        raise ValueError(f"{path}: {len(table.problems)} problem(s)\n  " + "\n  ".join(table.problems))
    named = [(normalize_id(row[part]), part) for part in PARTS for _, row in table.rows if row[part]]
    twice = [slide_id for slide_id, count in Counter(plain(slide_id) for slide_id, _ in named).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: slide {twice[0]!r} is listed twice ({len(twice)} such slides); give each one part")
    return dict(named)


class SlideIndex:
    """The slides of a cohort by the ids that splits may have for them: with or without the extension of a file."""

    def __init__(self, slide_ids: Sequence[str]) -> None:
        """Raises ValueError when two slides differ in their extension only."""
        self.rows = {normalize_id(slide_id): row for row, slide_id in enumerate(slide_ids)}
        self.plain_rows: dict[str, int] = {}
        for slide_id, row in self.rows.items():
            if (other := self.plain_rows.setdefault(plain(slide_id), row)) != row:
                raise ValueError(
                    f"folds.splits: slides {slide_ids[other]} and {slide_id} of the sheet differ in their "
                    "extension only, so that a split may name either; rename one"
                )

    def find(self, slide_id: str) -> int | None:
        """Return the row of a slide, None where the cohort has no such slide."""
        return self.rows.get(slide_id, self.plain_rows.get(plain(slide_id)))

    def find_hint(self, strange: Collection[str]) -> str:
        """Return in what an id that matches no slide may differ from one that does; "" where none resembles one."""
        for name, change in DIFFERENCES.items():
            slides = {change(slide_id): slide_id for slide_id in self.plain_rows}
            alike = next((one for one in strange if change(plain(one)) in slides), None)
            if alike is not None:
                slide_id = slides[change(plain(alike))]
                return f"{alike!r} and the sheet's {slide_id!r} are alike but for {name}; write both alike"
        return ""


def import_folds(paths: Sequence[Path], slides: pd.DataFrame) -> tuple[pd.DataFrame, list[SplitIssue]]:
    """Return the folds of imported splits, of a cohort's slides that they name, and what is to be known of them.

    Args:
        paths: of the splits, a fold each.
        slides: of the whole cohort, columns slide_id, patient_id, label, status. Ids match with or without the
            extension of a slide's file.

    Returns:
        Columns of the `folds` table, and the remarks.

    Raises:
        ValueError: a fold is left without slides that train, or that test.
    """
    index = SlideIndex(slides["slide_id"].to_list())
    usable = (slides["status"] == artifacts.OK).to_numpy()
    folds, strange, named = [], [], set()
    for fold, path in enumerate(paths):
        part_of, unmatched = np.full(len(slides), "", object), []
        for slide_id, part in read_split(path).items():
            row = index.find(slide_id)
            if row is None:
                unmatched.append(slide_id)
            else:
                part_of[row] = part
        named |= set(np.flatnonzero(part_of != ""))
        own = slides[usable & (part_of != "")].assign(fold=fold, part=part_of[usable & (part_of != "")])
        for part in ("train", "test"):
            if not (own["part"] == part).any():
                raise ValueError(
                    f"{path}: no slide is left to {part}; {_explain_empty(part_of == part, unmatched, index)}"
                )
        folds.append(own)
        strange += unmatched
    if hint := index.find_hint(strange):
        log.warning("folds.splits: %s", hint)
    found = pd.concat(folds, ignore_index=True)[[*artifacts.TABLES["folds"]]]
    unnamed = slides["slide_id"][usable & ~np.isin(np.arange(len(slides)), list(named))]
    remarks = [SplitIssue("in the splits, not in the sheet", slide_id) for slide_id in dict.fromkeys(strange)]
    remarks += [SplitIssue("in no split", slide_id) for slide_id in unnamed]
    return found, remarks


def _explain_empty(matched: np.ndarray, unmatched: Sequence[str], index: SlideIndex) -> str:
    """Why a part has no slide: matched marks the cohort's slides that the split puts there."""
    if matched.any():
        return f"all {matched.sum()} of the part that the sheet has are quarantined or without regions"
    if not unmatched:
        return "the column is empty"
    shown = f"for example {unmatched[0]!r}, where the sheet has {next(iter(index.rows), '')!r}"
    return f"{len(unmatched)} ids match no slide of the sheet, {index.find_hint(unmatched) or shown}"


def recognize_splits(paths: Sequence[Path]) -> artifacts.Meta:
    """Recognize published splits by all their slides and parts, whatever their order.

    Returns:
        published_splits: What they are called, "" of others. n_split_slides: How many slides they name.
    """
    lines = [
        f"{fold} {part} {plain(slide_id)}"
        for fold, path in enumerate(paths)
        for slide_id, part in read_split(path).items()
    ]
    slides = {line.split(" ", 2)[2] for line in lines}
    name = PUBLISHED_SPLITS.get(artifacts.fingerprint(*sorted(lines)), "")
    return {"published_splits": name, "n_split_slides": str(len(slides))}
