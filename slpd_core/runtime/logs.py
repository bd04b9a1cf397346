"""A job's log: lines in which nothing steers a terminal."""

import logging
import sys

from slpd_core.runtime.messages import escape_controls

log = logging.getLogger("slpd")


class PlainFormatter(logging.Formatter):
    """Writes log lines in which nothing steers a terminal, whatever texts of slides, sheets and weights they quote."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return escape_controls(super().format(record), keep="\n\t")


def terminal_handler(before: str = "") -> logging.Handler:
    """Return a handler that prints warnings, each begun with a text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"{before}%(message)s"))
    handler.setLevel(logging.WARNING)
    return handler


def file_handler(log_path: str) -> logging.FileHandler:
    """A handler that adds to a job's log file, to which several processes may write."""
    handler = logging.FileHandler(log_path, encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler
