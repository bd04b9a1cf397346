"""The top of the page: verdicts on the cohort and its tasks, and the paper's question answered in words."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from slpd_core import artifacts
from slpd_core.report import cohort_verdicts, task_verdicts
from slpd_core.report.paper_question import Answer, answer_question, classify_run
from slpd_core.report.task import TaskResults
from slpd_core.report.verdicts import VERDICT_LEVELS, Verdict

ANSWER = "answer"  # in place of a level
VERDICT_COLUMNS = ("level", "task", "check", "sentence", "remedy", "difference", "low", "high", "detectable")


@dataclass(frozen=True)
class Overview:
    """The top of the page.

    Attributes:
        verdicts: Each with its task, "" of the whole cohort; failures first, then warnings, then what passes.
        answers: To the paper's question, each with its task.
    """

    verdicts: list[tuple[str, Verdict]]
    answers: list[tuple[str, Answer]]


def make_overview(
    results: Mapping[str, TaskResults],
    *,
    unseen: Mapping[str, float],
    unseen_share: float,
    patch_encoder: str,
    patch_history: pd.DataFrame | None,
    histories: Mapping[str, tuple[pd.DataFrame, artifacts.Meta]],
    embeds: Mapping[str, pd.DataFrame],
) -> Overview:
    """Judge a cohort and its tasks, and answer the paper's question.

    Args:
        results: Of each task.
        unseen, unseen_share: As `cohort_verdicts.measure_unseen_tissue` returns them.
        patch_encoder: Source of its weights.
        patch_history: The `history` table of the patch encoder, if it was trained on this cohort.
        histories: That of each run, with its metadata.
        embeds: Embeddings of each run.

    Returns:
        The overview.
    """
    verdicts, answers = [], []
    kinds = {run: classify_run(json.loads(meta["section"])) for run, (_, meta) in histories.items()}
    for task, of in results.items():
        if of.reference is not None:
            judged = task_verdicts.judge_task(of.rows, of.reference, of.table, of.folds)
            verdicts += [(task, replace(verdict, anchor=f"results-{task}")) for verdict in judged]
        answers += [(task, answer) for answer in answer_question(of.rows, of.reference, kinds)]
    cohort = [cohort_verdicts.judge_patch_encoder(patch_encoder)]
    if patch_history is not None:
        trained = cohort_verdicts.judge_training("the patch encoder", _last_epoch(patch_history))
        cohort.append(replace(trained, anchor="patch-encoder"))
    for run, (history, _) in histories.items():
        if len(history):
            cohort += [replace(verdict, anchor="pretraining") for verdict in judge_run(run, _last_epoch(history))]
    cohort += [replace(verdict, anchor="slides") for verdict in _judge_slides(unseen, unseen_share, embeds)]
    verdicts += [("", verdict) for verdict in cohort]
    return Overview(sorted(verdicts, key=lambda of: VERDICT_LEVELS.index(of[1].level)), answers)


def judge_run(run: str, last: Mapping[str, float]) -> list[Verdict]:
    """Judge the training of a run, and its prototypes if it has any.

    Args:
        run: Its name.
        last: Columns of its last epoch.

    Returns:
        One verdict, or two.
    """
    without = last.get("slides_without_prototypes_fraction", math.nan)
    prototypes = [] if math.isnan(without) else [cohort_verdicts.judge_prototypes(run, without)]
    return [cohort_verdicts.judge_training(run, last), *prototypes]


def _last_epoch(history: pd.DataFrame) -> dict[str, float]:
    """Columns of the last epoch."""
    return {str(key): float(value) for key, value in history.iloc[-1].items()}


def _judge_slides(unseen: Mapping[str, float], share: float, embeds: Mapping[str, pd.DataFrame]) -> list[Verdict]:
    """Verdicts on the slides: tissue that no region holds, slides unlike the others by the last run's embeddings."""
    verdicts = []
    if unseen:
        verdicts.append(cohort_verdicts.judge_unseen_tissue(unseen, share))
    if embeds:
        run = [*embeds][-1]
        distances = cohort_verdicts.measure_distances(embeds[run])
        if distances:
            verdicts.append(cohort_verdicts.judge_odd_slides(run, distances))
    return verdicts


def write_verdicts(path: Path, overview: Overview) -> None:
    """Write verdicts and answers as a table: level (or "answer"), task, check, sentence, remedy; numbers of answers.

    Args:
        path: A CSV file.
        overview: As `make_overview` returns it.
    """
    lines = [{"task": task} | asdict(verdict) for task, verdict in overview.verdicts]
    for task, answer in overview.answers:
        lines.append({"level": ANSWER, "task": task, "check": answer.question, "remedy": ""} | asdict(answer))
    artifacts.write_csv(path, pd.DataFrame(lines, columns=[*VERDICT_COLUMNS]), "%.6g")
