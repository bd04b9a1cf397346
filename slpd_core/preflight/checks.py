"""Check machine, sheets, slides and disk, one line per result."""

import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch

from slpd_core.encoders.region_encoder import load_region_weights
from slpd_core.preflight.forecast import Machine
from slpd_core.preflight.outlines import find_outline_problems
from slpd_core.preflight.slides import SlideProbe
from slpd_core.runtime import escape_controls
from slpd_core.slides import ledger
from slpd_core.slides.outline_files import find_outlines
from slpd_core.wsi import identity

CHECKED_LIBRARIES = ("snakemake", "torch", "timm", "openslide-python")
MAX_LINES = 10  # of one kind; the others are counted
OK, NOTE, FAIL = "ok", "note", "FAIL"


class PreflightReport:
    """Prints the result of each check, and counts failures."""

    def __init__(self) -> None:
        self.failures = 0

    def add(self, verdict: str, topic: str, text: str) -> None:
        """Print a result.

        Args:
            verdict: OK, NOTE or FAIL.
            topic: The checked object; "" continues the line above.
            text: The result.
        """
        self.failures += verdict == FAIL
        print(escape_controls(f"  {verdict:4s}  {topic:12s} {text}", keep="\n\t"), flush=True)

    def add_lines(self, verdict: str, lines: Sequence[str], *, ending: str = "") -> None:
        """Print the first of several results of one kind, and the number of the others.

        Args:
            verdict: OK, NOTE or FAIL.
            lines: The results.
            ending: Text after "and ... more".
        """
        for line in lines[:MAX_LINES]:
            self.add(verdict, "", line)
        if len(lines) > MAX_LINES:
            self.add(NOTE, "", f"and {len(lines) - MAX_LINES:,} more{ending}")


def check_machine(report: PreflightReport, machine: Machine, requested_gpus: int) -> None:
    """Report versions, cores and memory, and fail where GPUs are missing.

    Args:
        report: The report.
        machine: The resources.
        requested_gpus: GPUs that jobs may use at a time.
    """
    versions = ", ".join(f"{library} {version(library)}" for library in CHECKED_LIBRARIES)
    report.add(OK, "environment", f"Python {platform.python_version()}, {versions}")
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    report.add(OK, "machine", f"{machine.cores} of {os.cpu_count()} cores, {memory_gb:.0f} GB of memory")
    count = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(count)})) or "none"
    if count < requested_gpus:
        report.add(
            FAIL,
            "GPUs",
            f"{requested_gpus} requested, but this machine has {count} ({names}); lower --resources "
            f"gpu={requested_gpus}",
        )
    elif not count:
        report.add(OK, "GPUs", "none: tokens and pretraining run on the CPU")
    elif requested_gpus:
        report.add(OK, "GPUs", f"{requested_gpus} of {count} ({names})")
    else:
        report.add(NOTE, "GPUs", f"{count} here ({names}), none in use: add --resources gpu={count}")


def check_packages(report: PreflightReport, needed: Mapping[str, tuple[str, str]]) -> None:
    """Fail where a package that the settings need is not installed.

    Args:
        report: The report.
        needed: Modules, to the setting that needs it and the extra that brings it.
    """
    for module, (setting, extra) in needed.items():
        if find_spec(module) is None:
            text = f"{setting} needs {module.replace('_', '-')}, which is not installed; pip install 'slpd[{extra}]'"
            report.add(FAIL, "packages", text)


def check_sheet(report: PreflightReport, sheet: pd.DataFrame, tasks: Mapping[str, str], doubts: Sequence[str]) -> None:
    """Report the size of the cohort, its labels, and the doubts about them.

    Args:
        report: The report.
        sheet: The cohort's sheet.
        tasks: Description of each task's labels.
        doubts: One line each.
    """
    report.add(OK, "sheet", f"{len(sheet):,} slides of {sheet['patient_id'].nunique():,} patients")
    n_alone = int((sheet["patient_id"] == sheet["slide_id"]).sum())
    if n_alone:
        text = f"{n_alone:,} slides are patients of their own, by their slide_id: where a patient has several slides, "
        report.add(NOTE, "", text + "name it in patient_id, so that it is not both trained on and tested")
    for task, description in tasks.items():
        report.add(OK, f"task {task}", description)
    report.add_lines(NOTE, doubts)


