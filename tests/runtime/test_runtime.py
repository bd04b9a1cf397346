"""A job's log, randomness and GPU slot."""

import contextlib
import fcntl
import gc
import logging
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from slpd_core import runtime
from slpd_core.runtime import gpus as locks
from slpd_core.runtime import jobs


@pytest.fixture(autouse=True)
def one_machine(monkeypatch, tmp_path):
    """No device, no Slurm, lock files of its own, and short waits, whatever machine the tests run on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(locks.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TRIES", 0.02)
    for library in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")


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


def test_imports_are_kept_from_the_garbage_collector_and_what_comes_after_is_not():
    class Node:
        pass

    def cycle():
        node = Node()
        node.itself = node
        return weakref.ref(node)

    gc.collect()
    try:
        with runtime.fast_imports():
            assert not gc.isenabled()
            kept = cycle()
        assert gc.isenabled()
        with pytest.raises(ImportError), runtime.fast_imports():
            raise ImportError
        assert gc.isenabled()
        lost = cycle()
        gc.collect()
        assert kept() is not None
        assert lost() is None
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("environment", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")],
    ids=["ours", "the user's count", "the user's policy"],
)
def test_threads_of_openmp_that_wait_sleep_soon_unless_the_user_says_otherwise(environment, spins):
    """OpenMP itself prints what it goes by when a process, here the child of a job, loads it."""
    child = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import torch']))"
    job = f"from slpd_core import runtime\nwith runtime.fast_imports():\n    {child}"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = kept | {"OMP_DISPLAY_ENV": "verbose"} | environment
    printed = subprocess.run([sys.executable, "-c", job], env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in printed.stderr:
        pytest.skip("only glibc: PyTorch has another OpenMP here")
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\w+)'", printed.stderr)) == {spins}


def test_a_job_logs_to_its_file_and_warns_on_the_terminal(tmp_path, capsys):
    with runtime.job(str(tmp_path / "logs" / "a.log"), "tissue a") as device:
        runtime.log.info("a detail")
        runtime.log.warning("a warning")
    text = (tmp_path / "logs" / "a.log").read_text()
    assert device == "cpu"
    assert "a detail" in text
    assert "done in" in text
    assert capsys.readouterr().err == "[tissue a] a warning\n"


def test_a_job_and_its_other_processes_write_one_log(tmp_path):
    path = tmp_path / "a.log"
    for _ in range(2):  # a job that is started again appends
        with runtime.job(str(path), "a"):
            runtime.log.info("before")
            for number in range(2):
                line = f"runtime.log.info('from {number}')"
                code = f"from slpd_core import runtime\nwith runtime.job({str(path)!r}, 'b'): {line}"
                subprocess.run([sys.executable, "-c", code], check=True)
                runtime.log.info("after %d", number)
    lines = [line.split(" INFO ")[1] for line in path.read_text().splitlines()]
    said = [line for line in lines if not re.match("---- (b |a is done)", line)]
    assert said == ["---- a begins ----", "before", "from 0", "after 0", "from 1", "after 1"] * 2


def test_the_attempts_that_a_finished_job_went_on_from_are_summed(tmp_path, monkeypatch):
    now, path = [1_700_000_000.0], tmp_path / "a.log"
    monkeypatch.setattr(logging.time, "time", lambda: now[0])

    def attempt(seconds, stop=None, name="pretrain a", pause=1000):
        with contextlib.suppress(SystemExit), runtime.job(str(path), name):
            now[0] += seconds
            runtime.log.info("an epoch")
            if stop:
                raise stop
        now[0] += pause  # until the next attempt

    attempt(5, ValueError("failed"))
    attempt(7)
    assert runtime.read_earlier_seconds(path) == pytest.approx(5)
    attempt(60)
    assert runtime.read_earlier_seconds(path) == 0, "those before it was last done are of another training"
    attempt(30, SystemExit(runtime.TERMINATED), pause=0)
    attempt(3, name="pretrain a, node 0")  # another process of that attempt
    attempt(400, SystemExit(9))
    assert runtime.read_earlier_seconds(path) == 0, "it is not done yet"
    attempt(2)
    assert runtime.read_earlier_seconds(path) == pytest.approx(30 + 3 + 400)


def test_a_failure_is_one_line_and_its_traceback_is_in_the_log(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, runtime.job(str(tmp_path / "a.log"), "tissue a"):
        raise ValueError("a.svs: no mpp; write it into the sheet")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "[tissue a] a.svs: no mpp; write it into the sheet\n"
    assert "Traceback" in (tmp_path / "a.log").read_text()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("boom"), "KeyError: 'boom' (unexpected: the traceback is in {log})"),
        (AssertionError("two\nlines"), "AssertionError: two lines (unexpected: the traceback is in {log})"),
        (ZeroDivisionError(), "ZeroDivisionError (unexpected: the traceback is in {log})"),
        (NotImplementedError(), "NotImplementedError (unexpected: the traceback is in {log})"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (FileNotFoundError(2, "No such file", "a.svs"), "[Errno 2] No such file: 'a.svs'"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device (the traceback is in {log})"),
    ],
    ids=repr,
)
def test_every_failure_is_one_line_and_its_traceback_is_in_the_log(tmp_path, capsys, error, line):
    log = tmp_path / "a.log"
    with pytest.raises(SystemExit) as stop, runtime.job(str(log), "a"):
        raise error
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"[a] {line.format(log=log)}\n"
    assert "Traceback" in log.read_text()
    assert "test_runtime.py" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_a_job_clean_up(tmp_path, capsys, number):
    left = tmp_path / "half written"
    previous = signal.getsignal(signal.SIGTERM)

    def work():
        left.touch()
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # a second one, while cleaning up
            left.unlink()

    with pytest.raises(SystemExit) as stop, runtime.job(str(tmp_path / "a.log"), "a"):
        work()
    assert stop.value.code == 143
    assert not left.exists()
    assert re.fullmatch(r"\[a\] stopped after 0\.\d s: canceled, or at its time limit\n", capsys.readouterr().err)
    assert "stopped after" in (tmp_path / "a.log").read_text()
    assert signal.getsignal(signal.SIGTERM) is previous
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_fails_because_it_was_interrupted_is_stopped_too(tmp_path, capsys):
    def work():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    with pytest.raises(SystemExit) as stop, runtime.job(str(tmp_path / "a.log"), "a"):
        work()
    assert stop.value.code == runtime.TERMINATED
    assert "[a] stopped after" in capsys.readouterr().err
    assert "Traceback" not in (tmp_path / "a.log").read_text()


def test_an_exit_of_the_work_itself_is_passed_on(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, runtime.job(str(tmp_path / "a.log"), "a"):
        raise SystemExit(3)
    assert stop.value.code == 3
    assert capsys.readouterr().err == ""


def test_sigterm_is_as_before_after_a_job(tmp_path):
    def own(*_):
        pass

    previous = signal.signal(signal.SIGTERM, own)
    try:
        with runtime.job(str(tmp_path / "a.log"), "a"):
            assert signal.getsignal(signal.SIGTERM) is not own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_job_outside_the_main_thread_leaves_signals_alone(tmp_path):
    previous = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with runtime.job(str(tmp_path / "a.log"), "a"):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [previous]


def blas_threads():
    """Threads of the OpenBLAS that numpy has loaded."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_job_limits_the_threads_of_what_is_already_loaded(tmp_path):
    with threadpool_limits(2):
        assert blas_threads() == {2}
        with runtime.job(str(tmp_path / "a.log"), "a", threads=1):
            assert blas_threads() == {1}
            assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"
        assert blas_threads() == {2}


