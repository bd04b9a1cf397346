"""The page of an external cohort's predictions: one line per slide, by the best row of each task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.drawing.html import inline_scripts, inline_thumbnails, render
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import verdicts
from slpd_core.report.cohort_verdicts import average_embeddings
from slpd_core.report.result_rows import ResultRow, join_folds
from slpd_core.report.wording import describe_score
from slpd_core.runtime import log

VERSION = 1
PREDICTION_STATES = {artifacts.OK: "predicted", artifacts.QUARANTINED: "quarantined", artifacts.EMPTY: "no regions"}
N_NEAREST = 3  # slides of the cohort with which a slide is compared
FAR_PERCENTILE = 99  # of the cohort's own slides: one in a hundred is further from the others


@dataclass(frozen=True)
class TaskPredictions:
    """The predictions of a task by its best row.

    Attributes:
        task: Its name.
        row: The row with the best cross-validated score.
        n_rows: Rows among which it is the best.
        slides: Values by the template's names, by slide id, as `describe_prediction_folds` returns them.
    """

    task: str
    row: ResultRow
    n_rows: int
    slides: Mapping[str, Mapping[str, Any]]

    @property
    def endpoint(self) -> Endpoint:
        """What is predicted."""
        return self.row.endpoint

    @property
    def has_categories(self) -> bool:
        """Whether a prediction stands for a class, or for a high or a low risk."""
        return self.endpoint.kind != "regression"

    @property
    def number_title(self) -> str:
        """Title of the column of numbers."""
        return "Probability" if self.endpoint.has_classes else "Risk" if self.has_categories else "Predicted"

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the cross-validated score."""
        return self.row.influences[self.endpoint.main_score].interval()

    @property
    def score(self) -> str:
        """The row's cross-validated score in words."""
        name = self.endpoint.main_score
        return describe_score(name, float(self.row.per_fold[name].mean()), *self.interval)


def select_best_row(rows: Sequence[ResultRow]) -> ResultRow:
    """Select the row with the best mean score over the folds.

    Args:
        rows: Of one task, at least one.

    Returns:
        The row; of equal ones the first, and one without any score last.
    """
    means = [row.per_fold[row.endpoint.main_score].mean() for row in rows]
    return rows[int(np.argmax([-math.inf if math.isnan(mean) else mean for mean in means]))]


def describe_prediction_folds(folds: np.ndarray, endpoint: Endpoint) -> dict[str, Any]:
    """Describe what the classifiers of all folds predict of a slide.

    Args:
        folds: Predictions, (folds, P).
        endpoint: What is predicted.

    Returns:
        predicted, the category of the mean prediction, "" of a number; value, its mean probability, else the number;
        sd, the deviation of that number over the folds (n - 1); agree, the classifiers that predict the same category,
        of n_folds; undecided, whether any predicts another.
    """
    mean = folds.mean(0)
    column, predicted = int(mean.argmax()), endpoint.categorize(mean)
    agree = sum(endpoint.categorize(fold) == predicted for fold in folds)
    return {
        "predicted": predicted,
        "value": float(mean[column]),
        "sd": float(folds[:, column].std(ddof=1)) if len(folds) > 1 else math.nan,
        "agree": agree,
        "n_folds": len(folds),
        "undecided": agree < len(folds),
    }


def measure_unlikeness(embed: pd.DataFrame, cohort_embed: pd.DataFrame) -> dict[str, float]:
    """Measure how unlike a cohort slides are, by their mean embeddings.

    Args:
        embed: The `embed` table of the slides.
        cohort_embed: That of the cohort, by the same encoder.

    Returns:
        By slide, its mean distance to the N_NEAREST slides of the cohort, divided by the FAR_PERCENTILE of the same
        distance of the cohort's slides, each to the others: above 1 it is unlike the cohort. Empty if the cohort has
        fewer than MIN_SLIDES slides, or its slides are all alike.
    """
    from sklearn.neighbors import NearestNeighbors

    if embed.empty:
        return {}
    (slides, means), (cohort_slides, cohort_means) = average_embeddings(embed), average_embeddings(cohort_embed)
    if len(cohort_slides) < verdicts.MIN_SLIDES:
        return {}
    nearest = NearestNeighbors(n_neighbors=N_NEAREST).fit(cohort_means)
    limit = float(np.percentile(nearest.kneighbors()[0].mean(1), FAR_PERCENTILE))
    distances = nearest.kneighbors(means)[0].mean(1)
    return dict(zip(slides.tolist(), (distances / limit).tolist(), strict=True)) if limit > 1e-9 else {}


