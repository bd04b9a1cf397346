"""The report: tables, figures, and one page that holds them all."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.report import figures, metrics, protocol, table_format, uncertainty
from slpd_core.report import result_table as result_rows
from slpd_core.report.html import picture, render, thumbnails
from slpd_core.report.provenance import provenance_context
from slpd_core.runtime import generator, log

VERSION = 21
MAX_PICTURE_BYTES = 22_000_000  # of the page, inline; slides are shown while their thumbnails fit beside its figures


def draw_roc(rows: Sequence[result_rows.ResultRow], runs: Sequence[str]) -> bytes:
    """The ROC figure of all rows."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        parts = [metrics.probability_matrix(part, row.classes) for _, part in row.predictions.groupby("fold")]
        panels.setdefault(row.names["classifier"], {})[row.features] = figures.fold_curves(parts)
    order = [*result_rows.CLASSIFIER_NAMES.values()]
    return figures.roc(dict(sorted(panels.items(), key=lambda panel: order.index(panel[0]))), runs)


def draw_predictions(row: result_rows.ResultRow) -> bytes:
    """Confusion and calibration of a row over all test slides."""
    p, labels = metrics.probability_matrix(metrics.pool_predictions(row.predictions, row.classes), row.classes)
    return figures.predictions(row.sentence, p, labels, row.classes)


def choose_slides(ledger: pd.DataFrame, per_label: int, seed: int) -> dict[str, str]:
    """A few random slides a label, of those that took part: slide → label."""
    rng = generator(seed, "report")
    admitted = ledger[ledger["status"] == artifacts.OK].sort_values("slide_id")
    return {
        slide: label
        for label, slides in admitted.groupby("label")["slide_id"]
        for slide in rng.permutation(slides.to_numpy())[:per_label]
    }


def project_regions(embed: pd.DataFrame, labels: Mapping[str, str], perplexity: float, seed: int) -> pd.DataFrame:
    """The regions of the slides in `labels` in the plane: x, y, label, slide_id; no rows where t-SNE has too few.

    embed: an `embed` table.
    """
    regions = embed[embed["slide_id"].isin(labels)]
    embeddings = np.stack(regions["embedding"].to_list()) if len(regions) else np.empty((0, 2))
    plane = figures.project(embeddings, perplexity, seed)
    regions = regions.iloc[: len(plane)]
    return pd.DataFrame(
        {
            "x": plane[:, 0],
            "y": plane[:, 1],
            "label": regions["slide_id"].map(labels).to_numpy(),
            "slide_id": regions["slide_id"].to_numpy(),
        }
    )


def summarise(ledger: pd.DataFrame, folds: pd.DataFrame) -> dict[str, Any]:
    """What the page opens with: how many slides, of which label and status, what they gave, how they were split."""
    admitted = ledger[ledger["status"] == artifacts.OK]
    return {
        "slides": len(ledger),
        "admitted": len(admitted),
        "patients": int(admitted["patient_id"].nunique()),
        "labels": admitted["label"].value_counts().sort_index().to_dict(),
        "regions": int(admitted["regions"].sum()),
        "tissue_mm2": float(admitted["tissue_mm2"].sum()),
        "remarks": ledger[(ledger["status"] == artifacts.OK) & (ledger["remarks"] != "")].to_dict("records"),
        "left_out": {
            status: ledger[ledger["status"] == status].to_dict("records")
            for status in (artifacts.QUARANTINED, artifacts.EMPTY)
        },
        "folds": int(folds["fold"].nunique()),
    }


