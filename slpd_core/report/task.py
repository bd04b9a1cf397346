"""A task's part of the report: its result table, its figures, and the predictions of all rows and folds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.report import curves, figures, metrics, page, protocol, result_rows, result_table, table_format, wording
from slpd_core.report.pseudonyms import ShownNames
from slpd_core.report.result_rows import ResultRow
from slpd_core.report.row_plots import plot_row
from slpd_core.ssl.monitoring import knn_accuracy

MAX_EPOCHS = 40  # of a pretraining whose k-NN accuracy is drawn; each takes up to half a second


@dataclass(frozen=True)
class TaskPaths:
    """The files that a task's part of the report is made from.

    Attributes:
        labels, folds, remarks: Of the task.
        predictions: {task}/{features}/{classifier}/fold{k}.parquet, of all rows and folds.
        heatmaps: {task}/{run}/{classifier}.jpg.
    """

    labels: Path
    folds: Path
    remarks: Path
    predictions: list[Path]
    heatmaps: list[Path]


def group_paths(
    tasks: Sequence[str],
    labels: Sequence[Path],
    folds: Sequence[Path],
    remarks: Sequence[Path],
    predictions: Sequence[Path],
    heatmaps: Sequence[Path],
) -> dict[str, TaskPaths]:
    """Group the files of all tasks by task.

    Args:
        tasks: Their names.
        labels, folds, remarks: One file per task.
        predictions, heatmaps: Of all tasks, as in `TaskPaths`.

    Returns:
        The files of each task.
    """
    return {
        task: TaskPaths(
            labels[i],
            folds[i],
            remarks[i],
            [path for path in predictions if path.parts[-4] == task],
            [path for path in heatmaps if path.parts[-3] == task],
        )
        for i, task in enumerate(tasks)
    }


@dataclass(frozen=True)
class TaskResults:
    """The results of a task.

    Attributes:
        task: Its name.
        endpoint: Of the task.
        labels: The `labels` table.
        folds, remarks: The tables of the folds stage.
        rows: Of the result table.
        reference: The row that all others are compared with; None without rows.
        table: The result table in numbers.
        metas: Metadata of the files behind them, by name.
    """

    task: str
    endpoint: Endpoint
    labels: pd.DataFrame
    folds: pd.DataFrame
    remarks: pd.DataFrame
    rows: list[ResultRow]
    reference: ResultRow | None
    table: pd.DataFrame
    metas: dict[str, artifacts.Meta]


def read_task(
    task: str,
    paths: TaskPaths,
    *,
    ledger: str,
    runs: Sequence[str],
    reference: str | None = None,
    names: ShownNames | None = None,
) -> TaskResults:
    """Read the predictions of a task and score them.

    Args:
        task: Its name.
        paths: Its files.
        ledger: Fingerprint of the ledger that all must come from.
        runs: Pretraining runs, in the order of the table.
        reference: As in `result_rows.select_reference`; a task without that row takes its last.
        names: Of slides and patients that the report shows; None: their own.

    Returns:
        Its results.

    Raises:
        ValueError: A file was made from another ledger.
    """
    labels, labels_meta = artifacts.read_table(paths.labels, "labels")
    folds, folds_meta = artifacts.read_table(paths.folds, "folds")
    artifacts.check_ledger(paths.folds, folds_meta, ledger)
    remarks, _ = artifacts.read_table(paths.remarks, "remarks")
    tested = _read_predictions(paths.predictions, ledger)
    if names is not None:
        labels, folds, remarks = names.rename(labels), names.rename(folds), names.rename_remarks(remarks)
        tested = {name: (names.rename(table), meta) for name, (table, meta) in tested.items()}
    endpoint, rows = read_endpoint(folds_meta), result_rows.join_folds(tested.values(), runs)
    chosen = result_rows.select_reference(rows, reference if reference in [row.key for row in rows] else None)
    partial_folds = result_table.find_partial_folds(remarks) if endpoint.has_classes else ()
    table = result_table.make_table(rows, chosen, endpoint, partial_folds)
    table = _add_protocol(table, (meta for _, meta in tested.values()), protocol.describe_folds(folds, folds_meta))
    metas = {f"labels/{task}": labels_meta, f"folds/{task}": folds_meta} | {
        name: meta for name, (_, meta) in tested.items()
    }
    return TaskResults(task, endpoint, labels, folds, remarks, rows, chosen, table, metas)


def _read_predictions(paths: list[Path], ledger: str) -> dict[str, tuple[pd.DataFrame, artifacts.Meta]]:
    """Table and metadata of each row's folds by "{task}/{features}/{classifier}/fold{k}"; all of this ledger."""
    tables = {}
    for path in paths:
        table, meta = artifacts.read_table(path, "evaluate")
        artifacts.check_ledger(path, meta, ledger)
        tables["/".join(path.with_suffix("").parts[-4:])] = table, meta
    return tables


