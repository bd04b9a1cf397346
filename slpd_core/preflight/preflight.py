"""The preflight: what is wrong now, and what a run would take."""

import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from slpd_core import config
from slpd_core.encoders.region_encoder import read_state
from slpd_core.preflight import forecast, outlines, slides, texts, throughput
from slpd_core.preflight.forecast import Encoder, Machine
from slpd_core.pretraining import patch_encoder
from slpd_core.pretraining.coverage import fewest_regions
from slpd_core.runtime import escape_controls, log
from slpd_core.slides import ledger
from slpd_core.slides.outline_files import find_outlines
from slpd_core.slides.sheet import read_sheet
from slpd_core.wsi import identity

LIBRARIES = ("snakemake", "torch", "timm", "openslide-python")
NAMED = 10  # slides, or what is in doubt, that are named one by one
OK, NOTE, FAIL = "ok", "note", "FAIL"


class PreflightReport:
    """What was looked at, line by line."""

    def __init__(self) -> None:
        self.failed = 0

    def say(self, verdict: str, what: str, found: str) -> None:
        """Print a line, and count what fails."""
        self.failed += verdict == FAIL
        print(escape_controls(f"  {verdict:4s}  {what:12s} {found}", keep="\n\t"), flush=True)

    def say_some(self, verdict: str, lines: Sequence[str], rest: str = "") -> None:
        """Print the first of several lines, and how many more there are; rest: what of these."""
        for line in lines[:NAMED]:
            self.say(verdict, "", line)
        if len(lines) > NAMED:
            self.say(NOTE, "", f"and {len(lines) - NAMED:,} more{rest}")


def memory_gb() -> float:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def look_at_machine(say: PreflightReport, machine: Machine, asked: int) -> None:
    """Versions, cores, memory, GPUs; asked: GPUs that jobs may use at a time."""
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    say.say(OK, "environment", f"Python {platform.python_version()}, {versions}")
    say.say(OK, "machine", f"{machine.cores} of {os.cpu_count()} cores, {memory_gb():.0f} GB of memory")
    count = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(number) for number in range(count)})) or "none"
    if count < asked:
        say.say(FAIL, "GPUs", f"{asked} asked for, {count} found ({names}): lower --resources gpu={asked}")
    elif not count:
        say.say(OK, "GPUs", "none: tokens and pretraining run on the CPU")
    elif asked:
        say.say(OK, "GPUs", f"{asked} of {count} ({names})")
    else:
        say.say(NOTE, "GPUs", f"{count} here ({names}), none in use: add --resources gpu={count}")


def look_at_texts(say: PreflightReport, settings: config.Config, sheet: pd.DataFrame) -> None:
    """What the sheet says of the cohort, and what it and the splits leave in doubt."""
    labels = ", ".join(f"{label} ({count:,})" for label, count in sheet["label"].value_counts().items())
    say.say(OK, "sheet", f"{len(sheet):,} slides of {sheet['patient_id'].nunique():,} patients: {labels}")
    say.say_some(NOTE, texts.find_doubts(settings, sheet))


def look_at_runs(say: PreflightReport, settings: config.Config, sample: slides.CohortSample, token_dim: int) -> None:
    """Whether each pretraining run can begin with the encoder it names, and which slides have prototypes in it."""
    counts = np.array([len(found.coords) for found in sample.regions])
    for name in settings.pretrain.runs:
        run = settings.pretrain.run(name)
        if run.init_from and Path(run.init_from).is_file():
            try:
                shape = (token_dim, run.embed_dim, run.depth, run.n_heads, run.global_crop_size)
                read_state(Path(run.init_from), shape)
            except ValueError as error:
                say.say(FAIL, "init_from", str(error))
        fewest = fewest_regions(run, run.n_prototypes)
        short = int((counts < fewest).sum())
        if run.uses_prototypes and run.clustering == "slide" and short:
            whole = ": all would train as plain DINO" if short == len(counts) else ""
            say.say(
                NOTE, "prototypes", f"{name}: {short} of {len(counts)} slides have fewer than {fewest} regions{whole}"
            )


