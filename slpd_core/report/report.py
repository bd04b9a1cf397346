"""The report: tables, figures, and one page that holds them all."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.report import curves, figures, metrics, page, protocol, result_table, table_format
from slpd_core.report.projection import choose_slides, project_regions
from slpd_core.report.provenance import provenance_context
from slpd_core.report.result_table import ResultRow
from slpd_core.runtime import log

VERSION = 22


def draw_roc(rows: Sequence[ResultRow], runs: Sequence[str]) -> bytes:
    """Draw the ROC curves of all rows.

    Args:
        rows: Of the result table.
        runs: Pretraining runs, in the order of their colors.

    Returns:
        A PNG.
    """
    panels: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        parts = [metrics.probability_matrix(part, row.classes) for _, part in row.predictions.groupby("fold")]
        panels.setdefault(row.names["classifier"], {})[row.features] = curves.fold_roc_curves(parts)
    order = [*result_table.CLASSIFIER_NAMES.values()]
    return figures.plot_roc(dict(sorted(panels.items(), key=lambda panel: order.index(panel[0]))), runs)


def _draw_predictions(row: ResultRow) -> bytes:
    """PNG of the confusion matrix and the calibration of a row over all test slides."""
    p, labels = metrics.probability_matrix(metrics.pool_predictions(row.predictions, row.classes), row.classes)
    return figures.plot_predictions(row.sentence, p, labels, row.classes)


def _draw_figures(
    rows: Sequence[ResultRow],
    reference: ResultRow | None,
    histories: Mapping[str, pd.DataFrame],
    patch_history: pd.DataFrame | None,
    planes: Mapping[str, pd.DataFrame],
) -> dict[str, bytes]:
    """PNGs by name; training curves and t-SNE only if there are runs."""
    pngs = {"roc": draw_roc(rows, list(histories))}
    if reference is not None:
        pngs["predictions"] = _draw_predictions(reference)
    if patch_history is not None:
        pngs["patch_encoder"] = figures.plot_training({"dino": patch_history})
    if histories:
        pngs |= {"training": figures.plot_training(histories), "tsne": figures.plot_tsne(planes)}
    return pngs


def _write_outputs(out_dir: Path, pngs: Mapping[str, bytes], table: pd.DataFrame, meta: artifacts.Meta) -> None:
    """Write the figures and the result table, in numbers and formatted, as files of their own."""
    for name, png in pngs.items():
        with artifacts.atomic_write(out_dir / f"{name}.png") as part:
            part.write_bytes(png)
    tables = result_table.format_tables(table)
    artifacts.write_both(out_dir / "table.parquet", "results", table, meta)
    for suffix, format_table in {"md": table_format.format_markdown, "tex": table_format.format_latex}.items():
        artifacts.write_text(out_dir / f"table.{suffix}", "\n".join(map(format_table, tables)))


def _add_protocol(table: pd.DataFrame, metas: Iterable[artifacts.Meta], splits: str) -> pd.DataFrame:
    """The result table with the columns patch_encoder and splits, from the metadata of the rows' predictions."""
    encoders = {f"{meta['features']}/{meta['classifier']}": protocol.describe_encoder(meta) for meta in metas}
    return table.assign(patch_encoder=table["row"].map(encoders), splits=splits)


def _read_predictions(paths: list[Path], ledger: str) -> dict[str, tuple[pd.DataFrame, artifacts.Meta]]:
    """Table and metadata of each row's folds by "{features}/{classifier}/fold{k}"; all must be of this ledger."""
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

    Args:
        cohort: Its name.
        ledger_path, folds_path, remarks_path: Of the cohort.
        fold_paths: {features}/{classifier}/fold{k}.parquet.
        history_paths: By run, {run}/history.parquet; of a run with an encoder per fold that of {run}.fold0.
        embed_paths: By run, its embeddings.
        gallery_paths: {run}.png of each run that uses prototypes.
        heatmap_paths: {run}/{classifier}.jpg.
        overlays_dir: Of {slide}.png.
        benchmarks_dir: Of Snakemake's benchmark files, by stage.
        out_dir: Where the report is written.
        section: Of the config.
        seed: Of the choice of slides and t-SNE.
        patch_history_path: Training curves of the patch encoder, if it was trained on this cohort.
    """
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    folds, folds_meta = artifacts.read_table(folds_path, "folds")
    embeds = {name: artifacts.read_table(path, "embed") for name, path in embed_paths.items()}
    artifacts.check_ledger(folds_path, folds_meta, ledger_meta["fingerprint"])
    tested = _read_predictions(fold_paths, ledger_meta["fingerprint"])
    patches = artifacts.read_table(patch_history_path, "history")[0] if patch_history_path else None
    histories = {name: artifacts.read_table(path, "history")[0] for name, path in history_paths.items()}
    rows = result_table.join_folds(tested.values(), list(histories))
    reference = result_table.select_reference(rows, section.reference)
    remarks, _ = artifacts.read_table(remarks_path, "remarks")
    table = result_table.make_table(rows, reference, result_table.find_partial_folds(remarks))
    table = _add_protocol(table, (meta for _, meta in tested.values()), protocol.describe_folds(folds, folds_meta))
    labels = choose_slides(ledger, section.tsne_slides_per_label, seed=seed)
    planes = {
        name: project_regions(embed, labels, section.tsne_perplexity, seed=seed) for name, (embed, _) in embeds.items()
    }
    pngs = _draw_figures(rows, reference, histories, patches, planes)
    metas = {"ledger": ledger_meta, "folds": folds_meta} | {name: meta for name, (_, meta) in (embeds | tested).items()}
    inputs = (meta["fingerprint"] for meta in metas.values())
    _write_outputs(
        out_dir, pngs, table, artifacts.provenance("report", VERSION, section.model_dump(), str(seed), *inputs)
    )
    page.write_page(
        out_dir / "index.html",
        cohort=cohort,
        summary=page.summarize_cohort(ledger, folds),
        remarks=page.summarize_issues(remarks),
        patch_encoders=page.list_patch_encoders(rows),
        results=page.describe_results(rows, reference, table),
        slides=ledger.to_dict("records"),
        section=section,
        **page.describe_runs(history_paths, {name: meta for name, (_, meta) in embeds.items()}),
        **provenance_context(metas, benchmarks_dir, seed),
        **page.collect_pictures(pngs, gallery_paths, heatmap_paths, overlays_dir, [*ledger["slide_id"]]),
    )
    log.info("%d rows; %s", len(table), out_dir / "index.html")
