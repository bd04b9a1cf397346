"""The result table of an external cohort: a row per features and classifier, in numbers and formatted."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import table_format
from slpd_core.report.external_scores import gather_cases, score_cases, score_operating_point
from slpd_core.report.operating_point import RATES, youden_threshold
from slpd_core.report.result_rows import ROW_NAMES, ResultRow
from slpd_core.report.result_table import INTERVAL
from slpd_core.report.table_format import Table
from slpd_core.runtime import generator

# Scores of classes are computed for all resamples at once, others for one after the other.
MIN_RESAMPLES = 400
N_RESAMPLES = {"classification": 1000}
RATE_TITLES = {"sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV"}


def training_threshold(predictions: pd.DataFrame, endpoint: Endpoint, *, by: str = "slide_id") -> float:
    """Choose the threshold of class 1 of two on the cohort's own test predictions.

    Args:
        predictions: The `evaluate` tables of all folds of a row.
        endpoint: Of the task.
        by: As in `gather_cases`.

    Returns:
        The threshold that `youden_threshold` chooses, by the mean prediction of each slide or patient.
    """
    keys = [*dict.fromkeys((by, *endpoint.columns))]
    pooled = predictions.groupby(keys)[endpoint.prediction_columns].mean().reset_index()
    return youden_threshold(endpoint.predictions(pooled)[:, 1], endpoint.encode(pooled) == 1)


def is_binary(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint has a threshold.

    Args:
        endpoint: Of the task.

    Returns:
        Whether it is one of two classes without an order.
    """
    return endpoint.kind == "classification" and len(endpoint.classes) == 2


def make_external_table(
    rows: Sequence[tuple[ResultRow, pd.DataFrame]],
    endpoint: Endpoint,
    *,
    seed: int,
    n_resamples: int | None = None,
    bags: str = "slide",
) -> pd.DataFrame:
    """Make the result table of an external cohort in numbers.

    Args:
        rows: Of the cohort's result table, each with its predictions of the external cohort: columns fold, slide_id,
            patient_id, those of the truth and of the predictions.
        endpoint: Of the task.
        seed: Of the resamples, which are the same for all rows.
        n_resamples: Number of resamples; None: N_RESAMPLES of the kind.
        bags: slide, or patient if the slides of a patient are one bag: all scores are then of patients.

    Returns:
        A line per row: row and its names; folds, slides, patients; the columns of `score_cases` by slide, and by
        patient as patient_...; of two classes those of `score_operating_point`, at the `training_threshold`.
    """
    lines, n_resamples = [], n_resamples or N_RESAMPLES.get(endpoint.kind, MIN_RESAMPLES)
    for row, predictions in rows:
        by_slide, by_patient = (gather_cases(predictions, endpoint, by=by) for by in ("slide_id", "patient_id"))
        line: dict[str, Any] = {"row": row.key, **row.names, "folds": row.predictions["fold"].nunique()}
        line |= {"slides": len(by_slide.table), "patients": by_slide.table["patient_id"].nunique()}
        for prefix, cases in (("", by_patient if bags == "patient" else by_slide), ("patient_", by_patient)):
            scores = score_cases(cases, endpoint, rng=generator(seed, "external"), n_resamples=n_resamples)
            line |= {f"{prefix}{name}": value for name, value in scores.items()}
        if is_binary(endpoint):
            cases, by = (by_patient, "patient_id") if bags == "patient" else (by_slide, "slide_id")
            threshold, rng = training_threshold(row.predictions, endpoint, by=by), generator(seed, "external")
            line |= score_operating_point(cases, endpoint, threshold, rng=rng, n_resamples=n_resamples)
        lines.append(line)
    return pd.DataFrame(lines, columns=None if lines else ["row", *ROW_NAMES, "folds", "slides", "patients"])


def format_external_tables(table: pd.DataFrame, endpoint: Endpoint, *, bags: str = "slide") -> list[Table]:
    """Format the result table of an external cohort.

    Args:
        table: As `make_external_table` returns it.
        endpoint: Of the task.
        bags: As in `make_external_table`.

    Returns:
        Scores by slide, by patient if they differ, and the rates at the threshold of two classes; no scores by slide if
        the slides of a patient are one bag.
    """
    lines = table.to_dict("records")
    by_slide, by_patient = (_score_table(lines, endpoint, prefix) for prefix in ("", "patient_"))
    differ = [cells for _, cells in by_patient.lines] != [cells for _, cells in by_slide.lines]
    tables = [by_patient] if bags == "patient" else [by_slide, by_patient] if differ else [by_slide]
    if is_binary(endpoint):
        columns = ["Threshold", *(head for name in RATES for head in (RATE_TITLES[name], INTERVAL))]
        tables.append(Table([*ROW_NAMES.values()], columns, [(_names(line), _rates(line)) for line in lines]))
    return tables


def _score_table(lines: Sequence[Mapping[str, Any]], endpoint: Endpoint, prefix: str) -> Table:
    """Of each shown score: that of the ensemble with its interval; the mean over single folds with its interval."""
    scores = [prefix + score for score in endpoint.shown_scores]
    titles = [head for score in endpoint.shown_scores for head in (SCORES[score].title, INTERVAL)]
    notes = ["Scores by patient."] if prefix else []
    body = []
    for line in lines:
        ensemble, folds = [], []
        for score, name in zip(endpoint.shown_scores, scores, strict=True):
            decimals = table_format.count_decimals(line[name]) if SCORES[score].has_unit else None
            ensemble += [table_format.format_score(line[name], decimals), _interval(line, name, decimals)]
            mean, sd = line[f"{name}_fold_mean"], line[f"{name}_fold_sd"]
            folds += [table_format.format_mean_sd(mean, sd, decimals), _interval(line, f"{name}_fold", decimals)]
        body.append((_names(line), [*ensemble, *folds]))
    groups = [("Ensemble", len(titles)), ("Single folds", len(titles))]
    return Table([*ROW_NAMES.values()], titles * 2, body, groups, notes)


def _names(line: Mapping[str, Any]) -> list[str]:
    return [line[name] for name in ROW_NAMES]


def _interval(line: Mapping[str, Any], name: str, decimals: int | None = None) -> str:
    return table_format.format_interval(line[f"{name}_low"], line[f"{name}_high"], decimals)


def _rates(line: Mapping[str, Any]) -> list[str]:
    """Texts of the threshold and of each rate with its interval."""
    cells = [table_format.format_score(line["threshold"])]
    for name in RATES:
        cells += [table_format.format_score(line[name]), _interval(line, name)]
    return cells
