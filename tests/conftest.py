"""What all tests share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from slpd_core.runtime import limit_spinning, log

limit_spinning()  # before anything loads OpenMP

FIXTURES = ("slides", "pretraining", "evaluation", "endpoints")
pytest_plugins = [f"tests.fixtures.{chapter}" for chapter in FIXTURES]
settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")

SRUN = """#!{python}
import os, signal, subprocess, sys, time
options = [word for word in sys.argv[1:] if word.startswith("--")]
count = next(int(option.partition("=")[2]) for option in options if option.startswith("--ntasks="))
command = sys.argv[1 + len(options):]
tasks = [subprocess.Popen(command, env=os.environ | {{"SLURM_NODEID": str(node)}}) for node in range(count)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):
        [task.terminate() for task in tasks]
    time.sleep(0.05)
sys.exit(max(task.returncode for task in tasks))
"""


# Files of tests that take longest, in the order of their begin: so no process is left alone with one at the end, and
# only the first waits for the cohort that the workflow's tests share.
LONGEST = ("test_workflow.py", "test_evaluate.py", "test_cohort.py", "test_reruns.py", "test_export_runs.py")
# Files that `make test-fast` leaves out as well: they start many processes, or damage many files.
OTHERS = ("test_benchmarks.py", "test_ci.py", "test_examples.py", "test_extending.py", "test_package.py")
LONG = {*LONGEST, *OTHERS, "test_security.py", "test_fuzz.py", "test_forged.py", "test_layout.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Begin the longest files of tests first; mark the tests of LONG."""
    for item in items:
        if item.path.name in LONG:
            item.add_marker("long")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


# What a machine may lack where CI=true: a GPU, data, rights and kernels. All else .ci/tools installs.
MAY_LACK = (
    "needs a GPU",
    "no real slides",
    "no tool that composes slides",
    "mounted",
    "needs root",
    "only glibc",
    "no wheel",
    "no torchstain",
    "no segmentation-models-pytorch",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that is skipped where CI=true, unless it lacks what no package brings."""
    report = yield
    expected = hasattr(report, "wasxfail")  # pytest reports an expected failure as skipped
    if report.skipped and not expected and os.environ.get("CI") == "true":
        reason = report.longrepr[2]
        if not any(words in reason for words in MAY_LACK):
            report.outcome, report.longrepr = "failed", f"{reason}: a tool is missing where CI=true, see .ci/tools"
    return report


@pytest.fixture(autouse=True)
def log_as_it_begins(monkeypatch):
    """The package's log as no job has left it: a job keeps its lines from the root, where pytest listens."""
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """A Slurm job whose srun starts one task a node, all on this machine; ends the others when one fails."""
    path = tmp_path / "bin" / "srun"
    path.parent.mkdir()
    path.write_text(SRUN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")


@pytest.fixture(scope="session")
def run_notebook() -> Callable[..., str]:
    """Run the code of a notebook of examples/ in a folder, a text in it replaced; returns what it prints."""
    root = Path(__file__).parents[1]

    def run(name: str, folder: Path, replaced: str = "", by: str = "") -> str:
        cells = json.loads((root / "examples" / name).read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert replaced in code
        code = (code.replace(replaced, by) if replaced else code) + '\nprint("figures:", len(plt.get_fignums()))'
        environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def draw(seed: int, coarse: bool) -> np.ndarray:
    """A pink piece of tissue on white whose class is the size of its dark spots; uint8 (768, 1024, 3)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((768, 1024, 3), 244, np.uint8)
    pixels[64:704, 64:960] = (225, 150, 190)
    spot = 24 if coarse else 8
    spots = rng.random((640 // spot + 1, 896 // spot + 1)) < 0.3
    dark = np.kron(spots, np.ones((spot, spot), bool))[:640, :896]
    pixels[64:704, 64:960][dark] = (110, 60, 150)
    return pixels


@pytest.fixture(scope="session")
def write_cohort() -> Callable[..., None]:
    """Write slides.csv and its slides: `patients` a label, one slide each; if asked for, a torn and a blank one too."""
    from slpd_core.wsi.writer import write_slide

    def write(folder: Path, patients: int, with_bad: bool = False) -> None:
        slides = folder / "slides"
        slides.mkdir(parents=True)
        labels = {f"{label}-{number}": label for label in ("coarse", "fine") for number in range(patients)}
        for number, (slide, label) in enumerate(labels.items()):
            write_slide(slides / f"{slide}.tiff", draw(number, label == "coarse"), mpp=0.5)
        if with_bad:
            whole = (slides / "fine-0.tiff").read_bytes()
            (slides / "torn.tiff").write_bytes(whole[: len(whole) // 3])
            write_slide(slides / "blank.tiff", np.full((600, 600, 3), 244, np.uint8), mpp=0.5)
            labels |= {"torn": "fine", "blank": "coarse"}
        rows = [f"{slide},{slide},{label},slides/{slide}.tiff" for slide, label in labels.items()]
        (folder / "slides.csv").write_text("\n".join(["slide_id,patient_id,label,path", *rows]) + "\n")

    return write