def look_at_slides(say: PreflightReport, opened: list[slides.SlideProbe], on_bad_slide: str) -> list[slides.SlideProbe]:
    """Whether each slide opens; gives those that do."""
    good = [slide for slide in opened if not slide.problem]
    mpp = [slide.mpp for slide in good]
    spread = f", at {min(mpp):.3g} to {max(mpp):.3g} um/px" if good else ""
    say.say(OK if good else FAIL, "slides", f"{len(good):,} of {len(opened):,} open{spread}")
    bad = [slide.problem for slide in opened if slide.problem]
    say.say_some(NOTE if on_bad_slide == "quarantine" else FAIL, bad)
    if bad:
        what = "they would be left out" if on_bad_slide == "quarantine" else "the first of them would stop the run"
        say.say(NOTE, "", f"{what} (ledger.on_bad_slide: {on_bad_slide})")
    remarked = [f"{slide.slide_id}: {' '.join(slide.remarks)}" for slide in good if slide.remarks]
    say.say_some(NOTE, remarked, " slides with remarks; the ledger will have them all")
    return good


def look_at_copies(say: PreflightReport, sheets: list[pd.DataFrame]) -> None:
    """Name slides of equal content: a leak where a sheet has them as of several patients or labels.

    sheets: of the cohort and, if there are any, of new slides.
    """
    rows = pd.concat(sheets)
    paths = {slide: Path(path) for slide, path in zip(rows["slide_id"], rows["path"], strict=True)}
    for ids in identity.find_copies(paths):
        parts = [sheet[sheet["slide_id"].isin(ids)] for sheet in sheets]
        for number, copies in enumerate(parts):
            if len(copies) > 1:
                differ, sentence = ledger.compare_copies(copies, labelled=not number)
                say.say(FAIL if differ else NOTE, "copies", sentence)
        if all(map(len, parts)) and len(parts) > 1:
            new, known = parts[1]["slide_id"].iloc[0], parts[0]["slide_id"].iloc[0]
            say.say(NOTE, "copies", f"{new}, to be predicted: {ledger.describe_leak(known)}")


def look_at_outlines(
    say: PreflightReport, settings: config.Config, slide_ids: list[str], good: list[slides.SlideProbe], threads: int
) -> tuple[list[slides.SlideProbe], dict[str, Path]]:
    """Whether each outline can be taken; gives the slides whose outline can, or that have none, and the outlines."""
    if settings.tissue.masks is None:
        return good, {}
    found = find_outlines(settings.tissue.masks, slide_ids)
    say.say(NOTE if found.unmatched else OK, "outlines", found.describe(len(slide_ids)))
    problems = outlines.find_problems(good, found.paths, settings.tissue.outline, threads)
    say.say_some(FAIL, [*problems.values()])
    return [slide for slide in good if slide.slide_id not in problems], found.paths


