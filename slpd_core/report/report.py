"""The report: tables and figures of each task, and one page that holds them all."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.html import inline_thumbnails
from slpd_core.report import (
    cohort_verdicts,
    external,
    figures,
    methods,
    overview,
    page,
    protocol_tables,
    references,
    slide_table,
    task,
    wording,
)
from slpd_core.report.projection import choose_slides, project_regions
from slpd_core.report.provenance import provenance_context
from slpd_core.report.pseudonyms import keep_names, number_names, require_numbers, write_key
from slpd_core.report.task import TaskPaths, TaskResults
from slpd_core.runtime import log

VERSION = 28


def _draw_figures(
    histories: Mapping[str, pd.DataFrame], patch_history: pd.DataFrame | None, planes: Mapping[str, pd.DataFrame]
) -> dict[str, bytes]:
    """PNGs of the cohort's pretraining by name; training curves and t-SNE only if there are runs."""
    pngs = {}
    if patch_history is not None:
        pngs["patch_encoder"] = figures.plot_training({"dino": patch_history})
    if histories:
        pngs |= {"training": figures.plot_training(histories), "tsne": figures.plot_tsne(planes)}
    return pngs


def _label_by_slide(results: TaskResults) -> dict[str, str]:
    """Label of each slide that a task labels."""
    return dict(zip(results.labels["slide_id"], results.labels["label"], strict=True))


