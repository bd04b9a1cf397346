"""A job's log, without control characters for a terminal."""

import logging
import sys

from slpd_core.runtime.messages import escape_controls

log = logging.getLogger("slpd")


class PlainFormatter(logging.Formatter):
    """Format log lines without control characters, whatever text of slides, sheets or weights they quote."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record.

        Args:
            record: Of the log.

        Returns:
            Its line.
        """
        return escape_controls(super().format(record), keep="\n\t")


def terminal_handler(before: str = "") -> logging.Handler:
    """Create a handler that prints warnings.

    Args:
        before: Text that begins each line.

    Returns:
        The handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"{before}%(message)s"))
    handler.setLevel(logging.WARNING)
    return handler


def file_handler(log_path: str) -> logging.FileHandler:
    """Create a handler that appends to a log file; several processes may write to it.

    Args:
        log_path: Of the file.

    Returns:
        The handler.
    """
    handler = logging.FileHandler(log_path, encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler
