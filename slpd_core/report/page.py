"""The report's page: summaries, results and pictures as its template names them."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.html import inline_picture, render
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES
from slpd_core.report import figures, protocol, result_rows, result_table, table_format, wording
from slpd_core.report.result_rows import ResultRow

MAX_PICTURE_BYTES = 22_000_000  # of the page, inline; slides are shown while their thumbnails fit beside its figures


def summarize_cohort(ledger: pd.DataFrame) -> dict[str, Any]:
    """Summarize a cohort: numbers of slides, patients and regions, and the slides that were left out.

    Args:
        ledger: The cohort's ledger.

    Returns:
        Values by the template's names.
    """
    usable = ledger[ledger["status"] == artifacts.OK]
    return {
        "slides": len(ledger),
        "admitted": len(usable),
        "patients": int(usable["patient_id"].nunique()),
        "regions": int(usable["regions"].sum()),
        "tissue_mm2": float(usable["tissue_mm2"].sum()),
        "remarks": ledger[(ledger["status"] == artifacts.OK) & (ledger["remarks"] != "")].to_dict("records"),
        "left_out": {
            status: ledger[ledger["status"] == status].to_dict("records")
            for status in (artifacts.QUARANTINED, artifacts.EMPTY)
        },
    }


def describe_slides(ledger: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Describe the slides with their labels.

    Args:
        ledger: The cohort's ledger.
        labels: Of each task, the truth by slide, as `wording.name_truths` returns it.

    Returns:
        Rows of the ledger; label: the slide's truth in all tasks in one text.
    """
    texts = [", ".join(filter(None, (of.get(slide, "") for of in labels.values()))) for slide in ledger["slide_id"]]
    return [{str(key): value for key, value in row.items()} for row in ledger.assign(label=texts).to_dict("records")]


def summarize_issues(remarks: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Summarize the remarks on the folds, except those on slides that the page lists anyway.

    Args:
        remarks: The `remarks` table.

    Returns:
        Kind of remark to ids, its slides, patients or labels, and folds, how many it is about; 0 if it is about all.
    """
    remarks = remarks[~remarks["remark"].isin(artifacts.REMARKS_OF_STATUS.values())]
    kinds = remarks.groupby("remark", sort=False)
    return {remark: {"ids": [*rows["id"].unique()], "folds": len({*rows["fold"]} - {""})} for remark, rows in kinds}


def list_patch_encoders(rows: Sequence[ResultRow]) -> list[str]:
    """List the patch encoders of the rows, the cohort's first.

    Args:
        rows: Of the result table.

    Returns:
        Architecture and origin of the weights of each.
    """
    names: dict[str, str] = {}
    for row in rows:
        source, name = row.encoder
        other = row.features if row.level == "patch" and row.features != config.PATCH_FEATURES else ""
        description = f"{name}, {protocol.WEIGHTS.get(source, source)}"
        names[other] = f"{other} ({description})" if other else description
    return [names[key] for key in sorted(names, key=bool)]


def is_by_patient(rows: Sequence[ResultRow]) -> bool:
    """Return whether all rows predict patients, whose slides are one bag.

    Args:
        rows: Of the result table.

    Returns:
        False without rows.
    """
    return bool(rows) and all(row.is_by_patient for row in rows)


def describe_results(
    rows: Sequence[ResultRow], reference: ResultRow | None, table: pd.DataFrame, endpoint: Endpoint
) -> dict[str, Any]:
    """Describe the scores: the formatted tables, the reference row, every fold, and what is not above chance.

    Args:
        rows: Of the result table.
        reference: The row that all others are compared with.
        table: As `result_table.make_table` returns it.
        endpoint: Of the task.

    Returns:
        Values by the template's names.
    """
    folds = sorted({fold for row in rows for fold in row.per_fold["fold"]})
    per_fold = [row.per_fold.set_index("fold").reindex(folds) for row in rows]
    by_patient, main = is_by_patient(rows), endpoint.main_score
    undefined = sorted({fold for scores in per_fold for fold in scores.index[scores[main].isna()]})
    return {
        "folds": folds,
        "cases": "patients" if by_patient else "slides",
        "by_patient": by_patient,
        "scores": {score: SCORES[score].title for score in endpoint.shown_scores},
        "main": SCORES[main].title,
        "tables": result_table.format_tables(table, endpoint, by_patient=by_patient),
        "statistics": wording.describe_statistics(rows, table, endpoint),
        "not_above_chance": [i for i, low in enumerate(table[f"{main}_low"]) if not low > SCORES[main].chance],
        "reference": _reference(reference, table, main) if reference else None,
        "has_color": any(row.level == "color" for row in rows),
        "per_fold": [(row.names, _format_folds(scores, endpoint)) for row, scores in zip(rows, per_fold, strict=True)],
        "undefined": undefined,
        "why_undefined": wording.WORDINGS[endpoint.kind].undefined,
    }


def _format_folds(scores: pd.DataFrame, endpoint: Endpoint) -> dict[str, list[str]]:
    """Texts of each shown score in every fold."""
    texts = {}
    for score in endpoint.shown_scores:
        decimals = table_format.count_decimals(scores[score].mean()) if SCORES[score].has_unit else None
        texts[score] = [table_format.format_score(value, decimals) for value in scores[score]]
    return texts


def _reference(reference: ResultRow, table: pd.DataFrame, main: str) -> dict[str, str]:
    """The reference row: its main score with the interval, and the range of detectable differences."""
    line, detectable = table[table["row"] == reference.key].iloc[0], table[f"{main}_detectable"]
    ends = [table_format.format_score(value) for value in (detectable.min(), detectable.max())]
    return {
        "sentence": reference.sentence,
        "mean": table_format.format_score(line[f"{main}_mean"]),
        "interval": table_format.format_interval(line[f"{main}_low"], line[f"{main}_high"]),
        "detectable": " to ".join(dict.fromkeys(ends)),
    }


def collect_pictures(
    pngs: Mapping[str, bytes],
    gallery_paths: Sequence[Path],
    heatmap_paths: Sequence[Path],
    thumbnails: Mapping[str, str],
) -> dict[str, Any]:
    """Collect the page's pictures, and as many thumbnails of slides as fit beside them.

    Args:
        pngs: Figures by name.
        gallery_paths: {run}.png.
        heatmap_paths: {task}/{run}/{classifier}.jpg.
        thumbnails: Data URIs by slide, in the order of the page.

    Returns:
        pictures by name; galleries, the names by run; heatmaps, the names by task, run and classifier; overlays, the
        thumbnails up to the first that does not fit.
    """
    galleries = {path.stem: f"gallery/{path.stem}" for path in gallery_paths}
    heatmaps = {
        (*path.parts[-3:-1], result_rows.CLASSIFIER_NAMES[path.stem]): "/".join(path.with_suffix("").parts[-4:])
        for path in heatmap_paths
    }
    names = [*galleries.values(), *heatmaps.values()]
    drawn = {
        name: inline_picture(artifacts.read_picture(path), f"{name}{path.suffix}")
        for name, path in zip(names, [*gallery_paths, *heatmap_paths], strict=True)
    }
    drawn |= {name: inline_picture(png, f"{name}.png", figures.DPI) for name, png in pngs.items()}
    max_bytes = MAX_PICTURE_BYTES - sum(len(picture["src"]) for picture in drawn.values())
    ends = accumulate(map(len, thumbnails.values()))
    overlays = {slide: uri for (slide, uri), end in zip(thumbnails.items(), ends, strict=True) if end <= max_bytes}
    return {"pictures": drawn, "galleries": galleries, "heatmaps": heatmaps, "overlays": overlays}


def describe_runs(
    history_paths: Mapping[str, Path], histories: Mapping[str, pd.DataFrame], metas: Mapping[str, artifacts.Meta]
) -> dict[str, Any]:
    """Describe the pretraining runs: their names, remarks, those with an encoder per fold, and those not trained.

    Args:
        history_paths: As in `report.run`.
        histories: The tables at these paths; without a row where nothing was trained.
        metas: Metadata of each run's embeddings.

    Returns:
        Values by the template's names.
    """
    return {
        "runs": list(history_paths),
        "run_remarks": {run: meta["remarks"].splitlines() for run, meta in metas.items() if meta["remarks"]},
        "by_fold": [run for run, path in history_paths.items() if path.parent.name == f"{run}.fold0"],
        "frozen": [run for run, history in histories.items() if history.empty],
    }


def write_page(path: Path, **context: Any) -> None:
    """Write the report's page.

    Args:
        path: An HTML file.
        context: Values by the template's names.
    """
    page = render("report/report.html.j2", names=result_rows.ROW_NAMES, **context)
    artifacts.write_text(path, page)
