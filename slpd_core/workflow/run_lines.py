"""The lines that a run prints about its jobs and itself."""

import math
from itertools import pairwise

from slpd_core.runtime import JobProgress, escape_controls

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def format_duration(seconds: float) -> str:
    """Format a time in its two largest units.

    Args:
        seconds: Of the time.

    Returns:
        Such as "45 s", "1 min 10 s", "2 h 5 min" or "3 d 4 h".
    """
    seconds = round(seconds)
    for (large, size), (small, part) in pairwise(UNITS):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"


def format_job(name: str, progress: JobProgress | None, elapsed_s: float) -> str:
    """Format the line of a job.

    Args:
        name: Of the job.
        progress: How far it is, if it tells.
        elapsed_s: Seconds that it has run.

    Returns:
        Such as "[pretrain slpd] epoch 12 of 30, loss 5.28, 1 min 10 s of 3 min left".
    """
    parts = []
    if progress and progress.total > 1:
        one = progress.unit.removesuffix("s")
        of = f"of {progress.total:,}"
        counted = f"{one} {progress.done + 1:,} {of}" if progress.nested else f"{progress.done:,} {of} {progress.unit}"
        parts = [counted, *filter(None, [progress.note])]
    if progress and progress.left_s is not None:
        whole = format_duration(progress.elapsed_s + progress.left_s)
        parts.append(f"{format_duration(progress.left_s)} of {whole} left")
    else:
        parts.append(format_duration(elapsed_s))
    return f"[{name}] {escape_controls(', '.join(parts))}"


def format_run(
    done: int, total: int, *, failed: int = 0, queued: int = 0, left_s: float = 0, known: bool = True
) -> str:
    """Format the line of the run.

    Args:
        done: Jobs done.
        total: Jobs of the run.
        failed: Jobs that failed for good.
        queued: Jobs that wait in a cluster's queue.
        left_s: Seconds that are left; nan where not known.
        known: Whether none of them is guessed.

    Returns:
        Such as "23 of 61 jobs, about 12 min left".
    """
    counts = [f"{done:,} of {total:,} jobs"]
    counts += [f"{count:,} {state}" for count, state in ((failed, "failed"), (queued, "queued")) if count]
    if math.isnan(left_s):
        left = "time left not known yet"
    elif left_s < 60:
        left = "less than a minute left"
    else:
        left = f"{'about' if known else 'roughly'} {format_duration(60 * round(left_s / 60))} left"
    return ", ".join([*counts, left])
