"""The preflight: find what would fail, and forecast what a run takes."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import artifacts, config
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.config.published import find_published
from slpd_core.preflight import checks, consistency, encoder_terms, forecast, throughput
from slpd_core.preflight.checks import FAIL, NOTE, OK, PreflightReport
from slpd_core.preflight.forecast import Machine, StageForecast
from slpd_core.preflight.slides import NO_OUTLINES, CohortSample, SlideProbe, probe_slides, sample_cohort
from slpd_core.preflight.throughput import EncoderSpeed
from slpd_core.pretraining import patch_encoder
from slpd_core.pretraining.coverage import min_clustered_regions
from slpd_core.pretraining.pretrain import MEMORY_SHARE
from slpd_core.runtime import log
from slpd_core.slides.sheet import find_ambiguities, read_sheet
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.external_labels import ExternalLabels
from slpd_core.workflow.forecast import PRETRAIN_MB, pretrain_share, tokens_gb
from slpd_core.workflow.tasks import Tasks


def run(
    *,
    settings: config.Config,
    sheets: Sequence[Path],
    results: Path,
    device: str,
    cores: int,
    gpus: int,
    pretrain_mb: float = PRETRAIN_MB,
) -> None:
    """Print what is wrong and what a run would take, which is kept for the run to tell the time that it has left.

    Args:
        settings: The whole config.
        sheets: That of the cohort, then those of external cohorts.
        results: The cohort's results folder.
        device: "cuda" or "cpu".
        cores: Cores that jobs may use at a time.
        gpus: GPUs that jobs may use at a time.
        pretrain_mb: Memory per pretraining job, MB.

    Raises:
        ValueError: Something would fail.
    """
    machine, report = Machine(cores, gpus if device == "cuda" else 0, device, pretrain_mb), PreflightReport()
    print(f"Preflight of cohort {settings.cohort}", flush=True)
    checks.check_machine(report, machine, gpus)
    checks.check_packages(report, settings.optional_packages)
    tables = [read_sheet(path, columns=settings.sheet.columns, external=i > 0) for i, path in enumerate(sheets)]
    tasks, rows = Tasks(settings, tables[0]), pd.concat(tables)
    doubts = [
        *consistency.find_cohort_doubts(tables[0], tasks.labels, settings.folds.files, tasks.endpoints),
        *tasks.doubts,
    ]
    checks.check_sheet(report, tables[0], tasks.descriptions, [*filter(None, [tasks.describe_waiting()]), *doubts])
    external = dict(zip(settings.predict.sheet, tables[1:], strict=True))
    labels = ExternalLabels(settings, external, tasks)
    for name, table in external.items():
        scored = [task for of, task in labels.pairs if of == name]
        checks.check_external_sheet(report, name, table, scored, find_ambiguities(table))
    report.add_lines(checks.NOTE, labels.doubts)
    missing_tiles = settings.tissue.missing_tiles
    region_options = settings.regions.selection.model_dump(exclude={"min_focus"})
    probes = probe_slides(rows, region_options=region_options, missing_tiles=missing_tiles, threads=cores)
    slides = checks.check_slides(report, probes, settings.ledger.on_bad_slide)
    outlines: Mapping[str, Path] = NO_OUTLINES
    if settings.tissue.masks_dir:
        options = settings.tissue.outline.model_dump()
        slides, outlines = checks.check_outlines(
            report,
            dict(zip(rows["slide_id"], rows["path"], strict=True)),
            slides,
            settings.tissue.masks_dir,
            **options,
            threads=cores,
        )
    checks.check_copies(report, tables, tasks.labels)
    encoders = check_encoders(report, settings, device)
    if slides and config.PATCH_FEATURES in encoders:
        _forecast_work(report, settings, tasks.names, slides, outlines, encoders, machine, results)
    if report.failures:
        raise ValueError(f"{report.failures} check(s) failed: see above")
    log.info("every check passed")
    print("Ready.", flush=True)


def _forecast_work(
    report: PreflightReport,
    settings: config.Config,
    tasks: Sequence[str],
    slides: Sequence[SlideProbe],
    outlines: Mapping[str, Path],
    encoders: Mapping[str, EncoderSpeed],
    machine: Machine,
    results: Path,
) -> None:
    """Sample the slides, check runs, disk and memory by them, and print the forecast."""
    sample = sample_cohort(
        slides,
        tissue_options=settings.tissue.model_dump(exclude={"masks_dir"}),
        region_options=settings.regions.selection.model_dump(exclude={"min_focus"}),
        jpeg_scaled_decoding=settings.tokens.jpeg_scaled_decoding,
        outlines=outlines,
    )
    n_regions, speed = sample.expected_regions(slides), encoders[config.PATCH_FEATURES]
    if not n_regions:
        text = f"none in {len(sample.slides)} slides: look at tissue.* and regions.min_tissue_fraction"
        report.add(FAIL, "regions", text)
    _check_runs(report, settings, sample, speed.token_dim)
    stages = forecast_stages(settings, tasks, slides, sample, encoders, machine)
    seconds = {stage.name: stage.job_seconds for stage in stages}
    artifacts.write_json(CohortPaths(results).forecast(), {"seconds": seconds})
    checks.check_disk(report, results, sum(stage.gigabytes for stage in stages))
    needed_gb = tokens_gb(n_regions, speed.patches_per_region, speed.token_dim, with_colors=False)
    checks.check_memory(report, needed_gb, MEMORY_SHARE * machine.pretrain_mb / 1e3)
    print(f"\nAbout {n_regions:,} regions, by {len(sample.slides)} slides and the speed of this machine:")
    print("\n".join(forecast.format_forecast(stages)), flush=True)


def check_encoders(report: PreflightReport, settings: config.Config, device: str) -> dict[str, EncoderSpeed]:
    """Load the weights of every patch encoder in use as its stage will, and time it.

    Args:
        report: The report.
        settings: The whole config.
        device: "cuda" or "cpu".

    Returns:
        By the features' name, the speed of an encoder that loads.
    """
    options = settings.tokens.model_dump(include={"precision", "batch_size", "compile"})
    options |= {"region_px": settings.regions.size_px, "device": device}
    compared = [name for name in settings.patch_encoder.compared if name in settings.evaluate.classifiers]
    encoders = {name: settings.patch_encoder.encoder(name) for name in compared}
    speeds: dict[str, EncoderSpeed] = {}
    for name, encoder in {config.PATCH_FEATURES: settings.patch_encoder.cohort_encoder, **encoders}.items():
        stated_name = settings.patch_encoder.stated_name(name if name in encoders else None)
        _check_terms(report, stated_name, encoder, settings.regions.target_mpp)
        try:
            encoder.require_source()
        except ValueError as error:
            report.add(FAIL, "weights", str(error))
        try:
            speeds[name] = _time_encoder(encoder, seed=settings.seed, **options)
        except (ValueError, OSError, RuntimeError) as error:
            report.add(FAIL, "weights", str(error))
            continue
        if encoder.source == "features":
            report.add(OK, "features", f"{encoder.path} ({encoder.format}), tokens of {speeds[name].token_dim}")
            continue
        if encoder.source is None:
            continue
        source = "trained here" if encoder.source == "dino" else encoder.source
        rate = f"{1 / speeds[name].seconds_per_patch:,.0f} patches/s in {speeds[name].precision}"
        report.add(OK, "weights", f"{encoder.name} ({source}), tokens of {speeds[name].token_dim}, {rate}")
    return speeds


def _check_terms(report: PreflightReport, name: str, encoder: config.PatchEncoderConfig, target_mpp: float) -> None:
    """Report license and scale of an encoder of the table, if its weights are used."""
    published = find_published(name)
    if published is None or encoder.source != "timm":
        return
    gated = published.gated and not encoder.weights
    terms = encoder_terms.describe_terms(name, published, has_weights=encoder.weights is not None)
    report.add(NOTE if gated else OK, "license", terms)
    input_px = encoder.input_px or published.input_px or encoder.patch_px
    fits, scale = encoder_terms.describe_scale(
        name, published, target_mpp=target_mpp, patch_px=encoder.patch_px, input_px=input_px
    )
    report.add(OK if fits else NOTE, "scale", scale)


def _time_encoder(encoder: config.PatchEncoderConfig, *, seed: int, **options: Any) -> EncoderSpeed:
    """Write the weights of an encoder as its stage does, and time them; random ones stand in for others to come."""
    to_come = encoder.source in ("dino", None)
    loaded = encoder.model_copy(update={"source": "random"}) if to_come else encoder
    log.setLevel(logging.ERROR if to_come else logging.INFO)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.safetensors")
            patch_encoder.run(weights_path=path, section=loaded, seed=seed)
            if encoder.source == "features":
                return throughput.describe_features(path, region_px=options["region_px"])
            weights_gb = sum(os.stat(file).st_size for file in encoder.files) / 1e9
            return throughput.time_patch_encoder(path, weights_gb=weights_gb, **options)
    finally:
        log.setLevel(logging.INFO)


def _check_runs(report: PreflightReport, settings: config.Config, sample: CohortSample, token_dim: int) -> None:
    """Check the start and the prototypes of each pretraining run."""
    region_counts = [len(regions.coords) for regions in sample.regions]
    for name in settings.pretrain.runs:
        run = settings.pretrain.run(name)
        shape = (token_dim, run.embed_dim, run.depth, run.n_heads, run.global_crop_size)
        checks.check_start(report, run.init_from, shape)
        if run.uses_prototypes and run.clustering == "slide":
            fewest = min_clustered_regions(run.n_prototypes, run.min_regions)
            checks.check_prototypes(report, name, region_counts, fewest)


def forecast_stages(
    settings: config.Config,
    tasks: Sequence[str],
    slides: Sequence[SlideProbe],
    sample: CohortSample,
    encoders: Mapping[str, EncoderSpeed],
    machine: Machine,
) -> list[StageForecast]:
    """Forecast the stages that take time.

    Args:
        settings: The whole config.
        tasks: Of the cohort.
        slides: The slides that open.
        sample: The slides whose regions were counted.
        encoders: By the features' name, the speed of a patch encoder.
        machine: The resources.

    Returns:
        The forecasts, in the order of the stages.
    """
    n_regions, token_dim = sample.expected_regions(slides), encoders[config.PATCH_FEATURES].token_dim
    stages = [forecast.forecast_tissue(len(slides), sample, machine, method=settings.tissue.method)]
    if recipe := settings.patch_encoder.recipe:
        n_patches = len(slides) * settings.patches.patches_per_slide
        trained = settings.patch_encoder.cohort_encoder
        rate = throughput.time_stage_one(trained, recipe, machine.device)
        px, epochs = trained.patch_px, recipe.epochs
        stages.append(forecast.forecast_patch_encoder(n_patches, patch_px=px, epochs=epochs, patches_per_s=rate))
    for name, encoder in encoders.items():
        line, region_px = "tokens" if name == config.PATCH_FEATURES else f"tokens of {name}", settings.regions.size_px
        stages.append(forecast.forecast_tokens(line, slides, sample, encoder, machine, region_px=region_px))
    stages += _forecast_runs(settings, tasks, n_regions, token_dim, machine)
    if tasks:
        stages.append(_forecast_classifiers(settings, len(tasks), len(slides), n_regions, encoders, machine))
    return stages


def _forecast_runs(
    settings: config.Config, tasks: Sequence[str], n_regions: int, token_dim: int, machine: Machine
) -> Iterator[StageForecast]:
    """Yield the forecast of each pretraining run; one run with prototypes and one without are timed."""
    rates: dict[bool, float] = {}  # by whether a run has prototypes
    for name, names in Encoders(settings, tasks=tasks).of_run.items():
        run = settings.pretrain.run(name)
        if run.epochs and run.uses_prototypes not in rates:
            rates[run.uses_prototypes] = throughput.time_pretraining(run, settings.grid, token_dim, machine.device)
        share = pretrain_share(per_fold=names != [name], n_folds=settings.folds.partition_folds)
        rate = rates.get(run.uses_prototypes, 1.0)  # of a run without epochs none is needed
        yield forecast.forecast_pretrain(
            name, len(names), share * n_regions, epochs=run.epochs, regions_per_s=rate, machine=machine
        )


def _forecast_classifiers(
    settings: config.Config,
    n_tasks: int,
    n_slides: int,
    n_regions: int,
    encoders: Mapping[str, EncoderSpeed],
    machine: Machine,
) -> StageForecast:
    """Forecast the classifiers of all rows and folds, as if each task had all slides."""
    training, n_folds = settings.evaluate.training, n_tasks * settings.folds.count
    embed_dims = {name: settings.pretrain.run(name).embed_dim for name in settings.pretrain.runs}
    seconds: dict[tuple[str, str], float] = {}
    for features, names in settings.evaluate.classifiers.items():
        size = _feature_size(features, encoders, embed_dims, regions_per_slide=n_regions / n_slides)
        for classifier in names:
            options = {key: value for key, value in training.options.items() if key != "epochs"}
            seconds[features, classifier] = throughput.time_classifier(classifier, *size, **options)
    return forecast.forecast_evaluate(
        seconds,
        n_slides=n_slides,
        n_folds=n_folds,
        epochs=training.epochs * len(training.lr_grid or (training.lr,)),
        machine=machine,
    )


def _feature_size(
    features: str, encoders: Mapping[str, EncoderSpeed], embed_dims: Mapping[str, int], *, regions_per_slide: float
) -> tuple[int, int]:
    """Instances per slide of these features, and the length of each; embed_dims: by the name of a run."""
    if features in embed_dims:
        return round(regions_per_slide), embed_dims[features]
    encoder = encoders.get(features, encoders[config.PATCH_FEATURES])
    if features in config.TOKEN_FEATURES:
        return round(regions_per_slide), encoder.token_dim
    dim = 3 if features == config.COLOR_FEATURES else encoder.token_dim
    return round(regions_per_slide * encoder.patches_per_region), dim
