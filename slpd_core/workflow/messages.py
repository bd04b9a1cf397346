"""What a run says at its start and its end, beside its jobs."""

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
from slpd_core.workflow.slides import SlideFiles


def report_outlines(slides: SlideFiles) -> None:
    """Say before a run how many slides are outlined by hand, and which files of their folder are of none."""
    if slides.settings.tissue.masks:
        _say(f"tissue.masks: {slides.outlines.describe(len(slides.rows))}")


def clamp_future_mtimes(results: Path) -> None:
    """Date files of the results that are dated in the future to now, and say which.

    They are from before the clock was set back. Snakemake fails on what is made from them, and deletes it.
    """
    now, names = time.time(), []
    for path in sorted(results.rglob("*")):
        if path.is_file() and path.stat().st_mtime > now:
            os.utime(path, (now, now))
            names.append(path.relative_to(results).as_posix())
    if names:
        _say(f"{results}: {len(names):,} file(s) were dated in the future and are dated now: {name_some(names)}")


def report_excluded(paths: CohortPaths, *, predicting: bool) -> None:
    """Say at the end of a run which slides were excluded, and why."""
    for path in (paths.ledger(), *([paths.new_ledger()] if predicting else [])):
        # A ledger that cannot be read, or is of an earlier version, is the matter of the jobs that read it.
        with suppress(OSError, ValueError):
            table, _ = artifacts.read_table(path, "ledger")
            for line in ledger.exclusion_messages(table):
                _say(line)


def report_run_remarks(paths: CohortPaths, encoders: Iterable[str]) -> None:
    """Say at the end of a run which regions the losses with prototypes of a pretraining run do not reach."""
    for name in encoders:
        with suppress(OSError, ValueError):  # as above
            _, attributes = artifacts.read_arrays(paths.prototypes(name), ())
            for remark in attributes.get("remarks", "").splitlines():
                _say(f"pretrain {name}: {remark}")


def _say(line: str) -> None:
    print(escape_controls(line), file=sys.stderr)