def check_external_sheet(
    report: PreflightReport, name: str, sheet: pd.DataFrame, scored: Sequence[str], ambiguities: Sequence[str]
) -> None:
    """Report the size of an external cohort, the tasks that it scores, and the ambiguities of its sheet.

    Args:
        report: The report.
        name: Of the external cohort.
        sheet: Its sheet, as `read_sheet` returns it.
        scored: Tasks whose labels are known.
        ambiguities: One line each.
    """
    tasks = f"labels of {', '.join(scored)}" if scored else "without labels: predicted, not scored"
    text = f"{name}: {len(sheet):,} slides of {sheet['patient_id'].nunique():,} patients, {tasks}"
    report.add(OK, "external", text)
    report.add_lines(NOTE, ambiguities)


def check_slides(report: PreflightReport, probes: Sequence[SlideProbe], on_bad_slide: str) -> list[SlideProbe]:
    """Report the slides that do not open, and remarks on those that do.

    Args:
        report: The report.
        probes: All slides.
        on_bad_slide: As ledger.on_bad_slide: "stop" makes a slide that does not open a failure.

    Returns:
        The slides that open.
    """
    good = [slide for slide in probes if not slide.problem]
    mpp = [slide.mpp for slide in good]
    mpp_range = f", at {min(mpp):.3g} to {max(mpp):.3g} um/px" if good else ""
    report.add(OK if good else FAIL, "slides", f"{len(good):,} of {len(probes):,} open{mpp_range}")
    problems = [slide.problem for slide in probes if slide.problem]
    report.add_lines(NOTE if on_bad_slide == "quarantine" else FAIL, problems)
    if problems:
        effect = "they would be excluded" if on_bad_slide == "quarantine" else "the first of them would stop the run"
        report.add(NOTE, "", f"{effect} (ledger.on_bad_slide: {on_bad_slide})")
    remarks = [f"{slide.slide_id}: {' '.join(slide.remarks)}" for slide in good if slide.remarks]
    report.add_lines(NOTE, remarks, ending=" slides with remarks; the ledger will have them all")
    return good


def check_copies(
    report: PreflightReport, sheets: Sequence[pd.DataFrame], labels: Mapping[str, pd.DataFrame] = MappingProxyType({})
) -> None:
    """Report slides of equal content; those of different patients, or of different labels of a task, are a failure.

    Args:
        report: The report.
        sheets: That of the cohort, then those of external cohorts.
        labels: Of each task, as `labels.read_labels` returns them.
    """
    rows = pd.concat(sheets)
    paths = {slide: Path(path) for slide, path in zip(rows["slide_id"], rows["path"], strict=True)}
    for ids in identity.find_copies(paths):
        by_sheet = [sheet[sheet["slide_id"].isin(ids)] for sheet in sheets]
        for i, copies in enumerate(by_sheet):
            if len(copies) > 1:
                differ, sentence = ledger.compare_copies(copies, external=i > 0)
                report.add(FAIL if differ else NOTE, "copies", sentence)
        for task, table in labels.items():
            same = table[table["slide_id"].isin(ids)]
            truth = same.drop(columns=["slide_id", "patient_id"], errors="ignore").drop_duplicates()
            if len(truth) > 1:
                values = " and ".join(", ".join(map(str, row)) for row in truth.itertuples(index=False, name=None))
                text = f"{', '.join(ids)} are the same slide, byte for byte, but {values} in task {task}"
                report.add(FAIL, "copies", f"{text}; correct the labels or remove all but one")
        for new in [slide for copies in by_sheet[1:] for slide in copies["slide_id"] if len(by_sheet[0])]:
            leak = ledger.describe_leak(by_sheet[0]["slide_id"].iloc[0])
            report.add(NOTE, "copies", f"{new}, to be predicted: {leak}")


