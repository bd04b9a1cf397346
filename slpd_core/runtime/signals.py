"""SIGTERM, which clusters send before they kill."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_TO_STOP = 25  # of a process that is ended; Slurm kills 30 s after SIGTERM
TERMINATED = 128 + signal.SIGTERM  # the exit status of a job that SIGTERM stopped


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Turn SIGTERM into SystemExit within the block, so that `with` blocks clean up.

    Raises:
        SystemExit: SIGTERM came; its code is TERMINATED.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleaning up
        sys.exit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


@contextmanager
def deferred_sigterm() -> Iterator[Callable[[], bool]]:
    """Defer SIGTERM to the end of the block.

    Yields:
        A function that returns whether SIGTERM has come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    come: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: come.append(number))
    try:
        yield lambda: bool(come)
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
        if come:
            signal.raise_signal(signal.SIGTERM)
