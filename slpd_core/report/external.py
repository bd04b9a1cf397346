"""External validation: score an external cohort whose labels are known, by the classifiers of all folds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import read_endpoint
from slpd_core.report import curves, figures, result_rows, table_format
from slpd_core.report.external_audit import select_scored
from slpd_core.report.external_scores import gather_cases
from slpd_core.report.external_table import format_external_tables, make_external_table
from slpd_core.report.result_rows import ResultRow
from slpd_core.runtime import log

VERSION = 1


def join_labels(predictions: pd.DataFrame, scored: pd.DataFrame, row: ResultRow, endpoint: Endpoint) -> pd.DataFrame:
    """Join the predictions of a row with the truth.

    Args:
        predictions: The `external` table.
        scored: The labels of the slides that are scored.
        row: Of the result table.
        endpoint: Of the task.

    Returns:
        Columns fold, slide_id, patient_id, those of the truth and of the predictions.
    """
    of_row = predictions[(predictions["features"] == row.features) & (predictions["classifier"] == row.classifier)]
    truth = scored[["slide_id", "patient_id", *endpoint.columns]]
    return of_row[["fold", "slide_id", *endpoint.prediction_columns]].merge(truth, on="slide_id")


def list_predictions(rows: Sequence[tuple[ResultRow, pd.DataFrame]], endpoint: Endpoint) -> pd.DataFrame:
    """List the truth of each slide beside the mean prediction of each row.

    Args:
        rows: As in `make_external_table`.
        endpoint: Of the task.

    Returns:
        A line per row and slide: features, classifier, slide_id, patient_id, the truth and the prediction.
    """
    lines = []
    for row, predictions in rows:
        cases = gather_cases(predictions, endpoint)
        frame = pd.DataFrame(cases.ensemble, columns=endpoint.prediction_columns)
        lines.append(pd.concat([cases.table.assign(features=row.features, classifier=row.classifier), frame], axis=1))
    names = ["features", "classifier", "slide_id", "patient_id", *endpoint.columns, *endpoint.prediction_columns]
    if not lines:
        return pd.DataFrame(columns=names)
    table = pd.concat(lines, ignore_index=True)[names]
    return table.astype(dict.fromkeys(table.select_dtypes(bool), int))


def draw_external(
    rows: Sequence[tuple[ResultRow, pd.DataFrame]],
    endpoint: Endpoint,
    reference: str | None,
    runs: Sequence[str],
    *,
    task: str = "target",
    bags: str = "slide",
) -> dict[str, bytes]:
    """Draw the figures of an external cohort, of the mean predictions over the folds.

    Args:
        rows: As in `make_external_table`.
        endpoint: Of the task.
        reference: Key of the row of which there is one figure; another or None for the last row.
        runs: Pretraining runs, in the order of their colors.
        task: Its name.
        bags: As in `make_external_table`.

    Returns:
        PNGs by name: roc and decision, of classes without an order; predictions, of classes, or of numbers;
        kaplan_meier, of survival: high risk is above the median of the training cohort. Nothing without
        scored slides.
    """
    if not rows or rows[0][1].empty:
        return {}
    chosen, predictions = next(((row, table) for row, table in rows if row.key == reference), rows[-1])
    by, of = ("patient_id", "patients") if "patient" in (bags, endpoint.default_bags) else ("slide_id", "slides")
    cases = gather_cases(predictions, endpoint, by=by)
    truth, ensemble = endpoint.encode(cases.table), cases.ensemble
    if endpoint.kind == "survival":
        panel = truth[:, 0], truth[:, 1] > 0, ensemble[:, 0] > 0
        return {"kaplan_meier": figures.plot_kaplan_meier({chosen.sentence: panel})}
    if endpoint.kind == "regression":
        return {"predictions": figures.plot_regression(chosen.sentence, ensemble[:, 0], truth, target_label=task)}
    title, cases_name = chosen.sentence, f"external {of}"
    confusion = {"predictions": figures.plot_predictions(title, ensemble, truth, endpoint.classes, cases=cases_name)}
    return confusion if endpoint.kind == "ordinal" else confusion | _draw_curves(rows, endpoint, runs, by=by)


def _draw_curves(
    rows: Sequence[tuple[ResultRow, pd.DataFrame]], endpoint: Endpoint, runs: Sequence[str], *, by: str
) -> dict[str, bytes]:
    """ROC and decision curves of all rows."""
    cases = {row.key: gather_cases(predictions, endpoint, by=by) for row, predictions in rows}
    labels = endpoint.encode(next(iter(cases.values())).table)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for row, _ in rows:
        curve = curves.fold_roc_curves([(cases[row.key].ensemble, labels)])
        panels.setdefault(row.names["classifier"], {})[row.features] = curve
    ensembles = {key: of_row.ensemble for key, of_row in cases.items()}
    return {
        "roc": figures.plot_roc(panels, runs),
        "decision": figures.plot_decision(ensembles, labels, endpoint.classes),
    }


def run(
    *,
    external: str,
    task: str,
    labels_path: Path,
    predictions_path: Path,
    ledger_path: Path,
    cohort_ledger_path: Path,
    evaluate_paths: Sequence[Path],
    out_dir: Path,
    figures_dir: Path,
    runs: Sequence[str],
    reference: str | None,
    seed: int,
    n_resamples: int | None = None,
) -> None:
    """Write the result table of a task of an external cohort, its figures, and the predictions beside the truth.

    Args:
        external: Name of the external cohort.
        task: The task.
        labels_path, predictions_path, ledger_path: The external cohort's tables `labels`, `external` and `ledger`.
        cohort_ledger_path: Of the cohort that the classifiers were trained on.
        evaluate_paths: The cohort's own test predictions, of all rows that predict and all folds.
        out_dir: Where table.* and labeled_predictions.csv are written.
        figures_dir: Where figures are written.
        runs: Pretraining runs, in the order of the table.
        reference: As in `draw_external`.
        seed: Of the resamples.
        n_resamples: As in `make_external_table`.

    Raises:
        ValueError: A file was made from another ledger.
    """
    labels, labels_meta = artifacts.read_table(labels_path, "labels")
    predictions, meta = artifacts.read_table(predictions_path, "external")
    (ledger, ledger_meta), (cohort_ledger, cohort_meta) = (
        artifacts.read_table(path, "ledger") for path in (ledger_path, cohort_ledger_path)
    )
    artifacts.check_ledger(predictions_path, meta, ledger_meta["fingerprint"])
    tested = [artifacts.read_table(path, "evaluate") for path in evaluate_paths]
    for path, (_, of_fold) in zip(evaluate_paths, tested, strict=True):
        artifacts.check_ledger(path, of_fold, cohort_meta["fingerprint"])
    endpoint = read_endpoint(tested[0][1])
    bags = tested[0][1]["bags"]
    scored, remarks = select_scored(labels, ledger, cohort_ledger, endpoint, bags=bags)
    rows = [(row, join_labels(predictions, scored, row, endpoint)) for row in result_rows.join_folds(tested, runs)]
    for remark in remarks:
        log.warning("%s, task %s: %s", external, task, remark)
    table = make_external_table(rows, endpoint, seed=seed, n_resamples=n_resamples, bags=bags)
    metas = [labels_meta, meta, ledger_meta, cohort_meta, *(of_fold for _, of_fold in tested)]
    settings = {"reference": reference, "n_resamples": n_resamples}
    out_meta = artifacts.provenance("external", VERSION, settings, str(seed), *(one["fingerprint"] for one in metas))
    out_meta |= {"external": external, "task": task, "bags": bags} | endpoint.meta
    out_meta |= {"n_slides": str(len(ledger)), "remarks": json.dumps(remarks)}
    out_meta |= {"truth": endpoint.describe(scored) if len(scored) else ""}
    artifacts.write_both(out_dir / "table.parquet", "external_results", table, out_meta)
    printed = format_external_tables(table, endpoint, bags=bags)
    for suffix, format_table in {"md": table_format.format_markdown, "tex": table_format.format_latex}.items():
        artifacts.write_text(out_dir / f"table.{suffix}", "\n".join(map(format_table, printed)))
    artifacts.write_csv(out_dir / "labeled_predictions.csv", list_predictions(rows, endpoint), "%.6g")
    figures_dir.mkdir(parents=True, exist_ok=True)
    figures.write_figures(figures_dir, draw_external(rows, endpoint, reference, runs, task=task, bags=bags))
    log.info("%d of %d labeled slides scored, by %d rows", len(scored), len(labels), len(rows))


def describe_external(
    paths: Sequence[Path], *, with_remarks: bool = True
) -> tuple[list[dict[str, Any]], dict[str, bytes], dict[str, artifacts.Meta]]:
    """Describe the external cohorts for the report's page.

    Args:
        paths: Of their table.parquet, one per cohort and task, with figures/ beside it.
        with_remarks: Whether the remarks on slides that are not scored, which name them, are shown.

    Returns:
        Values by the template's names of each; its figures by name; metadata by name.
    """
    described, pngs, metas = [], dict[str, bytes](), {}
    for path in paths:
        table, meta = artifacts.read_table(path, "external_results")
        endpoint, remarks = read_endpoint(meta), json.loads(meta["remarks"])
        name = f"{meta['external']}/{meta['task']}"
        metas[f"predict/{name}/table"] = meta
        of_figures = {
            f"predict/{name}/figures/{png.stem}": png.read_bytes()
            for png in sorted((path.parent / "figures").glob("*.png"))
        }
        pngs |= of_figures
        described.append(
            {
                "external": meta["external"],
                "task": meta["task"],
                "n_slides": int(meta["n_slides"]),
                "slides": int(table["slides"].max()) if len(table) else 0,
                "patients": int(table["patients"].max()) if len(table) else 0,
                "truth": meta["truth"],
                "has_classes": endpoint.has_classes,
                "remarks": remarks if with_remarks else ["Remarks on its slides are not shown"] * bool(remarks),
                "tables": format_external_tables(table, endpoint, bags=meta["bags"]),
                "by_patient": meta["bags"] == "patient",
                "threshold_of": endpoint.classes[1] if "threshold" in table else "",
                "figures": {figure.rpartition("/")[2]: figure for figure in of_figures},
            }
        )
    return described, pngs, metas