def look_at_encoders(say: PreflightReport, settings: config.Config, device: str) -> dict[str, Encoder]:
    """Load the weights of every patch encoder as its stage will, and time it; by the name that rows have for it."""
    found: dict[str, Encoder] = {}
    used = {name: settings.patch_encoder.other(name) for name in settings.patch_encoder.others}
    used = {name: section for name, section in used.items() if name in settings.evaluate.rows}
    for name, section in {config.PATCH_FEATURES: settings.patch_encoder.own, **used}.items():
        trained_here = section.source == "dino"
        tried = section.model_copy(update={"source": "random"}) if trained_here else section
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "weights.safetensors")
                log.setLevel(logging.ERROR if trained_here else logging.INFO)  # random weights stand in for it
                patch_encoder.run(weights_path=path, section=tried, seed=settings.seed)
                seconds, dim, precision = throughput.seconds_a_patch(path, settings.tokens, device)
        except (ValueError, OSError, RuntimeError) as error:
            say.say(FAIL, "weights", str(error))
            continue
        finally:
            log.setLevel(logging.INFO)
        found[name] = Encoder(seconds, dim, (settings.regions.size_px // section.patch_px) ** 2)
        source, rate = "trained here" if trained_here else section.source, f"{1 / seconds:,.0f} patches/s"
        say.say(OK, "weights", f"{section.name} ({source}), tokens of {dim}, {rate} in {precision}")
    return found


def bytes_of(folder: Path) -> int:
    """What the files in a folder take by now."""
    return sum(path.stat().st_size for path in folder.glob("*.h5")) if folder.is_dir() else 0


def look_at_disk(say: PreflightReport, results: Path, needed_gb: float, tokens_gb: float) -> None:
    """Whether what is to come has room, and whether pretraining can keep the tokens in memory or map them."""
    results.mkdir(parents=True, exist_ok=True)
    there = bytes_of(results / "tokens") / 1e9
    free, to_come = shutil.disk_usage(results).free / 1e9, max(0.0, needed_gb - there)
    verdict = OK if to_come < free else FAIL
    remedy = "" if verdict == OK else ": free some, or start on a larger disk (--directory)"
    say.say(verdict, "disk", f"{to_come:,.1f} GB to come, {free:,.1f} free in {results}{remedy}")
    memory, scratch = memory_gb(), tempfile.gettempdir()
    room = shutil.disk_usage(scratch).free / 1e9
    if tokens_gb < 0.7 * memory:
        say.say(OK, "memory", f"{tokens_gb:,.1f} GB of tokens while pretraining, of {memory:,.0f}")
    elif tokens_gb < room:
        say.say(NOTE, "memory", f"{tokens_gb:,.1f} GB of tokens do not fit: they are mapped from {scratch}")
    else:
        say.say(FAIL, "memory", f"{tokens_gb:,.1f} GB of tokens fit neither memory nor {scratch}: set TMPDIR")


def run(*, settings: config.Config, sheets: list[Path], results: Path, device: str, cores: int, gpus: int) -> None:
    """Print what is wrong and what a run would take.

    sheets: of the cohort and, if there are any, of new slides. cores, gpus: that jobs may use at a time. Raises
    ValueError when something would fail.
    """
    machine, say = Machine(cores, gpus if device == "cuda" else 0, device), PreflightReport()
    print(f"Preflight of cohort {settings.cohort}", flush=True)
    look_at_machine(say, machine, gpus)
    rows = [read_sheet(path, labelled=not number) for number, path in enumerate(sheets)]
    look_at_texts(say, settings, rows[0])
    opened = slides.open_all(pd.concat(rows), settings, cores)
    good = look_at_slides(say, opened, settings.ledger.on_bad_slide)
    good, outlined = look_at_outlines(say, settings, [*pd.concat(rows)["slide_id"]], good, cores)
    look_at_copies(say, rows)
    encoders = look_at_encoders(say, settings, device)
    if good and config.PATCH_FEATURES in encoders:
        sample = slides.sample(good, settings, outlined)
        R, own = sample.regions_of(good), encoders[config.PATCH_FEATURES]
        if not R:
            say.say(
                FAIL, "regions", f"none in {len(sample.of)} slides: look at tissue.* and regions.min_tissue_fraction"
            )
        look_at_runs(say, settings, sample, own.token_dim)
        stages = forecast.of_slides(settings, good, sample, encoders, machine)
        stages += forecast.of_pretraining(settings, R, own.token_dim, machine)
        stages.append(forecast.of_evaluation(settings, len(good), R, encoders, machine))
        look_at_disk(say, results, sum(stage.gigabytes for stage in stages), R * own.region_bytes / 1e9)
        print(f"\nAbout {R:,} regions, by {len(sample.of)} slides and the rates of this machine:")
        print("\n".join(forecast.table(stages)), flush=True)
    if say.failed:
        raise ValueError(f"{say.failed} thing(s) would fail: see above")
    log.info("nothing that would fail was found")
    print("Ready.", flush=True)
