"""Sentences of the report on a task, in the words of its kind of endpoint and with its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.endpoints.survival import logrank_test
from slpd_core.report import metrics, table_format, uncertainty
from slpd_core.report.result_rows import ResultRow


@dataclass(frozen=True)
class Wording:
    """The words of a kind of endpoint.

    Attributes:
        truth: Of a slide.
        target: Of a classifier.
        colors: That pictures show in color.
        undefined: Why the main score of a fold is undefined; after its test slides or patients.
        scores: Sentences on the shown scores, if they need any.
    """

    truth: str
    target: str
    colors: str
    undefined: str
    scores: str


WORDINGS: Mapping[str, Wording] = {
    "classification": Wording(
        "a label",
        "the label",
        "label",
        "show one label only",
        "",
    ),
    "ordinal": Wording(
        "a label",
        "the label",
        "label",
        "and their predictions show one label only",
        "Kappa is quadratic-weighted (Cohen, 1968), of the most probable label.",
    ),
    "regression": Wording(
        "a value",
        "the value",
        "quartile of values",
        "have one value only",
        "R² is below 0 where the mean of the test values predicts better; MAE, the mean absolute error, is in the unit "
        "of the value; Spearman is the correlation of ranks.",
    ),
    "survival": Wording(
        "follow-up",
        "survival",
        "time and event",
        "hold no event that another of them outlives",
        "The C-index is Harrell's (1982): .5 is chance. The mean AUC is that of the time-dependent AUC (Uno et al., "
        "2007) at the quartiles of the event times. Both compare risks within a fold.",
    ),
}


def describe_truth(labels: pd.DataFrame, endpoint: Endpoint) -> str:
    """Describe the truth of a task's slides in numbers.

    Args:
        labels: The `labels` table.
        endpoint: Of the task.

    Returns:
        Such as "3 lung, 4 skin", "0.5 to 12, median 3" or "41 events".
    """
    if endpoint.has_classes:
        counts = labels["label"].value_counts()
        return ", ".join(f"{counts[label]} {label}" for label in endpoint.classes if label in counts)
    if endpoint.kind == "survival":
        count = labels.loc[labels["event"].astype(bool), "patient_id"].nunique()
        return f"{count} {'event' if count == 1 else 'events'}"
    return endpoint.describe(labels)


def name_truths(task: str, labels: pd.DataFrame, endpoint: Endpoint) -> dict[str, str]:
    """Name the truth of each slide.

    Args:
        task: Its name.
        labels: The `labels` table.
        endpoint: Of the task.

    Returns:
        Slide to its label, or such as "tmb: 0.54" or "os: event at 24".
    """
    truths = endpoint.describe_truths(labels)
    texts = truths if endpoint.has_classes else [f"{task}: {truth}" for truth in truths]
    return dict(zip(labels["slide_id"], texts, strict=True))


def order_groups(labels: pd.DataFrame, endpoint: Endpoint) -> pd.Series:
    """Put the groups of a task in their order, for legends and colors.

    Args:
        labels: The `labels` table.
        endpoint: Of the task.

    Returns:
        Group by slide: labels as they are; categorical where they have an order, those of survival events first.
    """
    groups = labels.set_index("slide_id")["label"]
    if endpoint.kind == "classification":
        return groups
    order = [*endpoint.classes]
    if endpoint.kind == "regression":
        order = [*labels.groupby("label")["value"].min().sort_values().index]
    elif endpoint.kind == "survival":
        order = [*labels.sort_values(["event", "time"], ascending=[False, True])["label"].unique()]
    dtype = pd.CategoricalDtype(order, ordered=endpoint.kind != "survival")
    ordered: pd.Series = groups.astype(dtype)
    return ordered


def describe_statistics(rows: Sequence[ResultRow], table: pd.DataFrame, endpoint: Endpoint) -> list[str]:
    """Describe the intervals and comparisons of a result table: their method, conditions and number.

    Args:
        rows: Of the table.
        table: As `result_table.make_table` returns it.
        endpoint: Of the task.

    Returns:
        A paragraph on the scores, and one on the comparisons; none without rows.
    """
    return [_describe_intervals(rows, endpoint), _describe_comparisons(table, endpoint)] if rows else []


def _describe_intervals(rows: Sequence[ResultRow], endpoint: Endpoint) -> str:
    """Sentences on the scores and their intervals."""
    patients = {patient for row in rows for patient in row.cases["patient_id"]}
    training, knn = (f"{share:.0%}".replace("%", " %") for share in (uncertainty.TRAINING, uncertainty.KNN_TRAINING))
    one_bound = [SCORES[score].title for score in endpoint.shown_scores if not SCORES[score].is_bounded]
    hidden = [lower_title(SCORES[score].title) for score in endpoint.scores if score not in endpoint.shown_scores]
    form = "in Wilson's form"
    if one_bound:
        form += f"; for {join_words(one_bound)} in Student's, of the logarithm of the distance from the bound"
    sentences = [
        WORDINGS[endpoint.kind].scores,
        f"Each interval is that of the mean before it, by the jackknife over {len(patients):,} patients, taken as "
        f"independent, {form}.",
        f"All folds train on the same patients, which no test patient shows: {training} of the variance is added for "
        f"it (KNN: {knn}), as simulations of such classifiers had it.",
        f"table.csv also holds {join_words(hidden)} with theirs." if hidden else "",
    ]
    return " ".join(filter(None, sentences))


def _describe_comparisons(table: pd.DataFrame, endpoint: Endpoint) -> str:
    """Sentences on the comparisons with the reference row."""
    count, title = int((table["row"] != table["reference"]).sum()), SCORES[endpoint.main_score].title
    if not count:
        return "There is one row: nothing is compared."
    alone = "It is the only comparison: there is nothing to correct for."
    many = (
        f"None of these {count} comparisons is corrected for their number: each interval stands for itself, and of "
        "many some leave out what is true."
    )
    return (
        f"{count} {'row is' if count == 1 else 'rows are'} compared in {title} with the reference row, which is a "
        "setting (report.reference; the last row where a task lacks it), not the highest: Student's interval of the "
        f"difference, paired by patient, by the same jackknife. {alone if count == 1 else many} Detectable is the "
        "smallest true difference whose interval leaves out 0 in four of five cohorts like this one: an interval that "
        "holds 0 does not say that two rows are equal."
    )


def describe_risk_groups(row: ResultRow) -> str:
    """Describe the Kaplan–Meier curves of a row and their log-rank test.

    Args:
        row: Of a survival task.

    Returns:
        Sentences.
    """
    time, event, high = risk_groups(row)
    p = logrank_test(time, event, high)[1]
    test = "is not defined: a group is empty, or no event finds both groups at risk"
    if not math.isnan(p):
        test = f"has p {'< .001' if p < 0.001 else f'= {table_format.format_score(p)}'}"
    return (
        f"Kaplan–Meier curves of the reference row: {len(time):,} test patients of all folds together, "
        f"{int(event.sum()):,} with an event, with pointwise 95 % intervals (Greenwood, on the log(−log) scale). High "
        "risk is a risk above the training median of the patient's fold. The log-rank test of the two "
        f"groups, two-sided, {test}. It is one test, of the reference row alone, and nominal: the models of different "
        "folds share training patients, so that the risks of test patients are not independent."
    )


def risk_groups(row: ResultRow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the test patients of all folds at the median risk of their folds' training slides.

    Args:
        row: Of a survival task; a risk of 0 is the training median.

    Returns:
        Time, event and whether the mean risk is high, one per patient: (patients,) each.
    """
    patients = metrics.pool_predictions(row.cases, row.endpoint, by="patient_id")
    time, event = row.endpoint.encode(patients).T
    return time, event.astype(bool), row.endpoint.predictions(patients)[:, 0] > 0


