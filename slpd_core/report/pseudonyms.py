"""Numbers in place of the names of slides and patients, so that a report can be shared; the key is in its own file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import generator

NOT_SHOWN = "a text that is not shown here, as it may name files"
LEFT_OUT = "(left out)"
PLAIN_VALUE = re.compile(r"[\w-]*")  # of a setting: no path, no file's name
OF_PATIENTS = "patient on both sides"  # the remark on folds whose ids are patients
KEY_COLUMNS = ("slide", "slide_id", "patient", "patient_id", "status", "reason", "remarks")

T = TypeVar("T")


@dataclass(frozen=True)
class ShownNames:
    """The names that a report shows.

    Attributes:
        slides, patients: Name in the ledger to the name that is shown.
        are_numbers: Whether these are pseudonyms: then nothing else may tell who a slide is of either.
    """

    slides: Mapping[str, str]
    patients: Mapping[str, str]
    are_numbers: bool = True

    def rename(self, table: pd.DataFrame) -> pd.DataFrame:
        """Put the shown names into a table.

        Args:
            table: Columns slide_id or patient_id, or both.

        Returns:
            The table, where names are numbers in their order: that of the true ones says something about them.
        """
        if not self.are_numbers:
            return table
        columns = {"slide_id": self.slides, "patient_id": self.patients}
        named = {name: [names[of] for of in table[name]] for name, names in columns.items() if name in table}
        order = [name for name in ("fold", *columns) if name in table]
        return table.assign(**named).sort_values(order, kind="stable", ignore_index=True)

    def rename_ledger(self, ledger: pd.DataFrame) -> pd.DataFrame:
        """Put the shown names into a ledger, whose reasons and remarks are then withheld.

        Args:
            ledger: Of the cohort.

        Returns:
            The ledger.
        """
        if not self.are_numbers:
            return ledger
        withheld = {name: ledger[name].where(ledger[name] == "", NOT_SHOWN) for name in ("reason", "remarks")}
        return self.rename(ledger.assign(**withheld))

    def rename_remarks(self, remarks: pd.DataFrame) -> pd.DataFrame:
        """Put the shown names into the remarks on folds.

        Args:
            remarks: The `remarks` table.

        Returns:
            The table; labels that are remarked on stay.
        """
        if not self.are_numbers:
            return remarks
        kept = {*artifacts.REMARKS_OF_LABELS.values()}
        ids = [
            name if remark in kept else (self.patients if remark == OF_PATIENTS else self.slides)[name]
            for remark, name in zip(remarks["remark"], remarks["id"], strict=True)
        ]
        return remarks.assign(id=ids).sort_values(["remark", "fold", "id"], kind="stable", ignore_index=True)

    def rename_keys(self, values: Mapping[str, T]) -> dict[str, T]:
        """Put the shown names of slides into keys.

        Args:
            values: By slide.

        Returns:
            The same in the order of the shown names, where they are numbers.
        """
        named = {self.slides[slide]: value for slide, value in values.items()}
        return dict(sorted(named.items())) if self.are_numbers else named


def keep_names(ledger: pd.DataFrame) -> ShownNames:
    """Show slides and patients by their own names.

    Args:
        ledger: Of the cohort.

    Returns:
        Each name for itself.
    """
    slides, patients = ({name: name for name in ledger[column]} for column in ("slide_id", "patient_id"))
    return ShownNames(slides, patients, are_numbers=False)


def number_names(ledger: pd.DataFrame, *, seed: int) -> ShownNames:
    """Number slides and patients in a random order.

    Args:
        ledger: Of the cohort.
        seed: Of the order.

    Returns:
        Such as slide-07 and patient-12.
    """
    rng = generator(seed, "pseudonyms")
    return ShownNames(
        _number("slide", sorted(ledger["slide_id"].unique()), rng),
        _number("patient", sorted(ledger["patient_id"].unique()), rng),
    )


def _number(word: str, names: list[str], rng: Any) -> dict[str, str]:
    """A number of its own for each name."""
    width = len(str(len(names)))
    return {name: f"{word}-{i + 1:0{width}}" for name, i in zip(names, rng.permutation(len(names)), strict=True)}


def write_key(path: Path, ledger: pd.DataFrame, names: ShownNames) -> None:
    """Write who is who: the only file of a report that says it.

    Args:
        path: A CSV file.
        ledger: Of the cohort, with the true names.
        names: Those that are shown.
    """
    shown = {"slide": ledger["slide_id"].map(names.slides), "patient": ledger["patient_id"].map(names.patients)}
    key = ledger.assign(**shown).sort_values("slide")
    artifacts.write_csv(path, key[[*KEY_COLUMNS]], "%.6g")


def require_numbers(paths: Iterable[Path]) -> None:
    """Check that pictures, in which the names of slides are drawn, show numbers.

    Args:
        paths: Galleries and heat maps.

    Raises:
        ValueError: One shows the slides' own names.
    """
    for path in paths:
        if artifacts.read_picture_meta(path) != artifacts.NUMBERED:
            problem = "shows slides by their own names, but report.pseudonyms is true"
            raise ValueError(f"{path}: {problem}; {artifacts.rebuild_hint(path)}")


def hide_texts(settings: Any) -> Any:
    """Leave texts out of settings that can be paths or names of files.

    Args:
        settings: Plain values.

    Returns:
        The same with texts of letters, digits, - and _ only; others are "(left out)".
    """
    if isinstance(settings, Mapping):
        return {hide_texts(key): hide_texts(value) for key, value in settings.items()}
    if isinstance(settings, str):
        return settings if PLAIN_VALUE.fullmatch(settings) else LEFT_OUT
    return [hide_texts(value) for value in settings] if isinstance(settings, Iterable) else settings
