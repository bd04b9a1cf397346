"""What is to be known of the folds: slides that take no part, patients on both sides, labels that a part lacks."""

from typing import NamedTuple

import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import log, name_some

ON_BOTH_SIDES = "patient on both sides"


class SplitIssue(NamedTuple):
    """A remark on a slide, a patient or a label, in one fold or, where that is empty, in all."""

    remark: str
    id: str
    fold: str = ""


def audit_slides(slides: pd.DataFrame) -> list[SplitIssue]:
    """The slides of a cohort that no fold can hold; slides: columns slide_id, status."""
    left_out = slides[slides["status"] != artifacts.OK]
    return [SplitIssue(artifacts.REMARKS_OF_STATUS[slide.status], slide.slide_id) for slide in left_out.itertuples()]


def audit_folds(folds: pd.DataFrame) -> list[SplitIssue]:
    """Return what is wrong with folds: patients on both sides of one, labels a part lacks, slides that none tests."""
    found, labels = [], set(folds["label"])
    for fold, rows in folds.groupby("fold"):
        tested = set(rows.loc[rows["part"] == "test", "patient_id"])
        trained = set(rows.loc[rows["part"].isin(("train", "val")), "patient_id"])
        found += [SplitIssue(ON_BOTH_SIDES, patient, str(fold)) for patient in sorted(tested & trained)]
        for part, remark in artifacts.REMARKS_OF_LABELS.items():
            shown = set(rows.loc[rows["part"] == part, "label"])
            found += [SplitIssue(remark, label, str(fold)) for label in sorted(labels - shown)]
    times = folds.groupby("slide_id")["part"].agg(lambda parts: (parts == "test").sum())
    found += [SplitIssue("never tested", slide_id) for slide_id in times.index[times == 0]]
    return found


def count(remarks: list[SplitIssue]) -> list[str]:
    """Return a line per kind of remark: how many ids it is about, and some of them."""
    ids: dict[str, dict[str, None]] = {}
    for remark in remarks:
        ids.setdefault(remark.remark, {})[remark.id] = None
    return [f"{remark}: {len(names)} ({name_some(names)})" for remark, names in ids.items()]


def table(remarks: list[SplitIssue]) -> pd.DataFrame:
    """Remarks as a table with columns remark, id and fold; says of each kind how many there are in the log."""
    for line in count(remarks):
        log.warning("%s", line)
    return pd.DataFrame(remarks, columns=SplitIssue._fields, dtype=str)
