"""The paper's question in words: does SLPD describe slides better than DINO, and than what is simpler?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slpd_core import config
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import significance
from slpd_core.report.result_rows import CLASSIFIER_NAMES, ResultRow, name_classifier
from slpd_core.report.table_format import format_difference, format_difference_interval, format_score

SLPD, DINO, FROZEN = "SLPD", "DINO", "as published"  # what a pretraining run is


@dataclass(frozen=True)
class Answer:
    """SLPD compared with something else, both by the same classifier.

    Attributes:
        question: What is compared.
        sentence: The answer.
        difference, low, high, detectable: As `significance.compare_with_reference` returns them; nan if nothing was
            compared.
    """

    question: str
    sentence: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    detectable: float = math.nan


def classify_run(section: Mapping[str, float]) -> str:
    """Say whether a pretraining run is SLPD.

    Args:
        section: Its settings.

    Returns:
        SLPD if a loss with prototypes counts, else DINO; FROZEN if nothing was trained.
    """
    if not section["epochs"]:
        return FROZEN
    return SLPD if section["alpha_intra"] or section["alpha_inter"] else DINO


def answer_question(rows: Sequence[ResultRow], reference: ResultRow | None, kinds: Mapping[str, str]) -> list[Answer]:
    """Compare SLPD with DINO, patches, untrained encoders and mean tokens, where there are rows of them.

    SLPD is the reference row's run, or the last run of its kind. The classifier is the reference row's, or the last one
    in the order of the table that both have: it does not depend on any score.

    Args:
        rows: Of the result table.
        reference: The row that all others are compared with.
        kinds: Of each pretraining run, as `classify_run` returns it.

    Returns:
        Answers; none without a row of SLPD.
    """
    of_slpd = [row.features for row in rows if kinds.get(row.features) == SLPD]
    if reference is None or not of_slpd:
        return []
    slpd = reference.features if reference.features in of_slpd else of_slpd[-1]
    by_features: dict[str, dict[str, ResultRow]] = {}
    for row in rows:
        by_features.setdefault(row.features, {})[row.classifier] = row
    order = [*CLASSIFIER_NAMES, reference.classifier]
    answers = []
    for features, name in _counterparts(rows, kinds).items():
        shared = sorted(by_features[slpd].keys() & by_features[features].keys(), key=order[::-1].index)
        if shared:
            answers.append(_compare_rows(slpd, name, by_features[slpd][shared[0]], by_features[features][shared[0]]))
        else:
            sentence = f"{slpd} and {features} have no classifier in common; name one for both in evaluate.classifiers."
            answers.append(Answer(f"SLPD against {name}", sentence))
    if DINO not in [kinds.get(row.features) for row in rows]:
        sentence = (
            "There is no row of DINO, so the paper's question stays open; add the run dino: {alpha_intra: 0, "
            "alpha_inter: 0} to pretrain.runs, and its classifiers to evaluate.classifiers."
        )
        answers.insert(0, Answer("SLPD against DINO", sentence))
    return answers


def _counterparts(rows: Sequence[ResultRow], kinds: Mapping[str, str]) -> dict[str, str]:
    """Names of the features that SLPD is compared with, in their order."""
    names = {run: f"DINO ({run})" for run, kind in kinds.items() if kind == DINO}
    names |= {run: f"the published encoder {run}" for run, kind in kinds.items() if kind == FROZEN}
    names[config.PATCH_FEATURES] = "patches"
    for row in rows:
        if row.level == "patch" and row.features != config.PATCH_FEATURES and row.encoder[0] == "random":
            names[row.features] = f"patches of an untrained encoder ({row.features})"
    names |= {features: f"the {name}" for features, name in config.TOKEN_FEATURES.items()}
    there = {row.features for row in rows}
    return {features: name for features, name in names.items() if features in there}


def _compare_rows(run: str, name: str, slpd: ResultRow, other: ResultRow) -> Answer:
    """Compare a row of SLPD with one of the same classifier."""
    main = slpd.endpoint.main_score
    comparison = significance.compare_with_reference(slpd.influences[main], other.influences[main])
    means = [format_score(float(row.per_fold[main].mean())) for row in (slpd, other)]
    classifier, title = name_classifier(slpd.classifier, slpd.endpoint), SCORES[main].title
    outcome = describe_outcome(f"SLPD ({run})", name, **comparison)
    sentence = f"With {classifier} ({title} {means[0]} and {means[1]}), {outcome}"
    return Answer(f"SLPD against {name}", sentence, **comparison)


def describe_outcome(ours: str, other: str, *, difference: float, low: float, high: float, detectable: float) -> str:
    """Say in words whether two scores differ.

    Args:
        ours, other: Their names.
        difference, low, high, detectable: As `significance.compare_with_reference` returns them.

    Returns:
        Sentences with the difference, its interval and the detectable difference.
    """
    if math.isnan(low):
        return f"{ours} and {other} cannot be compared: no test patient tells them apart, or no fold scores both."
    outcome = f"{ours} and {other} cannot be told apart"
    if low > 0:
        outcome = f"{ours} predicts better than {other}"
    elif high < 0:
        outcome = f"{ours} predicts worse than {other}"
    numbers = f"difference {format_difference(difference)}, 95 % interval {format_difference_interval(low, high)}"
    seen = "No possible difference would have been detected in this cohort."
    if not math.isnan(detectable):
        seen = f"This cohort would show a true difference of {format_score(detectable)} or more in four of five cases."
    return f"{outcome}: {numbers}. {seen}"
