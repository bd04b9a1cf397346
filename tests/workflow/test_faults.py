"""Whatever happens to a run, the next one ends where an undisturbed one does, bit for bit."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from slpd_core import artifacts

pytestmark = pytest.mark.slow
T = TypeVar("T")
SCRIPT = re.compile(r"(.+)/\.snakemake/scripts/tmp\w+\.(\w+)\.py")  # a job's, of a folder and a stage
DINO = yaml.safe_load((Path(__file__).parent / "dino.yaml").read_text())
STAGES = {
    *("sheet", "tissue", "regions", "patch_encoder", "tokens", "ledger", "slide_index", "pretrain", "embed"),
    *("gallery", "folds", "evaluate", "attention", "heatmaps", "report"),
}


@pytest.fixture(scope="module")
def start(small) -> Callable[..., subprocess.Popen[str]]:
    """Start a run in a process group of its own."""

    def start(folder: Path, *arguments: str, overlay: dict | None = None, **environment: str) -> subprocess.Popen[str]:
        command = small.command(folder, *arguments, overlay=overlay)
        return subprocess.Popen(
            command,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"COLUMNS": "200"} | environment,
        )

    return start


def running(folder: Path) -> dict[int, str]:
    """The job processes of a run: number -> stage."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            script = SCRIPT.fullmatch(words[1]) if len(words) > 1 else None
            if script and script[1] == str(folder):
                found[int(path.parent.name)] = script[2]
    return found


def until(condition: Callable[[], T], seconds: float = 120) -> T:
    """Wait for what is to come true; gives it."""
    last = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < last, "it does not come true"
        time.sleep(0.02)
    return found


def wait_for(folder: Path, run: subprocess.Popen[str], stages: set[str]) -> tuple[int, str] | None:
    """The first job of one of these stages, once it runs; None where the run ends without."""
    found: list[tuple[int, str]] = []

    def seen() -> bool:
        found.extend((number, stage) for number, stage in running(folder).items() if stage in stages)
        return bool(found) or run.poll() is not None

    until(seen)
    return found[0] if found else None


def kill_each(folder: Path, stages: set[str], begin: Callable[[], subprocess.Popen[str]]) -> None:
    """Begin runs until a job of each stage was killed."""
    left = set(stages)
    for _ in range(2 * len(stages)):
        run = begin()
        while found := wait_for(folder, run, left):
            os.kill(found[0], signal.SIGKILL)
            left.discard(found[1])
        run.communicate()
        if not left:
            return
    assert not left


@pytest.fixture
def finish(start, results_of, undisturbed) -> Callable[[Path], str]:
    """Run to the end, what is missing by name; the results are those of the undisturbed run. Gives what was printed."""
    results, expected = Path("results", "tiny"), undisturbed[1]

    def finish(folder: Path) -> str:
        missing = [str(results / name) for name in expected if not (folder / results / name).exists()]
        run = start(folder, *(name for name in missing if not name.endswith("checkpoint.pt")), "all")
        output, _ = run.communicate()
        assert run.returncode == 0, output
        found = results_of(folder)
        assert set(found) == set(expected)
        assert [name for name, content in found.items() if content != expected[name]] == []
        assert not list(folder.rglob("*.part"))
        return output

    return finish


def test_a_killed_job_of_any_stage_is_made_up_for(tmp_path, fresh, start, finish):
    folder = fresh(tmp_path / "cohort")
    kill_each(folder, STAGES, lambda: start(folder))
    finish(folder)


@pytest.mark.parametrize(
    ("target", "overlay", "stages"),
    [
        ("slides", DINO, {"patches", "patch_encoder"}),
        ("predict", {"predict": {"sheet": "new.csv"}}, {"sheet", "predict", "labels", "external"}),
        ("tables", {"report": {"tables": {"ours": {"cohorts": ["tiny"], "rows": ["slpd/vit_wsi"]}}}}, {"tables"}),
    ],
    ids=["trained patch encoder", "predict", "tables"],
)
def test_a_killed_job_of_a_stage_of_some_runs_only(cohort, small, start, results_of, target, overlay, stages):
    shutil.copy(cohort / "slides" / "coarse-0.tiff", cohort / "new.tiff")
    (cohort / "new.csv").write_text("slide_id,path,label\nnew,new.tiff,coarse\n")
    other = shutil.copytree(cohort, cohort.with_name("other"), copy_function=shutil.copy2)
    done = small(cohort, target, overlay=overlay)
    assert done.returncode == 0, done.stderr
    kill_each(other, stages, lambda: start(other, target, overlay=overlay))
    done = small(other, target, overlay=overlay)
    assert done.returncode == 0, done.stderr
    assert results_of(other) == results_of(cohort)
    assert not list(other.rglob("*.part"))


