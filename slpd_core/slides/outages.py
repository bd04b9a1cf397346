"""Outages: slides whose files could not be read, and the later runs that try them again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slpd_core import store
from slpd_core.slides.bad_slides import SlideError

TRIED_RUNS = 3  # after so many runs that failed to read a slide it is left alone until its file is another
SUFFIX = ".unread"


class UnreadableError(SlideError):
    """A slide's file cannot be read: the fault of a disk or a network, perhaps, and not of its content."""


@contextmanager
def reading(slide_path: Path, *, give_up: bool) -> Iterator[None]:
    """Turn an OSError of the block into UnreadableError where a job gives up; let it pass where it is to be retried.

    Raises:
        UnreadableError: The file cannot be read, and give_up.
        OSError: The same, and not give_up.
    """
    try:
        yield
    except OSError as error:
        if give_up:
            raise UnreadableError(f"{slide_path}: cannot be read ({error})") from error
        raise


def count_failed_runs(state_dir: Path) -> dict[str, int]:
    """Count the runs that failed to read a slide, of each there is one of; up to TRIED_RUNS, by slide id."""
    marks = {path.name.removesuffix(SUFFIX): path for path in state_dir.glob(f"*{SUFFIX}")}
    return {slide_id: _read_mark(path) for slide_id, path in marks.items()}


def explain(error: SlideError, state_dir: Path | None, slide_id: str) -> str:
    """Return why a slide is quarantined; one that cannot be read is noted for the next run, which tries it again."""
    if not isinstance(error, UnreadableError):
        return str(error)
    if state_dir is None:
        return f"{error}; copy it again or leave it out"
    mark = state_dir / f"{slide_id}{SUFFIX}"
    failed = _read_mark(mark)
    if failed == TRIED_RUNS:
        return f"{error} in {failed + 1} runs; copy it again or leave it out"
    store.write_text(mark, str(failed + 1))
    return f"{error}; the next run tries it again"


def _read_mark(path: Path) -> int:
    """The number in a mark, 0 where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return min(int(text), TRIED_RUNS) if text.isdecimal() else 0
