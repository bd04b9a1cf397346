"""The profile for Slurm, on a Slurm of this machine alone with GPUs that are none: a tiny cohort, to its report."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.cluster import one_node

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles" / "slurm"
NAME = "snakemake-executor-plugin-slurm"
PLUGIN = (f"{NAME}==2.8.0", f"{NAME}-jobstep==0.6.1", "throttler==1.2.3")
ONE_ROW = {
    "pretrain": {"runs": {"slpd": False}},
    "evaluate": {"classifiers": {"mean_color": None, "dino": None, "slpd": None, "patch_tokens": ["knn"]}},
}
SLIDES = ("coarse-0", "coarse-1", "fine-0", "fine-1")
SECONDS = 600  # at most, for the run
# Whether a job has ended is looked up 8 s after it was submitted, and less and less often then.
QUICK = ("--slurm-init-seconds-before-status-checks=8", "--seconds-between-status-checks=8", "--latency-wait=5")


@pytest.fixture(scope="module")
def slurm() -> None:
    """Leaves out what needs Slurm where it cannot run."""
    if reason := one_node.missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory, slurm) -> Path:
    """A folder with the executor plugin; not the environment, where each start of Snakemake would look for Slurm."""
    folder = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(folder), *PLUGIN], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip does not get {PLUGIN[0]}: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory, plugin, write_cohort) -> tuple[Path, dict[str, dict[str, str]]]:
    """A cohort run through the profile: its results, and what Slurm says of each job, by its rules and wildcards."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, patients=2)
    configs = [ROOT / "tests" / "workflow" / "tiny.yaml", folder / "one_row.yaml"]
    configs[1].write_text(yaml.safe_dump(ONE_ROW))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(PROFILE), "--nocolor", "--slurm-status-command", "squeue", *QUICK]
    command += ["--set-threads", "pretrain=1", "embed=1", "--configfile", *map(str, configs)]
    with one_node.one_node() as environment:
        environment["PYTHONPATH"] = str(plugin)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        show = ["scontrol", "--oneliner", "show", "jobs"]
        said = subprocess.run(show, env=environment, capture_output=True, text=True, timeout=SECONDS).stdout
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [dict(re.findall(r"(\S+?)=(\S+)", line)) for line in said.splitlines()]
    assert max(Counter(job["Comment"] for job in jobs).values()) == 1, said
    return folder / "results" / "tiny", {job["Comment"].removeprefix("rule_"): job for job in jobs}


def test_the_run_ends_with_its_report(ran):
    results, jobs = ran
    assert {job["JobState"] for job in jobs.values()} == {"COMPLETED"}
    table = pd.read_csv(results / "report" / "label" / "table.csv")
    assert table[["features", "classifier"]].to_numpy().tolist() == [["patch", "KNN (mean)"]]
    assert (results / "report" / "index.html").stat().st_size


def test_the_jobs_of_all_slides_are_two_of_slurms(ran):
    results, jobs = ran
    for stage, suffix in (("tissue", "geojson"), ("regions", "h5"), ("tokens", "h5")):
        assert all((results / stage / f"{slide}.{suffix}").exists() for slide in SLIDES)
        assert sum(stage in name for name in jobs if not name.startswith("evaluate")) == 1, jobs.keys()
    assert "slides_regions_tissue" in jobs
    assert jobs["tokens_tokens"]["TimeLimit"] == "00:40:00"  # of four slides, one after the other
    assert jobs["tokens_tokens"]["NumCPUs"] == "8"  # they read and decode regions for the GPU


def test_jobs_that_ask_for_a_gpu_hold_one_and_the_others_none(ran):
    results, jobs = ran
    with_gpu = {name for name, job in jobs.items() if job.get("TresPerJob") == "gres:gpu:1"}
    assert with_gpu == {"tokens_tokens", "pretrain_wildcards_dino", "embed_wildcards_dino"}
    assert {name for name, job in jobs.items() if job["Partition"] == "gpu"} == with_gpu
    for log in [results / "logs" / "tokens" / f"{slide}.log" for slide in SLIDES]:
        assert "cannot use the 1 GPU(s) this job was given" in log.read_text()


@pytest.mark.usefixtures("slurm")
def test_a_cluster_that_is_left_amid_a_job_leaves_nothing_behind():
    job = ["sbatch", "--output=/dev/null", "--wrap=sleep 600"]
    running = ["squeue", "--noheader", "--states=running"]
    with one_node.one_node() as environment:
        folder = Path(environment["PATH"].split(os.pathsep)[0]).parent
        subprocess.run(job, env=environment, capture_output=True, check=True)
        one_node.wait_for("the job", lambda: one_node.answers(running, environment, "localhost"))
        assert len(one_node.mine(folder)) > len(one_node.DAEMONS)
    assert one_node.mine(folder) == []
    assert not folder.exists()