def test_a_killed_snakemake_is_made_up_for(tmp_path, fresh, start, small, finish):
    """With its jobs, and without: they then go on beside those of the next run."""
    folder = fresh(tmp_path / "cohort")
    for number, stage in enumerate(("tokens", "pretrain", "evaluate")):
        run = start(folder)
        assert wait_for(folder, run, {stage})
        os.kill(run.pid, signal.SIGKILL) if number % 2 else os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
        refused = small(folder)
        assert refused.returncode != 0
        assert "--unlock" in refused.stderr
        assert small(folder, "--unlock").returncode == 0
    finish(folder)


def test_a_cluster_that_ends_a_job_loses_nothing(cohort, start, finish):
    """SIGTERM some time before SIGKILL: the job stops at the next step, the next run goes on from there."""
    shutil.rmtree(cohort / "results" / "tiny" / "pretrain")
    log = cohort / "results" / "tiny" / "logs" / "pretrain" / "slpd.log"
    log.unlink()
    run = start(cohort)
    number, _ = wait_for(cohort, run, {"pretrain"})
    until(lambda: log.exists() and "regions of" in log.read_text(encoding="utf-8"))
    os.kill(number, signal.SIGTERM)
    until(lambda: number not in running(cohort), seconds=30)
    output, _ = run.communicate()
    assert run.returncode != 0
    assert "pretrain slpd] stopped after" in output
    finish(cohort)


def test_two_runs_at_once_on_one_folder_are_refused(cohort, start, small, undisturbed, results_of):
    shutil.rmtree(cohort / "results" / "tiny" / "embed")
    first = start(cohort)
    assert wait_for(cohort, first, {"embed"})
    second = small(cohort)
    assert second.returncode != 0
    assert "cannot be locked" in second.stderr
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert results_of(cohort) == undisturbed[1]


