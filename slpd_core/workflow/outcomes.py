"""What a run came to, in a line: the page, the slides that it used, and the score of the reference row."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.report.wording import describe_score


def describe_outcomes(
    rules: Collection[str],
    paths: CohortPaths,
    endpoints: Mapping[str, Endpoint],
    external: Collection[str],
    reference: str | None = None,
) -> Iterator[str]:
    """Describe the results of a run that has succeeded.

    Args:
        rules: Of its jobs, those that had nothing to do among them.
        paths: The files of the cohort.
        endpoints: By task.
        external: Names of the external cohorts.
        reference: Key of the row that others are compared with, as `report.reference`.

    Yields:
        A line on the report if it was requested, else on the page of all slides; one per external cohort and task that
        was predicted.
    """
    if "report" in rules:
        scores = [
            _describe_table(paths.result_table(task, "parquet"), endpoint.main_score, "_mean", reference, task=title)
            for task, endpoint in endpoints.items()
            for title in [f"{task}: " if len(endpoints) > 1 else ""]
        ]
        yield _join(f"Report: {paths.page()}", _count_slides(paths.ledger()), *scores)
    elif "slide_index" in rules:
        yield _join(f"Slides: {paths.slide_index()}", _count_slides(paths.ledger()))
    for name in external if "predict_external" in rules else ():
        used = _count_slides(paths.external_ledger(name))
        for task, endpoint in endpoints.items():
            predictions, table = paths.external_predictions(name, task), paths.external_table(name, task, "parquet")
            if predictions.exists():
                shown = paths.external_page(name) if "predict_index" in rules else predictions
                title = f"{task}: " if len(endpoints) > 1 else ""
                score = _describe_table(table, endpoint.main_score, "", reference, task=title)
                yield _join(f"Predictions: {shown}", used, score)


def _describe_table(path: Path, score: str, suffix: str, reference: str | None, *, task: str = "") -> str:
    """Describe the reference row of a table of results; "" without the table or a row."""
    with suppress(OSError, ValueError):  # broken ones are reported by their jobs
        table, _ = artifacts.read_table(path)
        if len(table):
            row = _select_row(table, reference)
            numbers = (row[f"{score}{suffix}"], row[f"{score}_low"], row[f"{score}_high"])
            return f"{task}{row['row']} {describe_score(score, *numbers)}"
    return ""


def _select_row(table: pd.DataFrame, reference: str | None) -> pd.Series:
    """The reference row; the last row of a table that lacks it, as in the report."""
    return next((row for _, row in table.iterrows() if row["row"] == reference), table.iloc[-1])


def _count_slides(ledger_path: Path) -> str:
    """How many slides were used; "" without a ledger."""
    with suppress(OSError, ValueError):
        table, _ = artifacts.read_table(ledger_path, "ledger")
        return f"{int((table['status'] == artifacts.OK).sum()):,} of {len(table):,} slides used"
    return ""


def _join(*parts: str) -> str:
    """Join the parts of a line that there are."""
    return " · ".join(filter(None, parts))