def check_outlines(
    report: PreflightReport,
    files: Mapping[str, str],
    slides: Sequence[SlideProbe],
    folder: str,
    *,
    mask_origin: str | None = None,
    classes: Collection[str] | None = None,
    ignore: Collection[str] = (),
    threads: int = 1,
) -> tuple[list[SlideProbe], dict[str, Path]]:
    """Fail for each outline that cannot be used.

    Args:
        report: The report.
        files: By id, the files of all slides of the sheets.
        slides: Those that open.
        folder: The folder of outlines.
        mask_origin, classes, ignore, threads: As in `find_outline_problems`.

    Returns:
        The slides that have no outline or one that can be used; and by slide id, the outline.
    """
    outlines = find_outlines(folder, files)
    report.add(NOTE if outlines.unmatched else OK, "outlines", outlines.describe(len(files)))
    problems = find_outline_problems(
        slides, outlines.paths, mask_origin=mask_origin, classes=classes, ignore=ignore, threads=threads
    )
    report.add_lines(FAIL, [*problems.values()])
    return [slide for slide in slides if slide.slide_id not in problems], outlines.paths


def check_start(report: PreflightReport, init_from: str | None, shape: tuple[int, int, int, int, int]) -> None:
    """Fail where a run cannot begin with the encoder that it names.

    Args:
        report: The report.
        init_from: The encoder's file; one that another run has yet to write is not checked.
        shape: token_dim, embed_dim, depth, n_heads and grid.
    """
    if init_from and Path(init_from).is_file():
        try:
            load_region_weights(Path(init_from), shape)
        except ValueError as error:
            report.add(FAIL, "init_from", str(error))


def check_prototypes(report: PreflightReport, run: str, region_counts: Sequence[int], min_regions: int) -> None:
    """Report how many slides are too small to have prototypes.

    Args:
        report: The report.
        run: Name of the pretraining run.
        region_counts: Regions per sampled slide.
        min_regions: Regions from which on a slide has prototypes.
    """
    short = int((np.array(region_counts) < min_regions).sum())
    if short:
        effect = ": all would train as plain DINO" if short == len(region_counts) else ""
        text = f"{run}: {short} of {len(region_counts)} slides have fewer than {min_regions} regions{effect}"
        report.add(NOTE, "prototypes", text)


def check_disk(report: PreflightReport, results: Path, needed_gb: float) -> None:
    """Fail where the results have no room.

    Args:
        report: The report.
        results: The cohort's results folder.
        needed_gb: Size of all files that a run leaves, GB.
    """
    results.mkdir(parents=True, exist_ok=True)
    missing_gb = max(0.0, needed_gb - sum(path.stat().st_size for path in results.glob("tokens/*.h5")) / 1e9)
    free_gb = shutil.disk_usage(results).free / 1e9
    verdict = OK if missing_gb < free_gb else FAIL
    remedy = "" if verdict == OK else ": free some, or start on a larger disk (--directory)"
    report.add(verdict, "disk", f"{missing_gb:,.1f} GB to come, {free_gb:,.1f} free in {results}{remedy}")


def check_memory(report: PreflightReport, tokens_gb: float, available_gb: float) -> None:
    """Report whether pretraining keeps the tokens in memory; fail where they fit neither there nor on $TMPDIR.

    Args:
        report: The report.
        tokens_gb: Size of the tokens, GB.
        available_gb: Memory that a pretraining job has for them, GB.
    """
    scratch = tempfile.gettempdir()
    if tokens_gb <= available_gb:
        report.add(OK, "memory", f"{tokens_gb:,.1f} GB of tokens while pretraining, {available_gb:,.1f} available")
        return
    text = f"{tokens_gb:,.1f} GB of tokens exceed the {available_gb:,.1f} that a pretraining job has for them"
    if tokens_gb < shutil.disk_usage(scratch).free / 1e9:
        remedy = "--set-resources pretrain:mem_mb=... gives it more"
        report.add(NOTE, "memory", f"{text}: they are mapped from {scratch} ({remedy})")
    else:
        report.add(FAIL, "memory", f"{text}, and do not fit {scratch}; set TMPDIR to a folder with room for them")