def _add_protocol(table: pd.DataFrame, metas: Iterable[artifacts.Meta], splits: str) -> pd.DataFrame:
    """The result table with the columns patch_encoder and splits, from the metadata of the rows' predictions."""
    encoders = {f"{meta['features']}/{meta['classifier']}": protocol.describe_encoder(meta) for meta in metas}
    return table.assign(patch_encoder=table["row"].map(encoders), splits=splits)


def join_predictions(results: TaskResults) -> pd.DataFrame:
    """Join the test predictions of all rows and folds.

    Args:
        results: Of the task.

    Returns:
        A line per row, fold and test slide: task, features, classifier, fold, slide_id, patient_id, the truth, the
        prediction (p_{label}, prediction or risk), and ensemble_{prediction}, the mean over all folds that test the
        slide.
    """
    predicted = results.endpoint.prediction_columns
    columns = ["fold", "slide_id", "patient_id", *results.endpoint.targets, *predicted]
    names = ["task", "features", "classifier"]
    lines = [pd.DataFrame(columns=[*names, *columns])]
    for row in results.rows:
        ensemble = row.predictions.groupby("slide_id")[predicted].transform("mean").add_prefix("ensemble_")
        truth = row.predictions[columns]
        frame = pd.concat([truth.astype(dict.fromkeys(truth.select_dtypes(bool), int)), ensemble], axis=1)
        frame = frame.assign(**dict(zip(names, (results.task, row.features, row.classifier), strict=True)))
        lines.append(frame[[*names, *columns, *ensemble]])
    return pd.concat(lines[1:] or lines, ignore_index=True)


