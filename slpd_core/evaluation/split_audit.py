"""Audit of the folds: slides that take no part, patients on both sides, labels that a part lacks."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from slpd_core import artifacts
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import CLASSIFICATION
from slpd_core.runtime import log, name_some

ON_BOTH_SIDES = "patient on both sides"


class SplitIssue(NamedTuple):
    """An issue of a slide, a patient or a label.

    Attributes:
        remark: The kind of issue.
        id: Of the slide or patient, or the label.
        fold: Its index, "" if it is an issue of all.
    """

    remark: str
    id: str
    fold: str = ""


def audit_slides(slides: pd.DataFrame) -> list[SplitIssue]:
    """List the slides of a cohort that no fold can hold.

    Args:
        slides: Columns slide_id, status and label, "" where a slide has none.

    Returns:
        An issue per slide.
    """
    excluded = slides[(slides["status"] != artifacts.OK) | (slides["label"] == "")]
    remarks = artifacts.REMARKS_OF_STATUS | {artifacts.OK: artifacts.REMARK_UNLABELED}
    return [SplitIssue(remarks[slide.status], slide.slide_id) for slide in excluded.itertuples()]


def audit_folds(folds: pd.DataFrame, endpoint: Endpoint = CLASSIFICATION) -> list[SplitIssue]:
    """List patients on both sides of a fold, labels that a part lacks, and slides that no fold tests.

    Args:
        folds: A `folds` table.
        endpoint: What the task predicts.

    Returns:
        The issues, fold after fold; slides that are never tested last.
    """
    issues: list[SplitIssue] = []
    for fold, rows in folds.groupby("fold"):
        tested = set(rows.loc[rows["part"] == "test", "patient_id"])
        trained = set(rows.loc[rows["part"].isin(("train", "val")), "patient_id"])
        issues += [SplitIssue(ON_BOTH_SIDES, patient, str(fold)) for patient in sorted(tested & trained)]
        for part, remark in artifacts.REMARKS_OF_LABELS.items():
            missing = endpoint.find_missing(rows[rows["part"] == part], folds)
            issues += [SplitIssue(remark, name, str(fold)) for name in missing]
    times = folds.groupby("slide_id")["part"].agg(lambda parts: (parts == "test").sum())
    return issues + [SplitIssue("never tested", slide_id) for slide_id in times.index[times == 0]]


def describe_issues(issues: Sequence[SplitIssue]) -> list[str]:
    """Summarize each kind of issue in a line: how many ids it is about, and some of them.

    Args:
        issues: Of one cohort.

    Returns:
        A line per kind.
    """
    ids: dict[str, dict[str, None]] = {}
    for issue in issues:
        ids.setdefault(issue.remark, {})[issue.id] = None
    return [f"{remark}: {len(names)} ({name_some(names)})" for remark, names in ids.items()]


def tabulate_issues(issues: Sequence[SplitIssue]) -> pd.DataFrame:
    """Tabulate issues, and log a summary of each kind.

    Args:
        issues: Of one cohort.

    Returns:
        The `remarks` table: columns remark, id, fold.
    """
    for line in describe_issues(issues):
        log.warning("%s", line)
    return pd.DataFrame(issues, columns=SplitIssue._fields, dtype=str)
