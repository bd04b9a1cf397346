"""Verdicts on the results of a task: chance, one label for all, color, test slides per fold."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import significance
from slpd_core.report.result_rows import ResultRow
from slpd_core.report.table_format import format_interval, format_score
from slpd_core.report.verdicts import (
    FAILED_TEST_CASES,
    MANY_CONSTANT,
    MIN_OF_LABEL,
    MIN_TEST_CASES,
    Verdict,
    VerdictLevel,
)
from slpd_core.runtime import name_some

PREDICTED = {"regression": "value", "survival": "risk"}  # of a task without labels


def judge_score(name: str, score: str, mean: float, low: float, high: float, *, chance: float) -> Verdict:
    """Judge whether a row of the result table predicts better than chance.

    Args:
        name: Of the row, in a sentence.
        score: Title of its main score.
        mean, low, high: The score and its 95 % interval; nan where undefined.
        chance: The score of guesses.

    Returns:
        pass if the interval is above chance, fail if the mean is not above it.
    """
    check = "Chance"
    if math.isnan(mean):
        remedy = "Read the remarks on the folds: each test part needs slides of at least two labels."
        return Verdict("fail", check, f"{name} has no {score}: no fold can be scored.", remedy)
    numbers = f"{score} {format_score(mean)}, 95 % interval {format_interval(low, high)}; chance is {_short(chance)}"
    if low > chance:
        return Verdict("pass", check, f"{name} predicts better than chance ({numbers}).")
    if mean > chance:
        remedy = "Never report this score without its interval. With more patients the interval becomes smaller."
        return Verdict("warn", check, f"{name} is not shown to predict better than chance ({numbers}).", remedy)
    remedy = "Do not use these predictions. Read the other verdicts first: each of them can be the cause."
    if high < chance:
        remedy += " A score clearly below chance is seldom real: check that labels are not exchanged in the sheet."
    return Verdict("fail", check, f"{name} does not predict better than chance ({numbers}).", remedy)


def judge_constant(
    name: str, n_constant: int, n_folds: int, *, others: Sequence[str] = (), predicted: str = "label"
) -> Verdict:
    """Judge whether classifiers tell test slides apart.

    Args:
        name: Of the reference row, in a sentence.
        n_constant: Folds in which it predicts the same for all test slides, although their truth differs.
        n_folds: Folds in which the truth of the test slides differs.
        others: Further rows that predict the same for all test slides in all folds.
        predicted: label, value or risk.

    Returns:
        fail if the reference row does so in all folds; warn if in many, or if other rows do so in all.
    """
    check = f"One {predicted} for all"
    also = f" So {'does' if len(others) == 1 else 'do'} {name_some(others)}." if others else ""
    remedy = (
        "Such predictions say nothing about a slide, whatever the accuracy is. Train longer or in larger steps "
        "(evaluate.epochs, evaluate.lr), and read the verdicts on the encoders."
    )
    same = f"{name} gives all test slides of a fold the same {predicted}"
    if n_constant and n_constant == n_folds:
        return Verdict("fail", check, f"{same}, in every fold.{also}", remedy)
    if n_constant > MANY_CONSTANT * n_folds:
        return Verdict("warn", check, f"{same}, in {n_constant} of {n_folds} folds.{also}", remedy)
    if others:
        gives = "gives" if len(others) == 1 else "give"
        given = f"{gives} all test slides of a fold the same {predicted}"
        sentence = f"{name_some(others)} {given}, in every fold; {name} does not."
        return Verdict("warn", check, sentence, "Do not compare with these rows, or train them longer.")
    return Verdict("pass", check, f"{name} gives different slides different {predicted}s.")


def judge_color(
    name: str, score: str, mean: float, low: float, *, chance: float, lead_low: float = math.nan
) -> Verdict:
    """Judge whether the mean color, which is stain and scanner, predicts the truth.

    Args:
        name: Of the row of mean colors, in a sentence.
        score: Title of the main score.
        mean, low: The score, and the lower end of its 95 % interval.
        chance: The score of guesses.
        lead_low: Lower end of the 95 % interval of the reference row's lead on this row; nan if there is none.

    Returns:
        warn if color predicts better than chance, fail if the reference row is not shown to be better than color.
    """
    check, numbers = "Stain and color", f"{name}: {score} {format_score(mean)}"
    if not low > chance:
        return Verdict("pass", check, f"Color alone is not shown to predict better than chance ({numbers}).")
    remedy = (
        "Ask whether slides of different labels come from different laboratories, scanners or years. If so, keep the "
        "slides of a site together (folds.group_by: site), and see whether the score remains."
    )
    sentence = f"Color alone, which is stain and scanner, predicts better than chance ({numbers})"
    if lead_low > 0:
        return Verdict("warn", check, f"{sentence}; the reference row is better than that.", remedy)
    return Verdict("fail", check, f"{sentence}, and the reference row is not shown to be better than color.", remedy)


def judge_folds(fewest: int, fewest_of_label: int | None, *, cases: str = "slides", rare: str = "label") -> Verdict:
    """Judge whether the test parts of the folds are large enough.

    Args:
        fewest: Test cases of the smallest test part.
        fewest_of_label: Cases of the rarest label, or events, in a test part; None if there are neither.
        cases: slides or patients.
        rare: label or event.

    Returns:
        fail below FAILED_TEST_CASES or where a label is missing, warn below MIN_TEST_CASES or MIN_OF_LABEL.
    """
    check = f"Test {cases} per fold"
    sentence, rarest = f"The smallest test part has {fewest} {cases}.", MIN_OF_LABEL
    if fewest_of_label is not None:
        of = "with an event" if rare == "event" else "of the rarest label"
        sentence, rarest = (
            f"The smallest test part has {fewest} {cases}; some part has {fewest_of_label} {of}.",
            fewest_of_label,
        )
    if fewest >= MIN_TEST_CASES and rarest >= MIN_OF_LABEL:
        return Verdict("pass", check, sentence)
    level: VerdictLevel = "fail" if fewest < FAILED_TEST_CASES or rarest < 1 else "warn"
    remedy = (
        "Do not read the score of a single fold. Use fewer folds (folds.n_folds), repeat them (folds.n_repeats), or "
        "add patients."
    )
    return Verdict(level, check, sentence, remedy)


def find_constant_folds(row: ResultRow) -> tuple[int, int]:
    """Count the folds in which a row predicts the same for all test cases, although their truth differs.

    Args:
        row: Of the result table.

    Returns:
        Their number, and the number of folds in which the truth differs.
    """
    constant = [
        _is_constant(row.endpoint.predictions(part), row.endpoint)
        for _, part in row.cases.groupby("fold")
        if len(part[[*row.endpoint.targets]].drop_duplicates()) > 1
    ]
    return sum(constant), len(constant)


def _is_constant(predictions: np.ndarray, endpoint: Endpoint) -> bool:
    """Whether predictions, (n, P), are of one class, or one number to 6 digits."""
    values = predictions.argmax(1) if endpoint.has_classes else predictions[:, 0]
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max(initial=0))


def count_test_cases(folds: pd.DataFrame, endpoint: Endpoint, *, by: str = "slide_id") -> tuple[int, int | None]:
    """Count the cases of the smallest test part, and of the rarest label or the events in a test part.

    Args:
        folds: The `folds` table.
        endpoint: Of the task.
        by: slide_id or patient_id, what a case is.

    Returns:
        Both numbers; None of a task without labels and events.
    """
    tests = folds[folds["part"] == "test"].drop_duplicates(["fold", by])
    parts = tests.groupby("fold")
    fewest = int(parts.size().min())
    if endpoint.has_classes:
        return fewest, int(tests.groupby(["fold", "label"]).size().unstack(fill_value=0).to_numpy().min())
    return fewest, int(parts["event"].sum().min()) if endpoint.kind == "survival" else None


def judge_task(
    rows: Sequence[ResultRow], reference: ResultRow, table: pd.DataFrame, folds: pd.DataFrame
) -> list[Verdict]:
    """Judge the results of a task.

    Args:
        rows: Of the result table.
        reference: The row that all others are compared with.
        table: As `result_table.make_table` returns it.
        folds: The `folds` table.

    Returns:
        A verdict per check; on color only if there is a row of colors.
    """
    endpoint, lines = reference.endpoint, table.set_index("row")
    main, name = endpoint.main_score, reference.sentence
    score = SCORES[main]
    ends = {row.key: [float(lines.loc[row.key, f"{main}_{end}"]) for end in ("mean", "low", "high")] for row in rows}
    constant = [row for row in rows if row is not reference and _in_all(find_constant_folds(row))]
    verdicts = [judge_score(name, score.title, *ends[reference.key], chance=score.chance)]
    n_constant, n_folds = find_constant_folds(reference)
    if n_folds:
        others, predicted = [row.sentence for row in constant], PREDICTED.get(endpoint.kind, "label")
        verdicts.append(judge_constant(name, n_constant, n_folds, others=others, predicted=predicted))
    colors = [row for row in rows if row.level == "color"]
    if colors:
        color = max(colors, key=lambda row: np.nan_to_num(ends[row.key][1], nan=-math.inf))
        lead = significance.compare_with_reference(reference.influences[main], color.influences[main])
        mean, low, _ = ends[color.key]
        verdicts.append(judge_color(color.sentence, score.title, mean, low, chance=score.chance, lead_low=lead["low"]))
    by_patient = reference.is_by_patient
    counts = count_test_cases(folds, endpoint, by="patient_id" if by_patient else "slide_id")
    rare = "event" if endpoint.kind == "survival" else "label"
    return [*verdicts, judge_folds(*counts, cases="patients" if by_patient else "slides", rare=rare)]


def _in_all(counts: tuple[int, int]) -> bool:
    """Whether all folds count, and there is one."""
    return 0 < counts[0] == counts[1]


def _short(value: float) -> str:
    """A score without zeros at its end, such as .5 or 0."""
    return format_score(value).rstrip("0").rstrip(".") or "0"