def test_a_job_limits_the_threads_of_torch_in_each_of_its_threads(tmp_path):
    import torch

    def threads_of_a_worker():
        with ThreadPoolExecutor(1) as worker:
            return worker.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with runtime.job(str(tmp_path / "a.log"), "a", threads=1):
            assert torch.get_num_threads() == 1
            assert threads_of_a_worker() == 1
    finally:
        torch.set_num_threads(before)


def test_progress_passes_everything_on_and_ends_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="slpd"):
        assert list(runtime.progress(range(5), 5, "regions", "regions")) == [0, 1, 2, 3, 4]
    assert "regions: 5 of 5" in caplog.text


def hold_slots(gpus, folder, start, taken, seconds):
    locks.tempfile.tempdir = folder
    locks.SECONDS_BETWEEN_TRIES = 0.02
    start.wait()
    with runtime.gpu_slot(gpus):
        begun = time.monotonic()
        time.sleep(seconds)
        taken.put((os.environ["CUDA_VISIBLE_DEVICES"].split(","), begun, time.monotonic()))


def compete(wanted, folder):
    """Run a process for each number of devices wanted, at once; gives what each held: devices, begun, ended."""
    context = multiprocessing.get_context("spawn")
    start, taken = context.Event(), context.Queue()
    jobs = [context.Process(target=hold_slots, args=(gpus, str(folder), start, taken, 0.1)) for gpus in wanted]
    for job in jobs:
        job.start()
    start.set()
    held = [taken.get(timeout=90) for _ in jobs]
    for job in jobs:
        job.join()
    return held