def _panels(
    rows: Sequence[ResultRow], curves_of: Callable[[ResultRow], np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Curves of the rows, by classifier and features, in the order of the classifiers."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    order = [*result_rows.CLASSIFIER_NAMES]
    for row in sorted(rows, key=lambda row: order.index(row.classifier)):
        panels.setdefault(row.names["classifier"], {})[row.features] = curves_of(row)
    return panels


def draw_roc(rows: Sequence[ResultRow], runs: Sequence[str]) -> bytes:
    """Draw the ROC curves of all rows.

    Args:
        rows: Of the result table.
        runs: Pretraining runs, in the order of their colors.

    Returns:
        A PNG.
    """

    def fold_curves(row: ResultRow) -> np.ndarray:
        parts = [part for _, part in row.cases.groupby("fold")]
        return curves.fold_roc_curves([(row.endpoint.predictions(part), row.endpoint.encode(part)) for part in parts])

    return figures.plot_roc(_panels(rows, fold_curves), runs)


def draw_dynamic_auc(rows: Sequence[ResultRow], runs: Sequence[str]) -> bytes:
    """Draw the time-dependent AUC of all rows of a survival task.

    Args:
        rows: Of the result table.
        runs: Pretraining runs, in the order of their colors.

    Returns:
        A PNG.
    """
    everyone = [metrics.unique_cases(row.cases) for row in rows]
    cohort = pd.concat(everyone).drop_duplicates("patient_id") if everyone else None
    time, event = (np.empty(0), np.empty(0)) if cohort is None else rows[0].endpoint.encode(cohort).T
    times = curves.event_time_grid(time, event)

    def fold_curves(row: ResultRow) -> np.ndarray:
        parts = [part for _, part in row.cases.groupby("fold")]
        folds = [(*row.endpoint.encode(part).T, row.endpoint.predictions(part)[:, 0]) for part in parts]
        return curves.fold_dynamic_aucs(folds, times, censoring=(time, event))

    return figures.plot_dynamic_auc(_panels(rows, fold_curves), runs, times)


def draw_knn(
    monitored_paths: Mapping[str, Path],
    labels: Mapping[str, str],
    patients: Mapping[str, str],
    shown: Mapping[str, str],
) -> dict[str, bytes]:
    """Draw how often the nearest regions share a label, in the course of each pretraining.

    Args:
        monitored_paths: By run, the embeddings of its monitored regions; one run is in memory at a time.
        labels, patients: As in `knn_history`.
        shown: Name by which `labels` and `patients` know a slide, by its name in the embeddings.

    Returns:
        A PNG as knn; nothing without runs.
    """
    histories = {}
    for run, path in monitored_paths.items():
        arrays, _ = artifacts.read_arrays(path, ("embeddings", "region_slide"))
        arrays["region_slide"] = np.array([shown.get(slide, "") for slide in arrays["region_slide"]], dtype=object)
        histories[run] = knn_history(**arrays, labels=labels, patients=patients)
    return {"knn": figures.plot_training(histories)} if histories else {}


def knn_history(
    embeddings: np.ndarray, region_slide: np.ndarray, *, labels: Mapping[str, str], patients: Mapping[str, str]
) -> pd.DataFrame:
    """Predict the label of regions by their nearest neighbors, before epochs of a pretraining.

    Args:
        embeddings: Of the monitored regions, (epochs, n, D).
        region_slide: Slide of each, (n,).
        labels: Label by slide; regions of other slides do not count.
        patients: Patient by slide.

    Returns:
        Columns epoch and knn_accuracy, as `knn_accuracy` returns it: all epochs, or MAX_EPOCHS evenly spaced ones.
    """
    label = np.array([labels.get(slide, "") for slide in region_slide], dtype=object)
    patient = np.array([patients.get(slide, "") for slide in region_slide], dtype=object)
    n_epochs = len(embeddings)
    epochs = np.linspace(0, n_epochs - 1, min(n_epochs, MAX_EPOCHS)).round().astype(int)
    scores = [knn_accuracy(embeddings[epoch].astype(np.float32), label, patient) for epoch in epochs]
    return pd.DataFrame({"epoch": epochs, "knn_accuracy": scores})


def draw_figures(results: TaskResults, runs: Sequence[str]) -> dict[str, bytes]:
    """Draw the figures of a task.

    Args:
        results: Of the task.
        runs: Pretraining runs, in the order of their colors.

    Returns:
        PNGs by name: roc for classes, dynamic_auc for survival; and of the reference row predictions, kaplan_meier for
        survival.
    """
    kind, row = results.endpoint.kind, results.reference
    pngs = {}
    if kind == "classification":
        pngs["roc"] = draw_roc(results.rows, runs)
    if row is not None and kind == "survival":
        pngs["kaplan_meier"] = figures.plot_kaplan_meier({row.sentence: wording.risk_groups(row)})
    elif row is not None:
        pngs["predictions"] = _draw_predictions(results.task, row)
    if kind == "survival":
        pngs["dynamic_auc"] = draw_dynamic_auc(results.rows, runs)
    return pngs


def _draw_predictions(task: str, row: ResultRow) -> bytes:
    """Draw a row's predictions beside the truth, and their calibration."""
    pooled = metrics.pool_predictions(row.cases, row.endpoint, by="patient_id" if row.is_by_patient else "slide_id")
    truth, predictions = row.endpoint.encode(pooled), row.endpoint.predictions(pooled)
    if row.endpoint.has_classes:
        return figures.plot_predictions(row.sentence, predictions, truth, row.endpoint.classes)
    return figures.plot_regression(row.sentence, predictions[:, 0], truth, target_label=task)


def write_task(out_dir: Path, results: TaskResults, pngs: Mapping[str, bytes], meta: artifacts.Meta) -> None:
    """Write a task's figures, its result table in numbers and formatted, and its predictions.

    Args:
        out_dir: Where they are written.
        results: Of the task.
        pngs: Its figures by name.
        meta: As `artifacts.provenance` returns.
    """
    meta = meta | {"task": results.task} | results.endpoint.meta
    artifacts.write_both(out_dir / "table.parquet", "results", results.table, meta)
    by_patient = page.is_by_patient(results.rows)
    tables = result_table.format_tables(results.table, results.endpoint, by_patient=by_patient)
    for suffix, format_table in {"md": table_format.format_markdown, "tex": table_format.format_latex}.items():
        artifacts.write_text(out_dir / f"table.{suffix}", "\n".join(map(format_table, tables)))
    artifacts.write_csv(out_dir / "predictions.csv", join_predictions(results), "%.6g")
    figures.write_figures(out_dir, pngs)


def describe_task(results: TaskResults, usable: Sequence[str]) -> dict[str, Any]:
    """Describe a task for the page.

    Args:
        results: Of the task.
        usable: Slides that take part in the cohort.

    Returns:
        Values by the template's names.
    """
    labels = results.labels[results.labels["slide_id"].isin(usable)]
    words, survival = wording.WORDINGS[results.endpoint.kind], results.endpoint.kind == "survival"
    return {
        "name": results.task,
        "kind": results.endpoint.kind,
        "truth": words.truth,
        "target": words.target,
        "colors": words.colors,
        "sizes": wording.describe_truth(labels, results.endpoint),
        "slides": len(labels),
        "patients": int(labels["patient_id"].nunique()),
        "n_folds": int(results.folds["fold"].nunique()),
        "remarks": page.summarize_issues(results.remarks),
        "classes": results.endpoint.classes,
        "plotted": [plot_row(row) for row in results.rows],
        "risk_groups": wording.describe_risk_groups(results.reference) if survival and results.reference else "",
        **page.describe_results(results.rows, results.reference, results.table, results.endpoint),
    }
