"""Scores of retrieved slides: mean over folds with its interval by patient, and differences."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.report import uncertainty
from slpd_core.report.significance import compare_with_reference
from slpd_core.report.table_format import (
    Table,
    format_difference,
    format_difference_interval,
    format_interval,
    format_score,
    join_interval,
)

RETRIEVAL_SCORES = {"ap_5": "mAP@5", "mv_1": "MV@1", "mv_3": "MV@3", "mv_5": "MV@5"}
COMPARED_BY = "ap_5"
RETRIEVAL_PARAGRAPHS = (
    "For each test slide of a fold the most similar of its training slides, none of the same patient. Slides are "
    "compared by the mean cosine of matched prototypes, M of each slide (features of regions only), or by the cosine "
    "of their mean features (M = 1). Nothing is trained on labels.",
    "mAP@5 is the mean average precision of the five most similar slides, of which those of the query's class are "
    "right. MV@k is the fraction of test slides whose class is that of most of the k most similar ones, of equally "
    "many that of the nearest. Means over folds; 95 % intervals by patient, as those of nearest neighbors above.",
)


def summarize_retrieval(
    tables: Mapping[str, pd.DataFrame], reference: str, endpoint: Endpoint, folds: pd.DataFrame
) -> pd.DataFrame:
    """Summarize the `retrieval` tables of a task.

    Args:
        tables: By features, in the order of the table.
        reference: The features that all others are compared with, where they have as many prototypes.
        endpoint: Of the task; not read.
        folds: The `folds` table; not read.

    Returns:
        A line per features and n_prototypes: queries, folds; of each score {score}_mean, _low and _high; and of
        COMPARED_BY the difference to the reference features, {score}_difference, _difference_low and _difference_high.
    """
    influences = {
        (features, int(number)): {
            score: uncertainty.compute_mean_influence(queries, score, uncertainty.KNN_TRAINING)
            for score in RETRIEVAL_SCORES
        }
        for features, table in tables.items()
        for number, queries in table.groupby("n_prototypes")
    }
    lines = []
    for (features, number), of in influences.items():
        table = tables[features]
        queries = table[table["n_prototypes"] == number]
        line: dict[str, Any] = {"features": features, "n_prototypes": number}
        line |= {"queries": len(queries), "folds": queries["fold"].nunique()}
        for score, influence in of.items():
            line[f"{score}_mean"] = float(influence.values.mean())
            line[f"{score}_low"], line[f"{score}_high"] = influence.interval()
        if features != reference and (reference, number) in influences:
            compared = compare_with_reference(of[COMPARED_BY], influences[reference, number][COMPARED_BY])
            ends = {"": "difference", "_low": "low", "_high": "high"}
            line |= {f"{COMPARED_BY}_difference{end}": compared[name] for end, name in ends.items()}
        lines.append(line)
    scores = [f"{score}_{end}" for score in RETRIEVAL_SCORES for end in ("mean", "low", "high")]
    differences = [f"{COMPARED_BY}_difference{end}" for end in ("", "_low", "_high")]
    columns = ["features", "n_prototypes", "queries", "folds", *scores, *differences]
    return pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(differences, np.float64))


def format_retrieval(table: pd.DataFrame, reference: str, endpoint: Endpoint) -> list[Table]:
    """Format all scores, and the difference in one of them.

    Args:
        table: As `summarize_retrieval` returns it, with the columns level and pretraining.
        reference: The features that all others are compared with.
        endpoint: Of the task; not read.

    Returns:
        One table.
    """
    lines = []
    for line in table.to_dict("records"):
        cells = []
        for score in RETRIEVAL_SCORES:
            mean, low, high = (line[f"{score}_{end}"] for end in ("mean", "low", "high"))
            cells.append(join_interval(format_score(mean), format_interval(low, high)))
        difference, low, high = (line[f"{COMPARED_BY}_difference{end}"] for end in ("", "_low", "_high"))
        text = "reference" if line["features"] == reference else format_difference(difference)
        cells.append(join_interval(text, format_difference_interval(low, high)))
        lines.append(([line["level"], line["pretraining"], str(line["n_prototypes"])], cells))
    title = RETRIEVAL_SCORES[COMPARED_BY]
    columns = [*RETRIEVAL_SCORES.values(), f"{title} difference"]
    note = f"Scores (95 % interval), and the difference in {title} to {reference} with as many prototypes."
    return [Table(["Features", "Pretraining", "M"], columns, lines, notes=[note])]
