"""A job's log, progress, randomness, threads and device."""

import fcntl
import logging
import os
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

T = TypeVar("T")
log = logging.getLogger("slpd")
SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def job(log_path: str, name: str, *, threads: int = 1, gpus: int = 0) -> Iterator[str]:
    """Run a job's work: a log file, limited threads, its own GPU; a failure ends in one clear line on the terminal.

    log_path: file for the log, the traceback of a failure included. name: what the job works on, e.g. "tissue slide-7".
    Gives the device, "cpu" or "cuda". Raises SystemExit when the work fails.
    """
    limit_threads(threads)
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log_path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    to_terminal.setLevel(logging.WARNING)
    log.handlers = [to_file, to_terminal]
    log.setLevel(logging.INFO)
    log.propagate = False
    started = time.monotonic()
    try:
        with gpu_slot(gpus) as held:
            yield "cuda" if held else "cpu"
        log.info("done in %.1f s", time.monotonic() - started)
    except (ValueError, OSError, RuntimeError) as error:
        log.info(traceback.format_exc())
        log.error("%s", error)
        sys.exit(1)
    finally:
        to_file.close()


def limit_threads(threads: int) -> None:
    """Give the numerical libraries this job's threads, torch included if the job has imported it."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


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

    A file lock a device keeps jobs of one machine apart and is freed by the system when a job dies. Under Slurm the
    scheduler has chosen already. On a machine without any GPU the work goes on on the CPU, with a warning.

    Raises RuntimeError when fewer devices are free than asked for.
    """
    if not gpus or "SLURM_JOB_ID" in os.environ:
        yield gpus
        return
    devices = _visible_devices()
    if not devices:
        log.warning("%d GPU(s) asked for, none found on this machine: working on the CPU", gpus)
        yield 0
        return
    held: list[IO[str]] = []
    try:
        names = [name for name in devices if len(held) < gpus and _hold(name, held)]
        if len(names) < gpus:
            raise RuntimeError(
                f"{gpus} GPUs asked for, {len(names)} free of {len(devices)} ({', '.join(devices)}): run with "
                "--resources gpu=N, N no more than the machine has, or gpu=0 for the CPU"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
        yield gpus
    finally:
        for file in held:
            file.close()


def _visible_devices() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _hold(device: str, held: list[IO[str]]) -> bool:
    file = open(Path(tempfile.gettempdir()) / f"slpd-gpu-{device}.lock", "a")  # noqa: SIM115 (held for the job's life)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    held.append(file)
    return True
