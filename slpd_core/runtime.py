"""A job's log, progress, randomness, threads and device."""

import ctypes
import fcntl
import gc
import logging
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from slpd_core.ids import escape_controls

T = TypeVar("T")
log = logging.getLogger("slpd")
SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_TRIES = 1.0
SECONDS_TO_STOP = 25  # of a process that is ended; Slurm kills 30 s after SIGTERM
TERMINATED = 128 + signal.SIGTERM  # the exit status of a job that SIGTERM stopped
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
CUDA_DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")


class PlainFormatter(logging.Formatter):
    """Writes log lines in which nothing steers a terminal, whatever texts of slides, sheets and weights they quote."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return escape_controls(super().format(record), keep="\n\t")


@contextmanager
def importing() -> Iterator[None]:
    """Import without the garbage collector, which then leaves alone what was imported, also when the process ends.

    Modules are no garbage, but a million objects to look through: half of the time that a job of PyTorch's takes to
    start and to end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def job(
    log_path: str,
    name: str,
    *,
    threads: int = 1,
    gpus: int = 0,
    goes_on: bool = False,
    keeps_memory: bool = True,
    wait_s: float = 0,
) -> Iterator[str]:
    """Run a job's work: a log file, limited threads, its own GPU; a failure ends in one clear line on the terminal.

    log_path: file for the log, the traceback of a failure included. name: what the job works on, e.g. "tissue slide-7".
    goes_on: whether another process of the job has begun the log. keeps_memory: as `keep_freed_memory` has it.
    wait_s: seconds before it begins, as an attempt after one that failed does.
    Gives the device: "cuda" where the job holds GPUs that PyTorch can use, else "cpu". Raises SystemExit when the work
    fails or SIGTERM stops it.
    """
    to_file = _log_to(log_path, name, goes_on)
    started = time.monotonic()
    if keeps_memory:
        keep_freed_memory()
    try:
        with sigterm_exits(), limited_threads(threads), _after(wait_s), gpu_slot(gpus) as held:
            yield "cuda" if held and _pytorch_can_use(held) else "cpu"
        log.info("done in %.1f s", time.monotonic() - started)
    except SystemExit as stop:
        if stop.code == TERMINATED:
            log.error("stopped by SIGTERM after %.1f s: a time limit, or someone ended it", time.monotonic() - started)
        raise
    except Exception as error:  # the outermost frame of a job: whatever failed ends in the log and in one line
        log.info(traceback.format_exc())
        log.error(_failure_line(error, log_path))
        sys.exit(1)
    finally:
        to_file.close()


@contextmanager
def _after(seconds: float) -> Iterator[None]:
    if seconds:
        log.info("the last attempt failed: waiting %g s before this one", seconds)
        time.sleep(seconds)
    yield


def _log_to(log_path: str, name: str, goes_on: bool) -> logging.Handler:
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    if not goes_on:
        Path(log_path).write_bytes(b"")
    to_file = file_handler(log_path)
    log.handlers = [to_file, terminal_handler(f"[{name}] ")]
    log.setLevel(logging.INFO)
    log.propagate = False
    return to_file


