"""A process's threads, memory and imports."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without the garbage collector, which then ignores what was imported, also when the process ends.

    Modules are no garbage but a million objects to examine: half of the time that a PyTorch job takes to start and end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the threads of numerical libraries within the block: loaded ones directly, others by the environment.

    Args:
        threads: Of this job.
    """
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with threadpool_limits(threads):
        yield


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed for what is allocated next, instead of giving it back to the system.

    A training step frees and allocates hundreds of MB; pages new each time cost more than the work on them (on virtual
    machines up to ten times as much). Not for work on slides one by one that keeps something of each: little things
    then stand in the gaps of large ones, which nothing fits into any more. Elsewhere than on glibc nothing happens.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
