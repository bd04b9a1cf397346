"""Imported splits: the files splits_k.csv of CLAM and HIPT, matched to the slides of the sheet."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id, loosen_id, normalize_id, strip_fraction
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.evaluation.split_audit import SplitIssue
from slpd_core.runtime import log
from slpd_core.wsi.slide_folder import KNOWN_SUFFIXES

SPLIT_COLUMNS = ("train", "val", "test")
SLIDE_SUFFIXES = (*sorted(KNOWN_SUFFIXES), ".h5", ".pt")
UUID_TAIL = re.compile(r"\.[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
# How ids may differ that a person would take for one: the message's words for the difference -> a function that drops
# it. They are named, never matched.
DIFFERENCES: dict[str, Callable[[str], str]] = {
    "their case": fold_id,
    "their zeros and separators": loosen_id,
    "their folders": lambda slide_id: re.split(r"[/\\]", slide_id)[-1],
    "the UUID at their ends, as of TCGA's files": lambda slide_id: UUID_TAIL.sub("", slide_id),
}
# Fingerprint of published splits, as `recognize_splits` computes it -> their name.
PUBLISHED_SPLITS = {
    "2efc9947fe092a7aa85a316f0ee18d23": "HIPT's ten splits of TCGA-BRCA",
    "2b6e1cbf630bb67257fb26c24bf65867": "HIPT's ten splits of TCGA-NSCLC",
}


def strip_suffix(slide_id: str) -> str:
    """Strip the extension of the slide's file from an id, and the .0 that a column with gaps gives to integers.

    Args:
        slide_id: As a split or the sheet has it.

    Returns:
        The bare id.
    """
    suffix = next((suffix for suffix in SLIDE_SUFFIXES if slide_id.lower().endswith(suffix)), "")
    return strip_fraction(slide_id[: len(slide_id) - len(suffix)])


def read_split(path: Path) -> dict[str, str]:
    """Read the part of each slide from a split file.

    Args:
        path: A table with columns train, val and test of slide ids.

    Returns:
        Slide id, as the file has it, to part.

    Raises:
        ValueError: The file is no such table, or lists a slide twice.
    """
    table = read_text_table(path, SPLIT_COLUMNS, ragged=True)
    if table.problems:
        raise ValueError(f"{path}: {len(table.problems)} problem(s)\n  " + "\n  ".join(table.problems))
    pairs = [(normalize_id(row[part]), part) for part in SPLIT_COLUMNS for _, row in table.rows if row[part]]
    counts = Counter(strip_suffix(slide_id) for slide_id, _ in pairs)
    twice = [slide_id for slide_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{path}: slide {twice[0]!r} is listed twice ({len(twice)} such slides); give each one part")
    return dict(pairs)


class SlideIndex:
    """Looks up the slides of a cohort by the ids of splits, with or without the extension of a file.

    Args:
        slide_ids: Of the cohort.

    Raises:
        ValueError: Two ids differ in their extension only.
    """

    def __init__(self, slide_ids: Sequence[str]) -> None:
        self.rows = {normalize_id(slide_id): row for row, slide_id in enumerate(slide_ids)}
        self.bare_rows: dict[str, int] = {}
        for slide_id, row in self.rows.items():
            if (other := self.bare_rows.setdefault(strip_suffix(slide_id), row)) != row:
                raise ValueError(
                    f"folds.splits_dir: slides {slide_ids[other]} and {slide_id} of the sheet differ in their "
                    "extension only, so that a split may name either; rename one"
                )

    def find(self, slide_id: str) -> int | None:
        """Find a slide of the cohort.

        Args:
            slide_id: As a split has it.

        Returns:
            Its index in the cohort; None if the cohort has no such slide.
        """
        return self.rows.get(slide_id, self.bare_rows.get(strip_suffix(slide_id)))

    def find_hint(self, unmatched: Collection[str]) -> str:
        """Find an unmatched id that resembles a slide's, and say how they differ.

        Args:
            unmatched: Ids of splits that match no slide.

        Returns:
            A sentence for the user; "" if no id resembles one.
        """
        for name, change in DIFFERENCES.items():
            slides = {change(slide_id): slide_id for slide_id in self.bare_rows}
            similar = next((other for other in unmatched if change(strip_suffix(other)) in slides), None)
            if similar is not None:
                slide_id = slides[change(strip_suffix(similar))]
                return f"{similar!r} and the sheet's {slide_id!r} differ only in {name}; write both the same way"
        return ""


def import_folds(paths: Sequence[Path], slides: pd.DataFrame) -> tuple[pd.DataFrame, list[SplitIssue]]:
    """Import the folds of split files.

    Args:
        paths: A split file per fold.
        slides: Of the whole cohort, columns slide_id, patient_id, label ("" where a slide has none), status. Ids match
            with or without the extension of a slide's file.

    Returns:
        The `folds` table of the usable slides that the splits list, and the issues.

    Raises:
        ValueError: A fold has no slide to train, or none to test.
    """
    index = SlideIndex(slides["slide_id"].to_list())
    usable = ((slides["status"] == artifacts.OK) & (slides["label"] != "")).to_numpy()
    tables, unknown, listed = [], [], set()
    for fold, path in enumerate(paths):
        part_of, unmatched = np.full(len(slides), "", object), []
        for slide_id, part in read_split(path).items():
            row = index.find(slide_id)
            if row is None:
                unmatched.append(slide_id)
            else:
                part_of[row] = part
        listed |= set(np.flatnonzero(part_of != ""))
        table = slides[usable & (part_of != "")].assign(fold=fold, part=part_of[usable & (part_of != "")])
        for part in ("train", "test"):
            if not (table["part"] == part).any():
                raise ValueError(
                    f"{path}: no slide is left to {part}; {_explain_empty(part_of == part, unmatched, index)}"
                )
        tables.append(table)
        unknown += unmatched
    if hint := index.find_hint(unknown):
        log.warning("folds.splits_dir: %s", hint)
    folds = pd.concat(tables, ignore_index=True)[[*artifacts.TABLES["folds"]]]
    unlisted = slides["slide_id"][usable & ~np.isin(np.arange(len(slides)), list(listed))]
    issues = [SplitIssue("in the splits, not in the sheet", slide_id) for slide_id in dict.fromkeys(unknown)]
    issues += [SplitIssue("in no split", slide_id) for slide_id in unlisted]
    return folds, issues


def _explain_empty(matched: np.ndarray, unmatched: Sequence[str], index: SlideIndex) -> str:
    """Explain why a part has no slide; matched marks the cohort's slides that the split puts there."""
    if matched.any():
        return (
            f"all {matched.sum()} of its slides that the sheet has are quarantined, without regions or without a label"
        )
    if not unmatched:
        return "the column is empty"
    example = f"for example {unmatched[0]!r}, where the sheet has {next(iter(index.rows), '')!r}"
    return f"{len(unmatched)} ids match no slide of the sheet, {index.find_hint(unmatched) or example}"


def recognize_splits(paths: Sequence[Path]) -> artifacts.Meta:
    """Recognize published splits by all their slides and parts, in any order.

    Args:
        paths: A split file per fold.

    Returns:
        published_splits: Their name, "" of others. n_split_slides: The number of slides that they list.
    """
    lines = [
        f"{fold} {part} {strip_suffix(slide_id)}"
        for fold, path in enumerate(paths)
        for slide_id, part in read_split(path).items()
    ]
    slides = {line.split(" ", 2)[2] for line in lines}
    name = PUBLISHED_SPLITS.get(artifacts.fingerprint(*sorted(lines)), "")
    return {"published_splits": name, "n_split_slides": str(len(slides))}