def join_words(words: Sequence[str]) -> str:
    """Join words by commas and "and".

    Args:
        words: One or more.

    Returns:
        Such as "a, b and c".
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def lower_title(title: str) -> str:
    """Write a title as within a sentence: small, except an abbreviation.

    Args:
        title: Of a score.

    Returns:
        The words.
    """
    return title if title[1:2].isupper() or title[1:2].isdigit() else title[0].lower() + title[1:]


def describe_score(name: str, value: float, low: float, high: float) -> str:
    """Describe a score.

    Args:
        name: Of the score, as in SCORES.
        value: The score.
        low, high: Its interval; nan where there is none.

    Returns:
        Such as "AUC .35 [.13, .62] (no better than chance)".
    """
    score = SCORES[name]
    text = f"{score.title} {_format_score(name, value)}"
    if low != low or high != high:
        return text
    text += f" [{_format_score(name, low)}, {_format_score(name, high)}]"
    if low > score.chance:
        return f"{text} (better than chance)"
    if high < score.chance:
        return f"{text} (worse than chance)"
    return text if score.chance != score.chance else f"{text} (no better than chance)"


def _format_score(name: str, value: float) -> str:
    """A score with two decimals, as the paper prints it."""
    text = table_format.format_score(value, 2)
    return (
        text
        if SCORES[name].has_unit
        else text.removeprefix("0").replace(f"{table_format.MINUS}0.", f"{table_format.MINUS}.")
    )