@pytest.mark.parametrize(
    ("name", "user", "made"),
    [
        ("tissue/coarse-0.geojson", "regions", "regions/coarse-0.h5"),
        ("regions/coarse-0.h5", "tokens", "tokens/coarse-0.h5"),
        ("patch_encoder/weights.safetensors", "tokens", "tokens/coarse-0.h5"),
        ("tokens/fine-0.h5", "pretrain", "pretrain/slpd/encoder.safetensors"),
        ("ledger/ledger.parquet", "folds", "folds/label/folds.parquet"),
        ("pretrain/slpd/encoder.safetensors", "embed", "embed/slpd.parquet"),
        ("pretrain/slpd/prototypes.h5", "gallery", "gallery/slpd.png"),
        ("embed/slpd.parquet", "evaluate", "evaluate/label/slpd/vit_wsi/fold0.parquet"),
        ("folds/label/folds.parquet", "evaluate", "evaluate/label/slpd/vit_wsi/fold0.parquet"),
        ("evaluate/label/slpd/vit_wsi/fold1.safetensors", "attention", "attention/label/slpd/vit_wsi.parquet"),
        ("evaluate/label/slpd/vit_wsi/fold0.parquet", "report", "report/label/table.csv"),
        ("tissue/coarse-0.png", "regions", "regions/coarse-0.png"),
        ("heatmaps/label/slpd/vit_wsi.jpg", "report", "report/label/table.csv"),
    ],
)
def test_a_truncated_artifact_is_named_with_its_remedy(cohort, start, undisturbed, results_of, name, user, made):
    path, target = Path("results", "tiny", name), Path("results", "tiny", made)
    stat = (cohort / path).stat()
    os.truncate(cohort / path, stat.st_size * 2 // 3)
    os.utime(cohort / path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (cohort / target).unlink()
    run = start(cohort, str(target))
    output, _ = run.communicate()
    assert run.returncode != 0, output
    remedy = f"delete the file and rebuild it: snakemake --cores all {path}"
    assert re.search(rf"^\[{user}.*{re.escape(str(path))}: .*{re.escape(remedy)}", output, re.MULTILINE), output
    (cohort / path).unlink()
    run = start(cohort, str(path))
    output, _ = run.communicate()
    assert run.returncode == 0, output
    found = results_of(cohort)
    assert found[name] == undisturbed[1][name]


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory over a folder; skips where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("stage", "folder", "kilobytes", "target"),
    [
        ("tokens", "tokens", 16, "results/tiny/tokens/coarse-0.h5"),
        ("pretrain", "pretrain/slpd", 64, "all"),
        ("report", "report", 64, "all"),
    ],
)
def test_a_full_disk_leaves_nothing_half_written(cohort, start, stage, folder, kilobytes, target, finish):
    path = cohort / "results" / "tiny" / folder
    shutil.rmtree(path)
    with small_disk(path, f"size={kilobytes}k"):
        run = start(cohort, target)
        output, _ = run.communicate()
        assert run.returncode != 0
        named = rf"No space left on device; make room and run snakemake again: 'results/tiny/{folder}/"
        assert re.search(rf"^\[{stage}.*{named}", output, re.MULTILINE), output
        assert "SIG" not in output
        assert not list(path.rglob("*.part"))
        for written in path.glob("*.h5"):
            artifacts.read_tokens(written)
    finish(cohort)


def test_a_read_only_folder_is_named(cohort, start, finish):
    path = cohort / "results" / "tiny" / "embed"
    shutil.rmtree(path)
    with small_disk(path, "ro"):
        run = start(cohort)
        output, _ = run.communicate()
    assert run.returncode != 0
    assert re.search(r"Read-only file system.*embed", output), output
    finish(cohort)


def test_results_that_are_read_only_are_looked_at_and_not_touched(cohort, small):
    results = cohort / "results"
    done = subprocess.run(["mount", "--bind", results, results], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
        assert small(cohort, "-n").jobs == {}
        done = small(cohort, overlay={"folds": {"val_fraction": 0.3}})
        assert done.returncode != 0
        assert re.search(r"Write-protected output files for rule \w+:\n +output: results/tiny/", done.stderr)
    finally:
        subprocess.run(["umount", results], check=True)
    assert small(cohort, "-n").jobs == {}


def test_a_slide_that_goes_missing_is_named_and_one_replaced_is_read_anew(cohort, start, finish):
    slides = cohort / "slides"
    (slides / "coarse-0.tiff").rename(cohort / "kept")
    run = start(cohort)
    output, _ = run.communicate()
    assert run.returncode != 0
    assert "slide 'coarse-0': no file" in output
    # The same pixels in another file: byte for byte it would be one slide of two patients.
    (slides / "coarse-0.tiff").write_bytes((slides / "coarse-1.tiff").read_bytes() + b"\0")
    os.utime(slides / "coarse-0.tiff", (1e9, 1e9))  # an old file
    run = start(cohort, "slides")
    output, _ = run.communicate()
    assert run.returncode == 0, output
    tokens = [cohort / "results" / "tiny" / "tokens" / f"{slide}.h5" for slide in ("coarse-0", "größe-1")]
    mine, theirs = (artifacts.read_tokens(path)[0].tokens for path in tokens)
    assert (mine == theirs).all()
    (cohort / "kept").replace(slides / "coarse-0.tiff")
    finish(cohort)


def test_artifacts_of_a_clock_that_was_ahead_are_taken_as_they_are(cohort, start, finish):
    tomorrow = time.time() + 86_400
    for path in (cohort / "results").rglob("*.*"):
        os.utime(path, (tomorrow, tomorrow))
    shutil.rmtree(cohort / "results" / "tiny" / "report")
    output = finish(cohort)
    assert "rule report" in output
    assert "rule evaluate" not in output


def test_locale_and_time_zone_change_nothing(tmp_path, fresh, start, undisturbed, results_of):
    folder = fresh(tmp_path / "cohort")
    run = start(folder, LC_ALL="C", TZ="Pacific/Kiritimati")
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert results_of(folder) == undisturbed[1]
