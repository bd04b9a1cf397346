"""The result table: a row of scores per classifier and kind of features."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from slpd_core import artifacts
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import metrics, significance, table_format, uncertainty
from slpd_core.report.result_rows import ROW_NAMES, ResultRow

INTERVAL, DETECTABLE = "95 % interval", "Detectable"
# Result of a comparison -> the end of its columns.
COMPARED = {"difference": "difference", "low": "difference_low", "high": "difference_high", "detectable": "detectable"}
PATIENTS_AS_BAGS = "The slides of a patient are one bag: scores are of patients."


def make_table(
    rows: Sequence[ResultRow], reference: ResultRow | None, endpoint: Endpoint, partial_folds: Collection[int] = ()
) -> pd.DataFrame:
    """Make the result table in numbers.

    Args:
        rows: In the order of the table.
        reference: The row that all others are compared with.
        endpoint: Of the task.
        partial_folds: Folds that lack a label among the slides that train or test.

    Returns:
        A line per row. row and its names; folds, {main_score}_folds (in which the main score is defined), partial_folds
        (their number); of each score {score}_mean and _sd over folds, _low and _high, the 95 % interval of that mean;
        the same by patient as patient_{score}_...; reference, and of the shown scores {score}_difference,
        _difference_low, _difference_high and _detectable, as `significance.compare_with_reference` returns them (nan in
        the reference row).
    """
    main = f"{endpoint.main_score}_folds"
    lines = []
    for row in rows:
        line = {"row": row.key, **row.names, **_score_columns(row.per_fold, row.influences, endpoint)}
        line[main] = int(row.per_fold[endpoint.main_score].notna().sum())
        line["partial_folds"] = int(row.per_fold["fold"].isin(partial_folds).sum())
        by_patient = line
        if not row.is_by_patient:
            patients = metrics.average_by_patient(row.cases, endpoint)
            parts = uncertainty.compute_influences(patients, endpoint, row.training)
            by_patient = _score_columns(metrics.score_folds(patients, endpoint), parts, endpoint)
        if reference is not None and row is not reference:
            line |= _compare(row.influences, reference.influences, endpoint)
        line |= {f"patient_{name}": by_patient[name] for name in _score_names(endpoint)}
        lines.append(line | {"reference": reference.key if reference else ""})
    scores = _score_names(endpoint)
    compared = [f"{score}_{end}" for score in endpoint.shown_scores for end in COMPARED.values()]
    of_patients = [f"patient_{name}" for name in scores]
    columns = ["row", *ROW_NAMES, "folds", main, "partial_folds", *scores, *of_patients, "reference", *compared]
    return pd.DataFrame(lines, columns=columns)


def _score_names(endpoint: Endpoint) -> list[str]:
    """Columns of each score: mean, deviation and interval."""
    return [f"{score}_{end}" for score in endpoint.scores for end in ("mean", "sd", "low", "high")]


def _score_columns(
    per_fold: pd.DataFrame, influences: Mapping[str, uncertainty.Influence], endpoint: Endpoint
) -> dict[str, Any]:
    """The number of folds, and the columns of each score."""
    columns = metrics.summarize_folds(per_fold, endpoint)
    for score, influence in influences.items():
        columns[f"{score}_low"], columns[f"{score}_high"] = influence.interval()
    return columns


def _compare(
    row: Mapping[str, uncertainty.Influence], reference: Mapping[str, uncertainty.Influence], endpoint: Endpoint
) -> dict[str, float]:
    """The columns of a row's comparison with the reference row."""
    columns: dict[str, float] = {}
    for score in endpoint.shown_scores:
        comparison = significance.compare_with_reference(row[score], reference[score])
        columns |= {f"{score}_{COMPARED[name]}": value for name, value in comparison.items()}
    return columns


def format_tables(table: pd.DataFrame, endpoint: Endpoint, *, by_patient: bool = False) -> list[table_format.Table]:
    """Format the result table: scores with the difference in the main score, and those by patient if they differ.

    Args:
        table: As `make_table` returns it.
        endpoint: Of the task.
        by_patient: Whether the slides of a patient are one bag.

    Returns:
        One table, or two.
    """
    lines = table.to_dict("records")
    marked = [line for line in lines if line["partial_folds"]]
    notes = [table_format.explain_mark(marked[0]["partial_folds"], marked[0]["folds"])] if marked else []
    notes += [PATIENTS_AS_BAGS] if by_patient else []
    difference = f"{SCORES[endpoint.main_score].title} difference"
    by_slide = table_format.Table(
        [*ROW_NAMES.values()],
        [*_score_heads(endpoint, ""), difference, INTERVAL, DETECTABLE],
        [(_names(line), [*_scores(line, endpoint, ""), *_differences(line, endpoint)]) for line in lines],
        notes=notes,
    )
    of_patients = table_format.Table(
        [*ROW_NAMES.values()],
        _score_heads(endpoint, " by patient"),
        [(_names(line), _scores(line, endpoint, "patient_")) for line in lines],
        notes=notes,
    )
    same = all(_scores(line, endpoint, "") == _scores(line, endpoint, "patient_") for line in lines)
    return [by_slide] if same else [by_slide, of_patients]


def _score_heads(endpoint: Endpoint, by: str) -> list[str]:
    """Titles of the columns of `_scores`."""
    return [head for score in endpoint.shown_scores for head in (SCORES[score].title + by, INTERVAL)]


def _names(line: Mapping[str, Any]) -> list[str]:
    """Names of the row."""
    return [line[name] for name in ROW_NAMES]


def _scores(line: Mapping[str, Any], endpoint: Endpoint, prefix: str) -> list[str]:
    """Texts of each score: mean and deviation, interval."""
    cells = []
    for score in endpoint.shown_scores:
        mean, sd, low, high = (line[f"{prefix}{score}_{end}"] for end in ("mean", "sd", "low", "high"))
        decimals = table_format.count_decimals(mean) if SCORES[score].has_unit else None
        text = table_format.format_mean_sd(mean, sd, decimals)
        cells.append(table_format.mark_partial(text, line["partial_folds"]))
        cells.append(table_format.format_interval(low, high, decimals))
    return cells


def _differences(line: Mapping[str, Any], endpoint: Endpoint) -> list[str]:
    """Texts of the comparison with the reference row: difference, interval, smallest detectable difference."""
    difference, low, high, detectable = (line[f"{endpoint.main_score}_{end}"] for end in COMPARED.values())
    text = "reference" if line["row"] == line["reference"] else table_format.format_difference(difference)
    return [text, table_format.format_difference_interval(low, high), table_format.format_score(detectable)]


def find_partial_folds(remarks: pd.DataFrame) -> set[int]:
    """Find the folds in which a label is missing from the slides that train or from those that test.

    Args:
        remarks: The `remarks` table.

    Returns:
        Their indices.
    """
    return {int(fold) for fold in remarks.loc[remarks["remark"].isin(artifacts.REMARKS_OF_LABELS.values()), "fold"]}
