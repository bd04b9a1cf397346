"""A job's log, randomness and GPU slot."""

import logging
import multiprocessing
import time
from itertools import pairwise

import numpy as np
import pytest

from slpd_core import runtime


def test_a_generator_depends_on_what_it_is_for_only():
    first = runtime.generator(1, "kmeans", 3, "slide-7").integers(1 << 62, size=4)
    runtime.generator(1, "kmeans", 3, "slide-8").integers(9, size=100)
    np.testing.assert_array_equal(runtime.generator(1, "kmeans", 3, "slide-7").integers(1 << 62, size=4), first)
    for other in (
        (2, "kmeans", 3, "slide-7"),
        (1, "crops", 3, "slide-7"),
        (1, "kmeans", 4, "slide-7"),
        (1, "kmeans", 3),
    ):
        assert (runtime.generator(*other).integers(1 << 62, size=4) != first).any()


def test_a_job_logs_to_its_file_and_warns_on_the_terminal(tmp_path, capsys):
    with runtime.job(str(tmp_path / "logs" / "a.log"), "tissue a") as device:
        runtime.log.info("a detail")
        runtime.log.warning("a warning")
    text = (tmp_path / "logs" / "a.log").read_text()
    assert device == "cpu"
    assert "a detail" in text
    assert "done in" in text
    assert capsys.readouterr().err == "[tissue a] a warning\n"


def test_a_failure_is_one_line_and_its_traceback_is_in_the_log(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, runtime.job(str(tmp_path / "a.log"), "tissue a"):
        raise ValueError("a.svs: no mpp; write it into the sheet")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "[tissue a] a.svs: no mpp; write it into the sheet\n"
    assert "Traceback" in (tmp_path / "a.log").read_text()


def test_progress_passes_everything_on_and_ends_in_the_log(caplog):
    runtime.log.propagate = True
    with caplog.at_level(logging.INFO, logger="slpd"):
        assert list(runtime.progress(range(5), 5, "regions", "regions")) == [0, 1, 2, 3, 4]
    assert "regions: 5 of 5" in caplog.text


def hold_a_slot(start, taken, seconds):
    import os

    start.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with runtime.gpu_slot(1):
                begun = time.monotonic()
                time.sleep(seconds)
                taken.put((os.environ["CUDA_VISIBLE_DEVICES"], begun, time.monotonic()))
            return
        except RuntimeError:
            time.sleep(0.01)


def test_jobs_that_compete_never_share_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    context = multiprocessing.get_context("spawn")
    start, taken = context.Event(), context.Queue()
    jobs = [context.Process(target=hold_a_slot, args=(start, taken, 0.1)) for _ in range(8)]
    for job in jobs:
        job.start()
    start.set()
    held = [taken.get(timeout=90) for _ in jobs]
    for job in jobs:
        job.join()
    assert {device for device, _, _ in held} <= {"0", "1", "2"}
    for device in "012":
        spans = sorted((begun, ended) for name, begun, ended in held if name == device)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_more_gpus_than_the_machine_has_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(RuntimeError, match=r"2 GPUs asked for, 1 free of 1 .*--resources gpu=N"), runtime.gpu_slot(2):
        pass


def test_a_machine_without_gpus_works_on_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with runtime.gpu_slot(1) as held:
        assert held == 0


def test_what_slurm_chose_is_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with runtime.gpu_slot(1) as held:
        assert held == 1
