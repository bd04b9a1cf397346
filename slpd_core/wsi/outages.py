"""Outages: slides whose files could not be read, and the later runs that try them again.

Each job that reads a slide has its own mark. A run runs a job once, so failures in a row count runs.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slpd_core import artifacts
from slpd_core.wsi import identity
from slpd_core.wsi.errors import COPY_AGAIN, SlideError

MAX_FAILED_RUNS = 3  # in a row; then a slide is not tried again until its file changes
SUFFIX = ".unread"


class UnreadableSlideError(SlideError):
    """A slide's file cannot be read; the disk or network may be at fault, not its content."""


class Mark(NamedTuple):
    """A job's failures to read a slide.

    Attributes:
        failures: Failures that another run retries. It never decreases, as it is a parameter of the slide's jobs.
        in_a_row: Failures since the job last read the slide.
        file: Description of the slide's files at the last failure.
    """

    failures: int = 0
    in_a_row: int = 0
    file: str = ""


@contextmanager
def catch_os_errors(slide_path: Path, *, raise_slide_error: bool) -> Iterator[None]:
    """Turn an OSError of the block into an UnreadableSlideError, if asked to.

    Args:
        slide_path: The file that the sheet names.
        raise_slide_error: Whether to turn it; otherwise it passes, and the job is retried.

    Yields:
        Once.

    Raises:
        UnreadableSlideError: The file cannot be read, and `raise_slide_error`.
        OSError: The file cannot be read, and not `raise_slide_error`.
    """
    try:
        yield
    except OSError as error:
        if raise_slide_error:
            raise UnreadableSlideError(f"{slide_path}: cannot be read ({error})") from error
        raise


def name_mark(state_dir: Path | None, slide_id: str, out_path: Path) -> Path | None:
    """Name the file of a job's mark.

    Args:
        state_dir: Folder of marks; None keeps none.
        slide_id: Id of the slide.
        out_path: The file that the job writes.

    Returns:
        The mark's path; None without a folder.
    """
    return state_dir and state_dir / f"{slide_id}.{artifacts.fingerprint(str(out_path))[:8]}{SUFFIX}"


def count_failures(state_dir: Path) -> dict[str, int]:
    """Count the failures to read each slide that another run retries.

    Args:
        state_dir: Folder of marks.

    Returns:
        Failures of all its jobs by slide id.
    """
    counts: Counter[str] = Counter()
    for path in state_dir.glob(f"*{SUFFIX}"):
        counts[path.name.removesuffix(SUFFIX).rpartition(".")[0]] += _read_mark(path).failures
    return dict(counts)


def explain(error: SlideError, mark_path: Path | None, slide_path: Path) -> str:
    """Explain why a slide is quarantined; one that cannot be read is marked for the next run to try again.

    Args:
        error: The slide's error.
        mark_path: The job's mark, as `name_mark` names it.
        slide_path: The file that the sheet names.

    Returns:
        The reason.
    """
    if not isinstance(error, UnreadableSlideError):
        return str(error)
    if mark_path is None:
        return f"{error}; {COPY_AGAIN}"
    mark, file = _read_mark(mark_path), identity.describe_files({"": slide_path})[""][0]
    before = mark.in_a_row if mark.file == file else 0
    if before >= MAX_FAILED_RUNS:
        return f"{error} in {before + 1} runs; {COPY_AGAIN}"
    _write_mark(mark_path, Mark(mark.failures + 1, before + 1, file))
    return f"{error}; the next run tries it again"


def note_read(mark_path: Path | None) -> None:
    """Note that a job has read its slide, so that failures count from 0 again.

    Args:
        mark_path: The job's mark, as `name_mark` names it.
    """
    if mark_path and (mark := _read_mark(mark_path)).in_a_row:
        _write_mark(mark_path, mark._replace(in_a_row=0))


def _read_mark(path: Path) -> Mark:
    """Read a mark; an empty one if it is missing or damaged."""
    try:
        return Mark(**artifacts.read_json(path))
    except (FileNotFoundError, ValueError, TypeError):
        return Mark()


def _write_mark(path: Path, mark: Mark) -> None:
    artifacts.write_json(path, mark._asdict())
