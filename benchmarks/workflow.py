"""Snakemake's own time: planning a cohort of many slides, and what a job takes beside its work.

A plan is `snakemake -n` with the runs, classifiers and ten folds of config.yaml, on slides of one byte. A job's
overhead is the time of its process, Python's start, imports and end, less that of its work, on a drawn cohort.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from slpd_core.demo.cohort import DemoCohort, run

ROOT = Path(__file__).parents[1]
PLANS = {1_000: (6, 1_000), 10_000: (60, 1_000)}  # slides: at most so many seconds and MB
# Stages that import PyTorch before they work; evaluate does so within its work.
WITH_TORCH = ("patch_encoder", "tokens", "pretrain", "embed")
MOST_SECONDS = {True: 4.0, False: 1.5}
SMALL: dict[str, Any] = {
    "sheet": {"path": "drawn/slides.csv"},
    "patch_encoder": {"source": "random"},
    "pretrain": {"epochs": 2, "prototype_start_epoch": 0, "warmup_epochs": 1},
    "folds": {"n_folds": 2, "val_fraction": 0.0},
    "evaluate": {"epochs": 2},
}


def snakemake(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run Snakemake in a folder; return its seconds and its own peak memory, MB."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    started = time.perf_counter()
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    spent = time.perf_counter() - started
    if process.returncode:
        sys.exit((folder / "output.txt").read_text()[-2000:])
    return spent, usage.ru_maxrss * 1024 / 1e6


def plan(folder: Path, slides: int) -> tuple[float, float]:
    """Plan a cohort twice; return the lesser seconds, and MB."""
    (folder / "slides").mkdir(parents=True)
    rows = ["slide_id,patient_id,label,path"]
    for number in range(slides):
        (folder / "slides" / f"{number}.svs").write_bytes(b" ")
        rows.append(f"slide-{number},patient-{number},{'AB'[number % 2]},slides/{number}.svs")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    return min(snakemake(folder, "-n", "--quiet", "all") for _ in range(2))


def overheads(folder: Path) -> dict[str, list[float]]:
    """Run a small cohort, one job at a time; return per stage the seconds of its jobs beside their work."""
    run(out=folder / "drawn", cohort=DemoCohort(1, 4, 2304), processes=1)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    snakemake(folder, "--configfile", str(ROOT / "cohorts" / "demo.yaml"), "small.yaml")
    results, seconds = folder / "results" / "demo", defaultdict(list)
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        name = path.relative_to(results / "benchmarks").with_suffix("")
        whole = float(path.read_text().splitlines()[1].split()[0])
        work = re.findall(r"done in ([\d.]+) s", (results / "logs" / name.with_suffix(".log")).read_text())[-1]
        seconds[name.parts[0]].append(whole - float(work))
    return seconds


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        print("| slides planned | s | at most | MB | at most |\n|---|---:|---:|---:|---:|")
        for slides, (most_seconds, most_mb) in PLANS.items():
            seconds, peak_mb = plan(Path(folder, str(slides)), slides)
            print(f"| {slides:,} | {seconds:.1f} | {most_seconds} | {peak_mb:.0f} | {most_mb:,} |", flush=True)
        print("\n| stage | jobs | s beside the work, median | at most |\n|---|---:|---:|---:|")
        for stage, beside in overheads(Path(folder)).items():
            most = MOST_SECONDS[stage in WITH_TORCH]
            print(f"| {stage} | {len(beside)} | {statistics.median(beside):.2f} | {most} |", flush=True)