@pytest.mark.parametrize("wanted", [[1] * 8, [2, 1, 2, 3]], ids=["one each", "several each"])
def test_jobs_that_compete_wait_and_never_share_a_gpu(monkeypatch, tmp_path, wanted):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    held = compete(wanted, tmp_path)
    assert sorted(len(devices) for devices, _, _ in held) == sorted(wanted)
    assert {device for devices, _, _ in held for device in devices} <= {"0", "1", "2"}
    for device in "012":
        spans = sorted((begun, ended) for devices, begun, ended in held if device in devices)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_an_attempt_after_one_that_failed_waits_and_holds_no_gpu_meanwhile(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    held = []
    lock = tmp_path / "slpd-gpu-0.lock"
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: held.append((seconds, lock.exists())))
    monkeypatch.setattr(jobs, "pytorch_can_use", lambda _: True)
    with runtime.job(str(tmp_path / "log"), "tokens a", gpus=1, wait_s=40) as device:
        assert device == "cuda"
        assert lock.exists()
    assert held == [(40, False)]
    assert "waiting 40 s before this one" in (tmp_path / "log").read_text()
    with runtime.job(str(tmp_path / "log"), "tokens a"):
        pass
    assert held == [(40, False)]


def test_a_job_that_waits_says_so_once(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with contextlib.ExitStack() as other:
        locks._lock_free_ones(1, ["1"], other)
        threading.Timer(0.3, other.close).start()
        with runtime.job(str(tmp_path / "a.log"), "a", gpus=2) as device:
            assert device == "cuda"
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    text = (tmp_path / "a.log").read_text()
    assert text.count("waiting for 2 GPU(s): other jobs hold too many of 0, 1") == 1


def test_more_gpus_than_the_machine_has_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with (
        pytest.raises(RuntimeError, match=r"2 GPUs asked for, 1 on this machine \(5\): .*--resources gpu=N"),
        runtime.gpu_slot(2),
    ):
        pass


@pytest.mark.parametrize(
    ("named", "devices"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        (" 0 , 3 ", ["0", "3"]),
        ("0,1,-1,2", ["0", "1"]),
        ("0,0", []),
        ("MIG-GPU-8932f937/1/0,GPU-8932f937", ["MIG-GPU-8932f937/1/0", "GPU-8932f937"]),
    ],
)
def test_devices_are_those_cuda_shows(monkeypatch, named, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert locks._visible_devices() == devices
    with runtime.gpu_slot(1) as held:
        assert held == bool(devices)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == (devices[0] if devices else named)


def test_a_machine_without_gpus_works_on_the_cpu_and_says_so(caplog):
    with runtime.gpu_slot(1) as held:
        assert held == 0
    assert "1 GPU(s) asked for, none found" in caplog.text


@pytest.mark.parametrize("slurm", [False, True])
def test_devices_that_pytorch_cannot_use_leave_the_work_to_the_cpu(monkeypatch, tmp_path, capsys, slurm):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "77")
    with runtime.job(str(tmp_path / "a.log"), "tokens s", gpus=1) as device:
        assert device == "cpu"
    told = r"PyTorch [\d.]+\S* cannot use the 1 GPU\(s\) this job was given on \S+: working on the CPU; nvidia-smi"
    assert re.search(r"\[tokens s\] " + told, capsys.readouterr().err)
    assert re.search(told, (tmp_path / "a.log").read_text())


def test_a_job_that_asks_for_no_gpu_does_not_load_pytorch(tmp_path):
    code = (
        "import sys; from slpd_core import runtime\nwith runtime.job(sys.argv[1], 'a'): print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.log")], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_just_what_slurm_gave_is_kept_without_a_lock(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with runtime.gpu_slot(1) as held:
        assert held == 1
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert list(tmp_path.iterdir()) == []


def test_jobs_inside_one_slurm_job_share_its_devices_out(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with runtime.gpu_slot(1) as held:
        assert held == 1
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with runtime.gpu_slot(1):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert {path.name for path in tmp_path.iterdir()} == {"slpd-gpu-slurm77-0.lock", "slpd-gpu-slurm77-1.lock"}


def test_more_gpus_than_slurm_gave_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(RuntimeError, match="2 GPUs asked for, 1 on this machine"), runtime.gpu_slot(2):
        pass


def test_a_lock_file_of_another_user_still_locks(monkeypatch, tmp_path):
    def refuse_to_create(path, flags, mode=0o777):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, flags, mode)

    path = tmp_path / "slpd-gpu-0.lock"
    path.touch()
    really_open = os.open
    monkeypatch.setattr(os, "open", refuse_to_create)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with runtime.gpu_slot(1) as held, open(path) as other:
        assert held == 1
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


ALLOCATE = """
import resource
import sys
import numpy as np
from slpd_core.runtime import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
np.ones(1 << 26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept_for_what_is_allocated_next():
    faults = {}
    for how in ("plain", "keep"):
        command = [sys.executable, "-c", ALLOCATE, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        faults[how] = int(done.stdout)
    assert 10 * faults["keep"] < faults["plain"]
