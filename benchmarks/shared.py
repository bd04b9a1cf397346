"""A machine that is shared: the work of each stage beside one busy process, against the same work on a quiet machine.

A drawn cohort is run whole, one job at a time on two threads, and each stage's seconds are those that its logs state.
The step of the paper's size runs in a process of its own. `as it comes` leaves OpenMP to spin as it does by default.
"""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.workflow import ROOT, SMALL
from slpd_core.demo.cohort import DemoCohort, run

MOST = 3.5  # times the quiet seconds
THREADS = 2
STAGES = ("tissue", "regions", "patches", "patch_encoder", "tokens", "pretrain", "embed", "folds", "evaluate", "report")
SETTINGS = SMALL | {
    "patch_encoder": {"dino": {"epochs": 1, "batch_size": 16}},
    "patches": {"patches_per_slide": 8},
    "pretrain": SMALL["pretrain"] | {"runs": {"dino": False}},
    "evaluate": {"epochs": 2, "classifiers": {"mean_color": None, "dino": None, "patch_tokens": None, "slpd": ["mil"]}},
}
# What a way adds to the environment, and its busy processes.
WAYS: dict[str, tuple[dict[str, str], int]] = {
    "quiet": ({}, 0),
    "busy": ({}, 1),
    "as it comes": ({"GOMP_SPINCOUNT": "300000"}, 1),
}
STEP = """
import torch
from benchmarks import step
step.ROUNDS["cpu"] = 1
print(step.timed("ours", "fp32", 64, "cpu")[0])
"""


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


@contextmanager
def neighbors(count: int) -> Iterator[None]:
    """Start busy processes for the time of the block."""
    busy = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def run_stages(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Run the drawn cohort from its slides on; return the seconds of work of each stage."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", str(THREADS)]
    command += ["--set-threads", *(f"{stage}={THREADS}" for stage in STAGES), f"evaluate_folds={THREADS}"]
    command += ["--quiet", "all", "--configfile", str(ROOT / "cohorts" / "demo.yaml"), "small.yaml"]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    logs, seconds = folder / "results" / "demo" / "logs", dict.fromkeys(STAGES, 0.0)
    for path in sorted(logs.rglob("*.log")):
        if (stage := path.relative_to(logs).parts[0]) in seconds:
            seconds[stage] += float(re.findall(r"done in ([\d.]+) s", path.read_text())[-1])
    return seconds


def run_step(environment: dict[str, str]) -> float:
    """Run a step of stage two at the paper's size, batch 64; return its seconds."""
    command = [sys.executable, "-c", STEP]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the table."""
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(out=folder / "drawn", cohort=DemoCohort(1, 4, 2304), processes=1)
        (folder / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
        for way, (environment, count) in WAYS.items():
            with neighbors(count):
                step = {"pretrain, a step of the paper's size": run_step(environment)}
                measured[way] = run_stages(folder, environment) | step
    print(f"One busy process beside {THREADS} threads; at most {MOST} x the quiet seconds\n")
    print("| stage | quiet, s | beside a busy process | ratio | as it comes, ratio |\n|---|---:|---:|---:|---:|")
    for stage, quiet in measured["quiet"].items():
        busy, default = (measured[way][stage] / quiet for way in ("busy", "as it comes"))
        over = f" (more than {MOST})" if busy > MOST else ""
        print(
            f"| {stage} | {quiet:.1f} | {measured['busy'][stage]:.1f} | {busy:.1f}{over} | {default:.1f} |", flush=True
        )
