"""Outages: slides whose files could not be read, and the later runs that try them again.

Each job that reads a slide has a mark of its own: a run has it once, so that its failures in a row are runs.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slpd_core import artifacts
from slpd_core.wsi import identity
from slpd_core.wsi.errors import COPY_AGAIN, SlideError

MAX_FAILED_RUNS = 3  # after so many runs that failed to read a slide it is left alone until its file is another
SUFFIX = ".unread"


class UnreadableSlideError(SlideError):
    """A slide's file cannot be read: the fault of a disk or a network, perhaps, and not of its content."""


class Mark(NamedTuple):
    """What is noted of a job's failures to read a slide."""

    failures: int = 0  # that another run is to follow; never fewer than before: it is a parameter of the slide's jobs
    in_a_row: int = 0  # of them, since the job read the slide last
    file: str = ""  # what the slide was known by then


@contextmanager
def catch_os_errors(slide_path: Path, *, raise_slide_error: bool) -> Iterator[None]:
    """Turn an OSError of the block into UnreadableError where a job gives up; let it pass where it is to be retried.

    Raises:
        UnreadableError: The file cannot be read, and raise_slide_error.
        OSError: The same, and not raise_slide_error.
    """
    try:
        yield
    except OSError as error:
        if raise_slide_error:
            raise UnreadableSlideError(f"{slide_path}: cannot be read ({error})") from error
        raise


def name_mark(state_dir: Path | None, slide_id: str, out_path: Path) -> Path | None:
    """Name the mark of the job on a slide that writes a file; None without a folder for it."""
    return state_dir and state_dir / f"{slide_id}.{artifacts.fingerprint(str(out_path))[:8]}{SUFFIX}"


def count_failures(state_dir: Path) -> dict[str, int]:
    """Count how often a job failed to read a slide and another run was to follow, by slide id."""
    counts: Counter[str] = Counter()
    for path in state_dir.glob(f"*{SUFFIX}"):
        counts[path.name.removesuffix(SUFFIX).rpartition(".")[0]] += _read_mark(path).failures
    return dict(counts)


def explain(error: SlideError, mark_path: Path | None, slide_path: Path) -> str:
    """Return why a slide is quarantined; one that cannot be read is noted for the next run, which tries it again.

    Args:
        error: What is wrong.
        mark_path: As `name_mark` names it.
        slide_path: The file that the sheet names.
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
    """Note that a job read its slide: a later outage is another one."""
    if mark_path and (mark := _read_mark(mark_path)).in_a_row:
        _write_mark(mark_path, mark._replace(in_a_row=0))


def _read_mark(path: Path) -> Mark:
    """A mark, an empty one where there is none or it is damaged."""
    try:
        return Mark(**artifacts.read_json(path))
    except (FileNotFoundError, ValueError, TypeError):
        return Mark()


def _write_mark(path: Path, mark: Mark) -> None:
    artifacts.write_json(path, mark._asdict())
