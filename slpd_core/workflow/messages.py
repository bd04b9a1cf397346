"""Lines that a run prints at its start and at its end."""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.runtime import escape_controls, name_some
from slpd_core.slides import ledger
from slpd_core.workflow.external_labels import ExternalLabels
from slpd_core.workflow.slides import SlideFiles
from slpd_core.workflow.tasks import Tasks


def report_outlines(slides: SlideFiles) -> None:
    """Print before a run how many slides are outlined by hand, and the files among the outlines that are of no slide.

    Args:
        slides: The files of the slides.
    """
    if slides.settings.tissue.masks_dir:
        _say(f"tissue.masks_dir: {slides.outlines.describe(len(slides.rows))}")


def clamp_future_mtimes(results: Path) -> None:
    """Set the dates of result files that lie in the future to now, and print which.

    They were written before the clock was set back. Snakemake fails on all that is made from them and deletes it.

    Args:
        results: The cohort's folder; files elsewhere keep their dates.
    """
    now, names = time.time(), []
    for path in sorted(results.rglob("*")):
        if path.is_file() and path.stat().st_mtime > now:
            os.utime(path, (now, now))
            names.append(path.relative_to(results).as_posix())
    if names:
        _say(f"{results}: {len(names):,} file(s) were dated in the future and are dated now: {name_some(names)}")


def report_tasks(tasks: Tasks, external: ExternalLabels, *, at_start: bool) -> None:
    """Print that evaluation waits for labels if there are none, and before a run the doubts about those there are.

    Args:
        tasks: Of the cohort.
        external: Labels of external cohorts.
        at_start: Whether the run begins.
    """
    for line in [tasks.describe_waiting(), *([*tasks.doubts, *external.doubts] if at_start else [])]:
        if line:
            _say(line)


def report_excluded(paths: CohortPaths, external: Iterable[str]) -> None:
    """Print at the end of a run the slides that were excluded, and why.

    Args:
        paths: The files of the cohort.
        external: Names of the external cohorts.
    """
    for path in (paths.ledger(), *map(paths.external_ledger, external)):
        # The jobs that read a ledger report one that is broken or of an earlier version.
        with suppress(OSError, ValueError):
            table, _ = artifacts.read_table(path, "ledger")
            for line in ledger.exclusion_messages(table):
                _say(line)


def report_run_remarks(paths: CohortPaths, encoders: Iterable[str]) -> None:
    """Print at the end of a run the regions that a pretraining run's losses with prototypes do not reach.

    Args:
        paths: The files of the cohort.
        encoders: Names of trained region encoders.
    """
    for name in encoders:
        with suppress(OSError, ValueError):  # broken ones are reported by their jobs
            _, attributes = artifacts.read_arrays(paths.prototypes(name), ())
            for remark in attributes.get("remarks", "").splitlines():
                _say(f"pretrain {name}: {remark}")


def report_lines(lines: Iterable[str]) -> None:
    """Print lines at the end of a run.

    Args:
        lines: The lines.
    """
    for line in lines:
        _say(line)


def _say(line: str) -> None:
    """Print a line to the terminal."""
    print(escape_controls(line), file=sys.stderr)
