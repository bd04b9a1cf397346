"""SIGTERM, which clusters send before they kill, and SIGINT, which Ctrl-C sends."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS_TO_STOP = 25  # between SIGTERM and the exit; Slurm kills after 30 s
TERMINATED = 128 + signal.SIGTERM  # the exit status of a job that was asked to stop
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Raise SystemExit on SIGTERM or Ctrl-C, so that open `with` blocks clean up.

    Slurm sends SIGTERM some time before SIGKILL.

    Outside the main thread signals stay as they are.

    Yields:
        Nothing.

    Raises:
        SystemExit: A signal arrived; its code is TERMINATED.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clean-up
        sys.exit(TERMINATED)

    with _handled_by(stop):
        try:
            yield
        except Exception as error:  # what was interrupted may fail: a lock that it was about to take cannot be released
            if stopped:
                raise SystemExit(TERMINATED) from error
            raise


@contextmanager
def deferred_sigterm() -> Iterator[Callable[[], bool]]:
    """Defer SIGTERM and Ctrl-C to the end of the block.

    Yields:
        A function that returns whether one has arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived: list[int] = []
    try:
        with _handled_by(lambda signum, _: arrived.append(signum)):
            yield lambda: bool(arrived)
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle the signals that stop a job."""
    previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before or signal.SIG_DFL)