def terminal_handler(before: str = "") -> logging.Handler:
    """Return a handler that prints warnings, each begun with a text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"{before}%(message)s"))
    handler.setLevel(logging.WARNING)
    return handler


def file_handler(log_path: str) -> logging.FileHandler:
    """A handler that adds to a job's log file, to which several processes may write."""
    handler = logging.FileHandler(log_path, encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _failure_line(error: Exception, log_path: str) -> str:
    """The message of a failure, and where its traceback is unless the message says enough by itself."""
    where = f"the traceback is in {log_path}"
    if not isinstance(error, ValueError | OSError | RuntimeError) or not str(error):
        line = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        return f"{line} (unexpected: {where})"
    names_no_file = isinstance(error, OSError) and error.filename is None
    return f"{error} ({where})" if names_no_file else str(error)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that open `with` blocks clean up; Slurm sends it some time before SIGKILL."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleaning up
        sys.exit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


@contextmanager
def sigterm_waits() -> Iterator[Callable[[], bool]]:
    """Within it SIGTERM is not obeyed, but afterwards; gives what says whether it has come."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    come: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: come.append(number))
    try:
        yield lambda: bool(come)
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
        if come:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Give the numerical libraries this job's threads: those still to load by the environment, the loaded directly."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with threadpool_limits(threads):
        yield


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed for what is allocated next, instead of giving it back to the system.

    A training step frees and allocates hundreds of MB; pages new each time cost more than the work on them (on virtual
    machines up to ten times as much). Not for work on slides one by one that keeps something of each: little things
    then stand in the gaps of large ones, which nothing fits into any more. Elsewhere than on glibc nothing happens.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A random generator that depends on the seed and on what it is for, and on nothing else that ran.

    keys: for example ("pretrain", epoch, slide_id).
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([seed, *numbers])


def progress(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Pass `items` on, showing how far it is: a bar on a terminal, now and then a line in the log."""
    from tqdm import tqdm

    last = started = time.monotonic()
    with tqdm(total=total, desc=what, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            now = time.monotonic()
            if done == total or now - last > SECONDS_BETWEEN_LINES:
                last = now
                rate = done / max(now - started, 1e-9)
                left = (total - done) / rate
                log.info("%s: %d of %d %s, %.2f a second, %.0f s left", what, done, total, unit, rate, left)


@contextmanager
def gpu_slot(gpus: int) -> Iterator[int]:
    """Hold as many GPUs as the job asked for, by CUDA_VISIBLE_DEVICES; gives their number.

    A file lock a device keeps jobs of one machine apart and is freed by the system when a job dies; devices that other
    jobs hold are waited for. Where Slurm gave the job just the devices it asked for, there is nothing to share out. On
    a machine without any GPU the work goes on on the CPU, with a warning.

    Raises RuntimeError when the machine has fewer devices than asked for.
    """
    devices = _visible_devices()
    if not gpus or ("SLURM_JOB_ID" in os.environ and len(devices) == gpus):
        yield gpus
        return
    if not devices:
        log.warning("%d GPU(s) asked for, none found on this machine: working on the CPU", gpus)
        yield 0
        return
    if len(devices) < gpus:
        raise RuntimeError(
            f"{gpus} GPUs asked for, {len(devices)} on this machine ({', '.join(devices)}): run with "
            "--resources gpu=N, N no more than the machine has, or gpu=0 for the CPU"
        )
    with ExitStack() as locks:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_wait_for(gpus, devices, locks))
        yield gpus


def _pytorch_can_use(gpus: int) -> bool:
    """Whether PyTorch can work on the GPUs that this job holds; says so where it cannot."""
    import torch

    usable = torch.cuda.is_available()
    if not usable:
        log.warning(
            "PyTorch %s cannot use the %d GPU(s) this job was given on %s: working on the CPU; nvidia-smi there says "
            "whether the driver runs and how old it is",
            torch.__version__,
            gpus,
            os.uname().nodename,
        )
    return usable


def _visible_devices() -> list[str]:
    """The devices CUDA shows: up to the first entry that names none, and none at all if one is named twice."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        # By number and not by file name: a container given /dev/nvidia3 alone calls it device 0.
        return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    names = list(takewhile(CUDA_DEVICE.fullmatch, map(str.strip, named.split(","))))
    return names if len(set(names)) == len(names) else []


def _wait_for(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    """Lock `gpus` of the devices; between two tries none is held, so jobs that want several cannot block each other."""
    waiting = False
    while len(names := _lock_free_ones(gpus, devices, locks)) < gpus:
        locks.close()
        if not waiting:
            log.warning("waiting for %d GPU(s): other jobs hold too many of %s", gpus, ", ".join(devices))
        waiting = True
        time.sleep(SECONDS_BETWEEN_TRIES * random.uniform(0.5, 1.5))
    return names


def _lock_free_ones(gpus: int, devices: list[str], locks: ExitStack) -> list[str]:
    names: list[str] = []
    for device in devices:
        if len(names) < gpus:
            with suppress(BlockingIOError):
                fcntl.flock(locks.enter_context(_lock_file(device)), fcntl.LOCK_EX | fcntl.LOCK_NB)
                names.append(device)
    return names


def _lock_file(device: str) -> IO[str]:
    """The lock file of a device; under Slurm one a Slurm job, as each may call its first device 0."""
    owner = f"slurm{os.environ['SLURM_JOB_ID']}-" if "SLURM_JOB_ID" in os.environ else ""
    path = Path(tempfile.gettempdir()) / f"slpd-gpu-{owner}{device.replace('/', '-')}.lock"
    plain = (
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    )  # the folder is everyone's: what another put there is not followed
    try:
        return os.fdopen(os.open(path, plain | os.O_CREAT, 0o644))
    except PermissionError:
        return os.fdopen(os.open(path, plain))  # another user's, and reading is enough for flock
    except OSError as error:
        raise RuntimeError(f"{path}: no lock file ({error}); remove it, or have its owner do so") from error
