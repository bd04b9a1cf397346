"""Scores of classifiers of few training slides: mean over folds and draws, interval over folds, differences."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report.table_format import (
    NONE,
    Table,
    format_difference,
    format_difference_interval,
    format_interval,
    format_score,
    join_interval,
)
from slpd_core.report.uncertainty import LEVEL

FEW_SHOT_NAMES = {"simple_shot": "SimpleShot", "logreg": "LR (mean)"}
FEW_SHOT_PARAGRAPHS = (
    "Classifiers of the mean features of 1, 2, 4, 8 or 16 training slides of each class, on all test slides of each "
    "fold. The training slides of a fold are drawn ten times, the same for all features; larger draws hold the smaller "
    "ones. SimpleShot takes the nearest class mean. Logistic regression (LR) standardizes features by all training "
    "slides of the fold, whose labels it does not see.",
    "Scores are means over draws, then over folds. The 95 % interval is that of Student's t over folds, of which as "
    "many count as test each slide once. It takes folds for independent, though they share training slides. "
    "Differences are paired by fold.",
)


def count_tests(folds: pd.DataFrame) -> float:
    """Count the tests of a slide, which folds of several partitions repeat.

    Args:
        folds: The `folds` table.

    Returns:
        Mean number of folds that test a slide, of those that any tests.
    """
    tested = folds[folds["part"] == "test"]
    return float(len(tested) / max(tested["slide_id"].nunique(), 1))


def student_interval(values: pd.Series, tests: float, low: float, high: float) -> tuple[float, float, float]:
    """Compute the mean over folds and its interval (LEVEL) by Student's t.

    Args:
        values: Of each fold; nan where undefined.
        tests: Folds that test a slide: so many folds count as one.
        low, high: Bounds of the score.

    Returns:
        The mean, and the ends of its interval within the bounds; nan if fewer than two folds count, or all are equal.
    """
    from scipy import special

    defined = values.dropna()
    mean, deviation, n = float(defined.mean()), float(defined.std()), len(defined) / tests
    if not (n >= 2 and deviation > 0):
        return mean, math.nan, math.nan
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * deviation / math.sqrt(n)
    return mean, max(mean - half, low), min(mean + half, high)


def summarize_few_shot(
    tables: Mapping[str, pd.DataFrame], reference: str, endpoint: Endpoint, folds: pd.DataFrame
) -> pd.DataFrame:
    """Summarize the `few_shot` tables of a task.

    Args:
        tables: By features, in the order of the table.
        reference: The features that all others are compared with.
        endpoint: Of the task.
        folds: The `folds` table.

    Returns:
        A line per features, classifier and shots: folds; of each score {score}_mean, _low and _high; and of the main
        score the difference to the reference features, {score}_difference, _difference_low and _difference_high.
    """
    tests, main = count_tests(folds), endpoint.main_score
    keys = ["classifier", "shots", "fold"]
    per_fold = {features: table.groupby(keys)[[*endpoint.scores]].mean() for features, table in tables.items()}
    lines = []
    for features, scores in per_fold.items():
        for classifier in FEW_SHOT_NAMES:
            for shots in sorted({shots for of, shots, _ in scores.index if of == classifier}):
                own = scores.loc[(classifier, shots)]
                line: dict[str, Any] = {"features": features, "classifier": classifier, "shots": shots}
                line["folds"] = int(own[main].notna().sum())
                for score in endpoint.scores:
                    ends = student_interval(own[score], tests, SCORES[score].low, SCORES[score].high)
                    line |= dict(zip(_columns(score), ends, strict=True))
                if features != reference:
                    difference = own[main] - per_fold[reference].loc[(classifier, shots), main]
                    width = SCORES[main].high - SCORES[main].low
                    line |= dict(
                        zip(_differences(main), student_interval(difference, tests, -width, width), strict=True)
                    )
                lines.append(line)
    scores_of = [column for score in endpoint.scores for column in _columns(score)]
    columns = ["features", "classifier", "shots", "folds", *scores_of, *_differences(main)]
    return pd.DataFrame(lines, columns=columns)


def _columns(score: str) -> list[str]:
    return [f"{score}_mean", f"{score}_low", f"{score}_high"]


def _differences(score: str) -> list[str]:
    return [f"{score}_difference", f"{score}_difference_low", f"{score}_difference_high"]


def format_few_shot(table: pd.DataFrame, reference: str, endpoint: Endpoint) -> list[Table]:
    """Format the main score by the number of slides, and its differences.

    Args:
        table: As `summarize_few_shot` returns it, with the columns level and pretraining.
        reference: The features that all others are compared with.
        endpoint: Of the task.

    Returns:
        Two tables, one without other features; none without scores.
    """
    main, shots = endpoint.main_score, sorted(table["shots"].unique())
    cells: dict[tuple[str, ...], dict[int, tuple[str, str]]] = {}
    for line in table.to_dict("records"):
        names = (line["features"], line["level"], line["pretraining"], FEW_SHOT_NAMES[line["classifier"]])
        mean, low, high = (line[column] for column in _columns(main))
        difference, least, most = (line[column] for column in _differences(main))
        cells.setdefault(names, {})[line["shots"]] = (
            join_interval(format_score(mean), format_interval(low, high)),
            join_interval(format_difference(difference), format_difference_interval(least, most)),
        )
    title = SCORES[main].title
    heads, columns = ["Features", "Pretraining", "Classifier"], [f"{n} per class" for n in shots]
    tables = []
    for i, note in enumerate((f"{title} (95 % interval)", f"{title} less that of {reference} (95 % interval)")):
        rows = [(names[1:], of) for names, of in cells.items() if i == 0 or names[0] != reference]
        lines = [(names, [of[n][i] if n in of else NONE for n in shots]) for names, of in rows]
        if lines:
            tables.append(Table(heads, columns, lines, notes=[f"{note} by training slides of each class."]))
    return tables
