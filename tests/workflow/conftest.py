"""A way to run the real workflow on a tiny cohort of drawn slides."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.rows import Rows
from tests.workflow.planted_settings import load_settings

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())


class Done(subprocess.CompletedProcess[str]):
    """A run of Snakemake that has ended."""

    @property
    def jobs(self) -> dict[str, int]:
        """What it did, or of a dry run would do: rule -> number, without the target."""
        output = self.stdout + self.stderr
        if "Nothing to be done" in output:
            return {}
        table = re.search(r"^Job stats:\njob +count\n[- ]+\n((?:\w+ +\d+\n)+)", output, re.MULTILINE)
        assert table, output
        counts = {name: int(number) for name, number in (line.split() for line in table[1].splitlines())}
        return {name: number for name, number in counts.items() if name not in ("total", "all")}


class Snakemake:
    """Runs Snakemake on a folder with the tiny settings, sections of `settings` and of `overlay` merged over them."""

    def __init__(self, settings: dict) -> None:
        self.settings = settings

    def command(self, folder: Path, *arguments: str, overlay: dict | None = None) -> list[str]:
        """The command line; its settings are written into the folder."""
        configs = [folder / "tiny.yaml", folder / "overlay.yaml"]
        for path, values in zip(configs, (TINY, self.settings | (overlay or {})), strict=True):
            path.write_text(yaml.safe_dump(values))
        start = Path(__file__).parent / "snakemake_main.py"
        command = [sys.executable, str(start), "--cores", "2", "--directory", str(folder)]
        command += ["--snakefile", str(ROOT / "Snakefile"), "--nocolor"]
        return [*command, *arguments, "--configfile", *map(str, configs)]

    def __call__(self, folder: Path, *arguments: str, overlay: dict | None = None) -> Done:
        command, environment = self.command(folder, *arguments, overlay=overlay), {"COLUMNS": "200", "WARM_JOBS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | environment)
        return Done(done.args, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def rows() -> Callable[..., Rows]:
    """The rows of config.yaml with these keys of its sections, without Snakemake."""

    def make(tasks=("label",), scored=(), kinds=None, **sections) -> Rows:
        settings = load_settings(**sections)
        endpoints = {task: make_endpoint((kinds or {}).get(task, "classification"), ["x", "y"]) for task in tasks}
        return Rows(settings, Encoders(settings, ("a", "b"), tasks), endpoints, scored)

    return make


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    return Snakemake({})


@pytest.fixture(scope="session")
def small() -> Snakemake:
    """One run and one row: every stage, few jobs."""
    rows = {"mean_color": None, "patch_tokens": None, "dino": None, "slpd": ["vit_wsi"]}
    return Snakemake({"pretrain": {"runs": {"dino": False}}, "evaluate": {"classifiers": rows}})


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, worker_id, snakemake, fresh) -> Path:
    """A finished cohort and what it printed: made by the first process that needs it, changed by none."""
    root = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = root / "finished"
    with FileLock(root / "finished.lock"):
        if not (folder / "printed.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            cohort = fresh(folder / "cohort", with_bad=True)
            done = snakemake(cohort)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "printed.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, finished_once) -> tuple[Path, str]:
    """A cohort of four good slides, a torn one and a blank one, run to its report; its folder and what was printed."""
    folder = tmp_path_factory.mktemp("finished") / "cohort"
    shutil.copytree(finished_once / "cohort", folder, symlinks=True, copy_function=shutil.copy2)
    return folder, (finished_once / "printed.txt").read_text()


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory, finished_once, small) -> Path:
    """A copy of that cohort, with the settings of `small`."""
    folder = tmp_path_factory.mktemp("small") / "cohort"
    shutil.copytree(finished_once / "cohort", folder, symlinks=True, copy_function=shutil.copy2)
    done = small(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.jobs == {"report": 1}
    return folder


@pytest.fixture(scope="session")
def widened(tmp_path_factory, finished, snakemake) -> tuple[Path, dict, Done]:
    """A copy of that cohort with a compared patch encoder, a row of whitened features, protocols, a labeled external
    cohort, a search and a table; its folder, overlay and run.
    """
    folder = shutil.copytree(
        finished[0], tmp_path_factory.mktemp("widened") / "cohort", symlinks=True, copy_function=shutil.copy2
    )
    for name in ("fine-0", "coarse-0"):  # one byte longer: not the cohort's own
        (folder / f"{name}.tiff").write_bytes((folder / "slides" / f"{name}.tiff").read_bytes() + b"\0")
    rows = "slide_id,path,label\nnew,fine-0.tiff,größer\nother,coarse-0.tiff,coarse\n"
    (folder / "rome.csv").write_text(rows, encoding="utf-8")
    overlay = {
        "patch_encoder": {"compared": {"plain": {}}},
        "evaluate": {
            "classifiers": {"plain": ["dsmil", "logreg"], "whitened_mean_token": ["knn"]},
            "protocols": ["few_shot", "retrieval"],
        },
        "predict": {"sheet": "rome.csv"},
        "search": {"slides": ["fine-0", "new"], "k": 2},
        "report": {"tables": {"ours": {"cohorts": ["tiny"], "rows": ["slpd/vit_wsi"]}}},
    }
    done = snakemake(folder, "all", "predict", "tables", "search", overlay=overlay)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, overlay, done


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of that cohort's folder, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "copy", symlinks=True, copy_function=shutil.copy2)


@pytest.fixture(scope="session")
def results_of() -> Callable[[Path], dict[str, bytes]]:
    """Every artifact but for the times in it: name -> content. Pages, run.json and TensorBoard's files have some."""

    def read(folder: Path) -> dict[str, bytes]:
        results = folder / "results" / "tiny"
        paths = [path for path in results.rglob("*") if path.is_file() and path.name not in ("index.html", "run.json")]
        names = {path.relative_to(results).as_posix(): path for path in paths}
        timed = re.compile("logs/|benchmarks/|state/|.*/tensorboard/")
        found = {name: path.read_bytes() for name, path in names.items() if not timed.match(name)}
        return found

    return read


@pytest.fixture(scope="session")
def fresh(write_cohort) -> Callable[..., Path]:
    """Write a cohort of four slides, one name and one label not in ASCII, one slide dated tomorrow."""

    def write(folder: Path, with_bad: bool = False) -> Path:
        write_cohort(folder, patients=2, with_bad=with_bad)
        sheet = folder / "slides.csv"
        text = sheet.read_text().replace(",fine,", ",größer,").replace("coarse-1,coarse-1", "größe-1,coarse-1")
        sheet.write_text(text, encoding="utf-8")
        tomorrow = time.time() + 86_400
        os.utime(folder / "slides" / "fine-1.tiff", (tomorrow, tomorrow))
        return folder

    return write


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, fresh, small, results_of) -> tuple[Path, dict[str, bytes]]:
    """A finished small run that nothing happened to: its folder and its results."""
    folder = fresh(tmp_path_factory.mktemp("undisturbed") / "cohort")
    done = small(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert small(folder, "-n").jobs == {}
    return folder, results_of(folder)


@pytest.fixture
def cohort(undisturbed, tmp_path) -> Path:
    """A copy of that folder, to be disturbed."""
    return shutil.copytree(undisturbed[0], tmp_path / "cohort", copy_function=shutil.copy2)
