"""A job's log, without control characters."""

import logging
import re
import sys
from datetime import datetime
from pathlib import Path

from slpd_core.runtime.messages import escape_controls

log = logging.getLogger("slpd")
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ (?:---- (.+?) (begins|is done in [\d.]+ s) ----)?")
CLEAR_BELOW = "\r\x1b[J"  # the terminal's line and those below


class _PlainFormatter(logging.Formatter):
    """Escapes control characters, which texts quoted from slides, sheets and weights may contain."""

    def __init__(self, pattern: str, before: str = "") -> None:
        super().__init__(pattern)
        self.before = before

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return self.before + escape_controls(super().format(record), keep="\n\t")


def terminal_handler(prefix: str = "") -> logging.Handler:
    """Make a handler that prints warnings and errors to stderr.

    Args:
        prefix: Text before each.

    Returns:
        The handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    clear = CLEAR_BELOW if sys.stderr.isatty() else ""  # the lines of a run, which are drawn again
    handler.setFormatter(_PlainFormatter(f"{prefix}%(message)s", clear))
    handler.setLevel(logging.WARNING)
    return handler


def file_handler(log_path: str) -> logging.FileHandler:
    """Make a handler that appends to a job's log file; several processes may append to the same.

    Args:
        log_path: Of the file.

    Returns:
        The handler.
    """
    handler = logging.FileHandler(log_path, encoding="utf-8")
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def read_earlier_seconds(log_path: Path) -> float:
    """Read how long the attempts took that a finished job went on from.

    Args:
        log_path: Of the job, as `job` writes it.

    Returns:
        Seconds of the stopped and failed attempts since the job was last done, without the one that finished it.
    """
    attempts: list[float] = []
    earlier, begun, last, job_name = 0.0, 0.0, 0.0, ""
    for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not (match := _LINE.match(line)):
            continue
        seconds, (name, event) = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), match.group(2, 3)
        job_name = job_name or name
        if name == job_name and event == "begins":
            if begun:
                attempts.append(max(0.0, last - begun))
            begun = seconds
        elif name == job_name and event:
            earlier, attempts, begun = sum(attempts), [], 0.0
        last = seconds
    return earlier
