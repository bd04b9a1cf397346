"""Progress of long loops: of a job in a small file beside its log, which the run's display reads; else a bar."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from slpd_core.runtime.logs import log

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 15.0  # of the log
SECONDS_BETWEEN_WRITES = 2.0  # of the file: it may lie on a shared file system


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        label: Of its outermost loop of several items.
        unit: Name of the loop's items.
        done: Items done.
        total: Items in all.
        nested: Whether another loop runs within the item.
        note: Such as the loss.
        fraction: Of the outermost loop, with those within it.
        elapsed_s: Seconds since the loop began, or was resumed.
        left_s: Seconds that are left at the rate so far; None before anything is done.
    """

    label: str
    unit: str
    done: int
    total: int
    nested: bool = False
    note: str = ""
    fraction: float = 0.0
    elapsed_s: float = 0.0
    left_s: float | None = None


class _Tracker:
    """The loops that a process is in, outermost first."""

    def __init__(self) -> None:
        self.loops: list[JobProgress] = []
        self.started = self.written = 0.0
        self.fraction_at_start = 0.0
        self.any_done = False

    def enter(self, label: str, unit: str, done: int, total: int) -> int:
        """Enter a loop; returns its depth. Until an item is done, what is done counts as done before."""
        if not self.loops:
            self.started, self.written, self.any_done = time.monotonic(), 0.0, False
        self.loops.append(JobProgress(label, unit, done, total))
        if not self.any_done:
            self.fraction_at_start = self.fraction()
        self.write()
        return len(self.loops) - 1

    def advance(self, depth: int) -> None:
        """Count an item of a loop."""
        loop = self.loops[depth]
        self.loops[depth:] = [replace(loop, done=loop.done + 1)]
        self.any_done = True
        self.write()

    def leave(self, depth: int) -> None:
        """Leave a loop and those within it."""
        del self.loops[depth:]

    def fraction(self) -> float:
        """The fraction of the outermost loop that is done."""
        fraction = 0.0
        for loop in reversed(self.loops):
            fraction = min(1.0, (loop.done + fraction) / max(1, loop.total))
        return fraction

    def state(self) -> JobProgress:
        """The outermost loop as it is now, or where that has one item the loop within it."""
        fraction, elapsed = self.fraction(), time.monotonic() - self.started
        gained = fraction - self.fraction_at_start
        left = elapsed * (1 - fraction) / gained if gained > 0 else None
        shown = next((i for i, loop in enumerate(self.loops) if loop.total > 1), len(self.loops) - 1)
        nested = shown < len(self.loops) - 1
        return replace(self.loops[shown], nested=nested, fraction=fraction, elapsed_s=elapsed, left_s=left)

    def write(self) -> None:
        """Write the job's file, unless it was written just now or there is no job."""
        now, log_path = time.monotonic(), job_log_path()
        if log_path and now - self.written >= SECONDS_BETWEEN_WRITES:
            self.written = now
            _write_state(log_path, self.state())


_TRACKER = _Tracker()


def job_log_path() -> str | None:
    """Return the log file of the job that this process is, or is part of.

    Returns:
        Its path; None outside a job.
    """
    return next((handler.baseFilename for handler in log.handlers if isinstance(handler, logging.FileHandler)), None)


def progress_path(log_path: str | Path) -> Path:
    """Name the file in which a job tells its progress.

    Args:
        log_path: The job's log.

    Returns:
        The path; the file exists while the job is in a loop.
    """
    return Path(log_path).with_suffix(".progress")


def begin_progress(log_path: str | Path) -> None:
    """Tell that a job has begun.

    Args:
        log_path: The job's log.
    """
    _write_state(log_path, JobProgress("", "", 0, 0))


def _write_state(log_path: str | Path, state: JobProgress) -> None:
    """Write a job's file, whole."""
    path = progress_path(log_path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with suppress(OSError):  # a full disk is the work's to report
        part.write_text(json.dumps(asdict(state)))
        part.replace(path)


def read_progress(log_path: str | Path) -> JobProgress | None:
    """Read how far a job is.

    Args:
        log_path: The job's log.

    Returns:
        Its progress; None where it tells none.
    """
    with suppress(OSError, ValueError, TypeError):
        return JobProgress(**json.loads(progress_path(log_path).read_text()))
    return None


def note_progress(note: str) -> None:
    """Add a note to the progress of the loops that are under way.

    Args:
        note: Such as "loss 5.28"; it stands until the next.
    """
    _TRACKER.loops[:] = [replace(loop, note=note) for loop in _TRACKER.loops]


def progress(items: Iterable[Item], total: int, label: str, unit: str = "items", *, done: int = 0) -> Iterator[Item]:
    """Iterate, and tell how far: in a job by its file and its log, else by a bar on a terminal.

    Args:
        items: The items that are left.
        total: Number of items, those done before included.
        label: Name of the loop.
        unit: Name of the items, in the plural.
        done: Items done before, as by a run that is resumed.

    Yields:
        The items.
    """
    from tqdm import tqdm

    last, started, done_before = time.monotonic(), time.monotonic(), done
    without_bar = job_log_path() is not None or not sys.stderr.isatty()
    depth = _TRACKER.enter(label, unit, done, total)
    try:
        with tqdm(total=total, initial=done, desc=label, unit=unit, disable=without_bar, leave=False) as bar:
            for item in items:
                yield item
                done += 1
                bar.update()
                _TRACKER.advance(depth)
                now = time.monotonic()
                if done == total or now - last > SECONDS_BETWEEN_LINES:
                    last = now
                    rate = (done - done_before) / max(now - started, 1e-9)
                    left = (total - done) / rate
                    log.info("%s: %d of %d %s, %.2f per second, %.0f s left", label, done, total, unit, rate, left)
    finally:
        _TRACKER.leave(depth)