def judge_predictions(
    ledger: pd.DataFrame, tasks: Sequence[TaskPredictions], unlikeness: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Say what to know before the predictions are read.

    Args:
        ledger: Of the external cohort.
        tasks: At least one.
        unlikeness: As `measure_unlikeness` returns it.

    Returns:
        Level, "pass", "warn" or "fail", and sentence of each verdict.
    """
    n_used = int((ledger["status"] == artifacts.OK).sum())
    level = "pass" if n_used == len(ledger) else "warn" if n_used else "fail"
    judged = [(level, f"Slides predicted: {n_used:,} of {len(ledger):,}.")]
    for of in tasks:
        name = f"{of.task}: " if len(tasks) > 1 else ""
        sentence = f"{name}{of.row.key}, cross-validated on the cohort: {of.score}."
        if of.n_rows > 1:
            sentence += f" It is the best of {of.n_rows} rows, so the score is somewhat too high."
        low, chance = of.interval[0], SCORES[of.endpoint.main_score].chance
        level = "warn" if math.isnan(low) else "pass" if low > chance else "fail"
        judged.append((level, f"{sentence} Do not use its predictions." if level == "fail" else sentence))
        undecided = [slide for slide, prediction in of.slides.items() if prediction["undecided"]]
        if undecided:
            judged.append(("warn", f"{name}Undecided, since classifiers of the folds disagree: {len(undecided):,}."))
    unlike = sum(value > 1 for value in unlikeness.values())
    if unlike:
        judged.append(("warn", f"Slides unlike the cohort, of which classifiers know little: {unlike:,}."))
    return judged


def list_predicted_slides(
    ledger: pd.DataFrame, tasks: Sequence[TaskPredictions], unlikeness: Mapping[str, float]
) -> list[dict[str, Any]]:
    """List the slides, what needs a look first: not predicted, unlike the cohort, undecided.

    Args:
        ledger: Of the external cohort.
        tasks: Of which slides are predicted.
        unlikeness: As `measure_unlikeness` returns it.

    Returns:
        Columns of the ledger by slide; state, as in PREDICTION_STATES; the reason without the slide's name; unlikeness,
        nan where it was not measured; predictions, one per task, None where there is none.
    """
    slides = []
    for slide in ledger.to_dict("records"):
        slide_id = slide["slide_id"]
        predictions = [of.slides.get(slide_id) for of in tasks]
        unlike = unlikeness.get(slide_id, math.nan)
        undecided = any(prediction and prediction["undecided"] for prediction in predictions)
        slide |= {"state": PREDICTION_STATES[slide["status"]], "reason": slide["reason"].removeprefix(f"{slide_id}: ")}
        slide |= {"predictions": predictions, "unlikeness": unlike}
        slide["order"] = (slide["status"] == artifacts.OK, not unlike > 1, not undecided)
        slides.append({str(key): value for key, value in slide.items()})
    return sorted(slides, key=lambda slide: slide["order"])


def read_best_predictions(
    prediction_paths: Sequence[Path], evaluate_paths: Sequence[Path], runs: Sequence[str]
) -> list[TaskPredictions]:
    """Read the predictions of the best row of each task.

    Args:
        prediction_paths: {task}/folds.parquet, the `external` table of each task.
        evaluate_paths: The cohort's own test predictions, of all rows that predict and all folds, of all tasks.
        runs: Pretraining runs, in the order of the result table.

    Returns:
        Those of each task that a row predicts.
    """
    tested: dict[str, list[tuple[pd.DataFrame, artifacts.Meta]]] = {path.parent.name: [] for path in prediction_paths}
    for path in evaluate_paths:
        table, meta = artifacts.read_table(path, "evaluate")
        tested[meta["task"]].append((table, meta))
    predictions = []
    for path in prediction_paths:
        if tables := tested[path.parent.name]:
            rows = join_folds(tables, runs)
            best = select_best_row(rows)
            folds = artifacts.read_table(path, "external")[0]
            of_best = folds[(folds["features"] == best.features) & (folds["classifier"] == best.classifier)]
            slides = {
                str(slide): describe_prediction_folds(best.endpoint.predictions(of_slide), best.endpoint)
                for slide, of_slide in of_best.groupby("slide_id")
            }
            predictions.append(TaskPredictions(path.parent.name, best, len(rows), slides))
    return predictions


def run(
    *,
    external: str,
    ledger_path: Path,
    prediction_paths: Sequence[Path],
    evaluate_paths: Sequence[Path],
    embed_paths: Mapping[str, Sequence[str]],
    tissue_dir: Path,
    regions_dir: Path,
    out_path: Path,
    runs: Sequence[str],
) -> None:
    """Write the page of an external cohort's predictions.

    Args:
        external: Name of the external cohort.
        ledger_path: Its ledger.
        prediction_paths, evaluate_paths, runs: As in `read_best_predictions`.
        embed_paths: By pretraining run, the embeddings of its slides and those of the cohort's.
        tissue_dir, regions_dir: Of {slide}.geojson and of overlays {slide}.png.
        out_path: The HTML file; links in it are relative to its folder.
    """
    ledger, _ = artifacts.read_table(ledger_path, "ledger")
    tasks = read_best_predictions(prediction_paths, evaluate_paths, runs)
    by_run = next((of.row.features for of in tasks if of.row.features in embed_paths), "")
    embeds = [artifacts.read_table(path, "embed")[0] for path in map(Path, embed_paths.get(by_run, ()))]
    unlikeness = measure_unlikeness(*embeds) if embeds else {}
    slides, folder = list_predicted_slides(ledger, tasks, unlikeness), out_path.parent
    for slide in slides:
        name = slide["slide_id"]
        slide["overlay"] = relpath(regions_dir / f"{name}.png", folder)
        slide["outline"] = relpath(tissue_dir / f"{name}.geojson", folder)
        heatmaps = [f"{of.task}/heatmaps/{of.row.key}/{name}.jpg" for of in tasks]
        slide["heatmaps"] = [path if (folder / path).exists() else "" for path in heatmaps]
    opened = [slide["slide_id"] for slide in slides if slide["width_px"] > 0]
    thumbnails = inline_thumbnails(regions_dir, opened)
    judged = judge_predictions(ledger, tasks, unlikeness)
    page = render(
        "report/predict_index.html.j2",
        title=f"Predictions of {external}",
        cohort=out_path.parents[2].name,
        verdicts=judged,
        tasks=tasks,
        shared_bags=any(of.row.is_by_patient for of in tasks),
        slides=slides,
        by_run=by_run if unlikeness else "",
        n_nearest=N_NEAREST,
        percentile=FAR_PERCENTILE,
        min_slides=verdicts.MIN_SLIDES,
        thumbnails=thumbnails,
        without_picture=len(opened) - len(thumbnails),
        **inline_scripts("table.js"),
    )
    artifacts.write_text(out_path, page)
    log.info("%s", " ".join(sentence for _, sentence in judged))
