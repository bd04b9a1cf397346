"""A job's log, without control characters."""

import logging
import sys

from slpd_core.runtime.messages import escape_controls

log = logging.getLogger("slpd")
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
