"""SIGTERM, which clusters send before they kill."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_TO_STOP = 25  # between SIGTERM and the exit; Slurm kills after 30 s
TERMINATED = 128 + signal.SIGTERM  # the exit status of a job that SIGTERM stopped


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that open `with` blocks clean up; Slurm sends it some time before SIGKILL.

    Outside the main thread signals stay as they are.

    Yields:
        Nothing.

    Raises:
        SystemExit: SIGTERM arrived; its code is TERMINATED.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
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
        A function that returns whether SIGTERM has arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda signum, _: arrived.append(signum))
    try:
        yield lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
        if arrived:
            signal.raise_signal(signal.SIGTERM)