def _project_runs(
    embeds: Mapping[str, pd.DataFrame],
    ledger: pd.DataFrame,
    results: Mapping[str, TaskResults],
    *,
    slides_per_label: int,
    perplexity: float,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """The region embeddings of each run by t-SNE, of slides of the first task, with the groups of all tasks."""
    labels = next(map(_label_by_slide, results.values()), {})
    slides = choose_slides(ledger, labels, slides_per_label, seed=seed)
    groups = {name: wording.order_groups(of.labels, of.endpoint) for name, of in results.items()}
    return {name: project_regions(embed, slides, groups, perplexity, seed=seed) for name, embed in embeds.items()}


def _write_methods(out_dir: Path, paragraphs: Sequence[str], settings: config.MethodsConfig) -> dict[str, Any]:
    """Write the methods text and its BibTeX; values by the template's names."""
    cited = references.select_references("\n".join(paragraphs), methods.list_encoder_pages(settings))
    bibtex = references.format_bibtex(cited)
    artifacts.write_text(out_dir / "methods.bib", bibtex)
    artifacts.write_text(out_dir / "methods.md", "\n\n".join(paragraphs) + "\n")
    return {"methods": [references.name_citations(text, cited) for text in paragraphs], "bibtex": bibtex}


def run(
    *,
    cohort: str,
    ledger_path: Path,
    tasks: Mapping[str, TaskPaths],
    history_paths: dict[str, Path],
    monitored_paths: dict[str, Path],
    embed_paths: dict[str, Path],
    gallery_paths: list[Path],
    overlays_dir: Path,
    outlines_dir: Path,
    benchmarks_dir: Path,
    out_dir: Path,
    section: config.ReportConfig,
    seed: int,
    patch_encoder: str,
    settings: config.MethodsConfig,
    patch_history_path: Path | None = None,
    external_paths: Sequence[Path] = (),
    protocol_paths: Sequence[Path] = (),
) -> None:
    """Write the page, its verdicts and the figures of the cohort, and per task its table, predictions and figures.

    Args:
        cohort: Its name.
        ledger_path: Of the cohort.
        tasks: The files of each task; none of a cohort without labels.
        history_paths: By run, {run}/history.parquet; of a run with an encoder per fold that of {run}.fold0.
        monitored_paths: By run, the embeddings of its monitored regions before each epoch.
        embed_paths: By run, its embeddings.
        gallery_paths: {run}.png of each run that uses prototypes.
        overlays_dir: Of {slide}.png, and of the regions, {slide}.h5.
        outlines_dir: Of the tissue, {slide}.geojson.
        benchmarks_dir: Of Snakemake's benchmark files, by stage.
        out_dir: Where the report is written.
        section: Of the config.
        seed: Of the choice of slides and t-SNE.
        patch_encoder: Source of the patch encoder's weights.
        settings: That the methods paragraph names.
        patch_history_path: Training curves of the patch encoder, if it was trained on this cohort.
        external_paths: As in `external.describe_external`.
        protocol_paths: As in `protocol_tables.read_protocols`.
    """
    ledger, ledger_meta = artifacts.read_table(ledger_path, "ledger")
    names = number_names(ledger, seed=seed) if section.pseudonyms else keep_names(ledger)
    if section.pseudonyms:
        write_key(out_dir / "pseudonyms.csv", ledger, names)
    # Pictures and regions are found by the true names; a picture in which a name is drawn is left out.
    thumbnails = inline_thumbnails(overlays_dir, [*ledger["slide_id"]], sys.maxsize)
    if section.pseudonyms:
        thumbnails |= dict.fromkeys(ledger.loc[ledger["status"] == artifacts.QUARANTINED, "slide_id"], "")
    thumbnails = names.rename_keys(thumbnails)
    unseen, unseen_share = cohort_verdicts.measure_unseen_tissue(ledger, overlays_dir)
    links = {"overlay": (overlays_dir, ".png"), "outline": (outlines_dir, ".geojson")} if not section.pseudonyms else {}
    heatmaps = [path for paths in tasks.values() for path in paths.heatmaps]
    if section.pseudonyms:
        require_numbers([*gallery_paths, *heatmaps])
    ledger = names.rename_ledger(ledger)
    embeds = {}
    for name, path in embed_paths.items():
        embed, embed_meta = artifacts.read_table(path, "embed")
        embeds[name] = names.rename(embed), embed_meta
    patches = artifacts.read_table(patch_history_path, "history")[0] if patch_history_path else None
    of_runs = {name: artifacts.read_table(path, "history") for name, path in history_paths.items()}
    histories = {name: history for name, (history, _) in of_runs.items()}
    ledger_fingerprint, runs = ledger_meta["fingerprint"], [*histories]
    results = {
        name: task.read_task(
            name, paths, ledger=ledger_fingerprint, runs=runs, reference=section.reference, names=names
        )
        for name, paths in tasks.items()
    }
    protocols = protocol_tables.read_protocols(
        protocol_paths, results, ledger=ledger_fingerprint, runs=runs, reference=section.reference
    )
    planes = _project_runs(
        {name: embed for name, (embed, _) in embeds.items()},
        ledger,
        results,
        slides_per_label=section.tsne_slides_per_label,
        perplexity=section.tsne_perplexity,
        seed=seed,
    )
    pngs = _draw_figures(histories, patches, planes)
    metas = {"ledger": ledger_meta} | {name: meta for name, (_, meta) in embeds.items()}
    external_cohorts, external_pngs, external_metas = external.describe_external(
        external_paths, with_remarks=not section.pseudonyms
    )
    for of_files in (*(of.metas for of in results.values()), *(of.metas for of in protocols), external_metas):
        metas |= of_files
    meta = artifacts.provenance(
        "report",
        VERSION,
        section.model_dump(),
        str(seed),
        settings.model_dump_json(),
        *(meta["fingerprint"] for meta in metas.values()),
    )
    figures.write_figures(out_dir, pngs)
    patients = dict(zip(ledger["slide_id"], ledger["patient_id"], strict=True))
    for name, of in results.items():
        drawn = task.draw_figures(of, runs)
        if of.endpoint.has_classes:
            drawn |= task.draw_knn(monitored_paths, _label_by_slide(of), patients, names.slides)
        task.write_task(out_dir / name, of, drawn, meta)
        slide_table.write_slide_table(
            out_dir / name / "slides.html", of, thumbnails, links, [] if section.pseudonyms else tasks[name].heatmaps
        )
        pngs |= {f"{name}/{figure}": png for figure, png in drawn.items()}
    drawn = protocol_tables.draw_protocols(protocols, runs)
    protocol_tables.write_protocols(out_dir, protocols, meta)
    figures.write_figures(out_dir, drawn)
    pngs |= drawn
    top = overview.make_overview(
        results,
        unseen=names.rename_keys(unseen),
        unseen_share=unseen_share,
        patch_encoder=patch_encoder,
        patch_history=patches,
        histories=of_runs,
        embeds={name: embed for name, (embed, _) in embeds.items()},
    )
    overview.write_verdicts(out_dir / "verdicts.csv", top)
    usable = ledger.loc[ledger["status"] == artifacts.OK, "slide_id"].to_list()
    page.write_page(
        out_dir / "index.html",
        cohort=cohort,
        overview=top,
        summary=page.summarize_cohort(ledger),
        tasks=[task.describe_task(of, usable) for of in results.values()],
        protocols=protocol_tables.describe_protocols(protocols, results),
        external=external_cohorts,
        patch_encoders=page.list_patch_encoders([row for of in results.values() for row in of.rows]),
        slides=page.describe_slides(
            ledger, {name: wording.name_truths(name, of.labels, of.endpoint) for name, of in results.items()}
        ),
        section=section,
        **_write_methods(out_dir, methods.describe_methods(settings, ledger, results, seed=seed), settings),
        **page.describe_runs(history_paths, histories, {name: meta for name, (_, meta) in embeds.items()}),
        **provenance_context(metas, benchmarks_dir, seed, hide_paths=section.pseudonyms),
        **page.collect_pictures(
            pngs | external_pngs,
            gallery_paths,
            heatmaps,
            thumbnails,
        ),
    )
    log.info("%d tasks; %s", len(results), out_dir / "index.html")