def summarize_issues(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Remarks on the folds, other than on slides that the page lists anyway: of each kind the slides, patients or
    labels, and in how many folds, 0 where it is of all.

    found: columns remark, id, fold.
    """
    found = found[~found["remark"].isin(artifacts.REMARKS_OF_STATUS.values())]
    kinds = found.groupby("remark", sort=False)
    return {remark: {"ids": [*rows["id"].unique()], "folds": len({*rows["fold"]} - {""})} for remark, rows in kinds}


def patch_encoders(rows: Sequence[result_rows.ResultRow]) -> list[str]:
    """The patch encoders the rows come from: architecture and origin of the weights, the cohort's own first."""
    found: dict[str, str] = {}
    for row in rows:
        source, name = row.encoder
        other = row.features if row.level == "patch" and row.features != config.PATCH_FEATURES else ""
        what = f"{name}, {protocol.WEIGHTS.get(source, source)}"
        found[other] = f"{other} ({what})" if other else what
    return [found[key] for key in sorted(found, key=bool)]


def draw(
    rows: Sequence[result_rows.ResultRow],
    reference: result_rows.ResultRow | None,
    histories: Mapping[str, pd.DataFrame],
    patch_history: pd.DataFrame | None,
    embeds: Mapping[str, pd.DataFrame],
    ledger: pd.DataFrame,
    section: config.ReportConfig,
    seed: int,
) -> dict[str, bytes]:
    """The figures by name; those of a training only where there was one."""
    pngs = {"roc": draw_roc(rows, list(histories))}
    if reference is not None:
        pngs["predictions"] = draw_predictions(reference)
    if patch_history is not None:
        pngs["patch_encoder"] = figures.training({"dino": patch_history})
    if histories:
        labels = choose_slides(ledger, section.tsne_slides_per_label, seed)
        planes = {name: project_regions(embed, labels, section.tsne_perplexity, seed) for name, embed in embeds.items()}
        pngs |= {"training": figures.training(histories), "tsne": figures.tsne(planes)}
    return pngs


def results(
    rows: Sequence[result_rows.ResultRow], reference: result_rows.ResultRow | None, table: pd.DataFrame
) -> dict[str, Any]:
    """The scores as the page shows them: the printed table, the reference row, what could have been detected, each
    fold, folds without AUC.
    """
    folds = sorted({fold for row in rows for fold in row.per_fold["fold"]})
    per_fold = [row.per_fold.set_index("fold").reindex(folds) for row in rows]
    return {
        "folds": folds,
        "tables": result_rows.as_tables(table),
        "reference": _reference(reference, table) if reference else None,
        "training": [f"{share:.0%}".replace("%", " %") for share in (uncertainty.TRAINING, uncertainty.KNN_TRAINING)],
        "has_color": any(row.level == "color" for row in rows),
        "per_fold": [
            (
                row.names,
                {
                    score: [table_format.format_score(value) for value in scores[score]]
                    for score in table_format.SHOWN_SCORES
                },
            )
            for row, scores in zip(rows, per_fold, strict=True)
        ],
        "undefined": sorted({fold for scores in per_fold for fold in scores.index[scores["auc"].isna()]}),
    }


def _reference(reference: result_rows.ResultRow, table: pd.DataFrame) -> dict[str, str]:
    """The reference row as the page opens with it: its AUC, its interval, the range of differences detectable to it."""
    line = table[table["row"] == reference.key].iloc[0]
    ends = [
        table_format.format_score(value) for value in (table["auc_detectable"].min(), table["auc_detectable"].max())
    ]
    return {
        "sentence": reference.sentence,
        "auc": table_format.format_score(line["auc_mean"]),
        "interval": table_format.format_interval(line["auc_low"], line["auc_high"]),
        "detectable": " to ".join(dict.fromkeys(ends)),
    }


def pictures(
    pngs: Mapping[str, bytes],
    gallery_paths: Sequence[Path],
    heatmap_paths: Sequence[Path],
    overlays_dir: Path,
    slide_ids: Sequence[str],
) -> dict[str, Any]:
    """What the page shows: figures and other stages' pictures by name; the names of the galleries by run, of the heat
    maps by run and classifier; the slides' thumbnails, as many as fit beside them.
    """
    galleries = {path.stem: f"gallery/{path.stem}" for path in gallery_paths}
    heatmaps = {
        (path.parent.name, result_rows.CLASSIFIER_NAMES[path.stem]): f"heatmaps/{path.parent.name}/{path.stem}"
        for path in heatmap_paths
    }
    names = [*galleries.values(), *heatmaps.values()]
    drawn = {
        name: picture(artifacts.read_picture(path), f"{name}{path.suffix}")
        for name, path in zip(names, [*gallery_paths, *heatmap_paths], strict=True)
    }
    drawn |= {name: picture(png, f"{name}.png", figures.DPI) for name, png in pngs.items()}
    room = MAX_PICTURE_BYTES - sum(len(one["src"]) for one in drawn.values())
    overlays = thumbnails(overlays_dir, slide_ids, room)
    return {"pictures": drawn, "galleries": galleries, "heatmaps": heatmaps, "overlays": overlays}


def write_outputs(out_dir: Path, pngs: Mapping[str, bytes], table: pd.DataFrame, meta: artifacts.Meta) -> None:
    """Write the figures, and the table in numbers and as it is printed, as files of their own."""
    for name, png in pngs.items():
        with artifacts.atomic_write(out_dir / f"{name}.png") as part:
            part.write_bytes(png)
    tables = result_rows.as_tables(table)
    artifacts.write_both(out_dir / "table.parquet", "results", table, meta)
    for suffix, print_table in {"md": table_format.format_markdown, "tex": table_format.format_latex}.items():
        artifacts.write_text(out_dir / f"table.{suffix}", "\n".join(map(print_table, tables)))


def add_protocol(table: pd.DataFrame, metas: Iterable[artifacts.Meta], splits: str) -> pd.DataFrame:
    """Add the patch encoder of each row, by the metadata of its folds, and the splits to the result table."""
    encoders = {f"{meta['features']}/{meta['classifier']}": protocol.describe_encoder(meta) for meta in metas}
    return table.assign(patch_encoder=table["row"].map(encoders), splits=splits)


def describe_runs(history_paths: Mapping[str, Path], metas: Mapping[str, artifacts.Meta]) -> dict[str, Any]:
    """Return what the page says of the pretraining runs: their names, remarks, and which have an encoder per fold.

    Args:
        history_paths: As in `run`.
        metas: The metadata of each run's embeddings.
    """
    return {
        "runs": list(history_paths),
        "run_remarks": {run: meta["remarks"].splitlines() for run, meta in metas.items() if meta["remarks"]},
        "by_fold": [run for run, path in history_paths.items() if path.parent.name == f"{run}.fold0"],
    }


def write_page(path: Path, **context: Any) -> None:
    """Write the report's page; context: what its template names."""
    page = render("report.html.j2", names=result_rows.NAME_COLUMNS, scores=table_format.SHOWN_SCORES, **context)
    artifacts.write_text(path, page)


def read_predictions(paths: list[Path], ledger: str) -> dict[str, tuple[pd.DataFrame, artifacts.Meta]]:
    """Read the predictions of every row's folds.

    Args:
        paths: {features}/{classifier}/fold{k}.parquet.
        ledger: The fingerprint of the cohort's ledger.

    Returns:
        Table and metadata by "{features}/{classifier}/fold{k}".

    Raises:
        ValueError: One of them was made from another ledger.
    """
    tables = {}
    for path in paths:
        table, meta = artifacts.read_table(path, "evaluate")
        artifacts.check_ledger(path, meta, ledger)
        tables["/".join(path.with_suffix("").parts[-3:])] = table, meta
    return tables


def run(
    *,
    cohort: str,
    ledger_path: Path,
    folds_path: Path,
    remarks_path: Path,
    fold_paths: list[Path],
    history_paths: dict[str, Path],
    embed_paths: dict[str, Path],
    gallery_paths: list[Path],
    heatmap_paths: list[Path],
    overlays_dir: Path,
    benchmarks_dir: Path,
    out_dir: Path,
    section: config.ReportConfig,
    seed: int,
    patch_history_path: Path | None = None,
) -> None:
    """Write table.parquet, .csv, .md and .tex, the figures and index.html.

    history_paths: {run}/history.parquet by run, or that of {run}.fold0 of a run that has an encoder a fold.
    gallery_paths: {run}.png of each run that uses prototypes. heatmap_paths: {run}/{classifier}.jpg.
    benchmarks_dir: of Snakemake's benchmark files, by stage.
    patch_history_path: the training curves of the patch encoder, where it was trained on this cohort.
    """
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    embeds = {name: artifacts.read_table(path, "embed") for name, path in embed_paths.items()}
    artifacts.check_ledger(folds_path, folds_meta, ledger_meta["fingerprint"])
    tested = read_predictions(fold_paths, ledger_meta["fingerprint"])
    patches = artifacts.read_table(patch_history_path, "history")[0] if patch_history_path else None
    histories = {name: artifacts.read_table(path, "history")[0] for name, path in history_paths.items()}
    rows = result_rows.join_folds(tested.values(), list(histories))
    reference = result_rows.reference_row(rows, section.reference)
    found, _ = artifacts.read_table(remarks_path, "remarks")
    table = result_rows.make_table(rows, reference, result_rows.find_partial_folds(found))
    table = add_protocol(table, (meta for _, meta in tested.values()), protocol.describe_folds(folds, folds_meta))
    regions = {run: own for run, (own, _) in embeds.items()}
    pngs = draw(rows, reference, histories, patches, regions, ledger, section, seed)
    metas = {"ledger": ledger_meta, "folds": folds_meta} | {name: meta for name, (_, meta) in (embeds | tested).items()}
    inputs = (meta["fingerprint"] for meta in metas.values())
    write_outputs(
        out_dir, pngs, table, artifacts.provenance("report", VERSION, section.model_dump(), str(seed), *inputs)
    )
    write_page(
        out_dir / "index.html",
        cohort=cohort,
        summary=summarise(ledger, folds),
        remarks=summarize_issues(found),
        patch_encoders=patch_encoders(rows),
        results=results(rows, reference, table),
        slides=ledger.to_dict("records"),
        section=section,
        **describe_runs(history_paths, {name: meta for name, (_, meta) in embeds.items()}),
        **provenance_context(metas, benchmarks_dir, seed),
        **pictures(pngs, gallery_paths, heatmap_paths, overlays_dir, [*ledger["slide_id"]]),
    )
    log.info("%d rows; %s", len(table), out_dir / "index.html")
