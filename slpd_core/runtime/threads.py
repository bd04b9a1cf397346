"""A process's threads, memory and imports."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from threadpoolctl import threadpool_limits

from slpd_core.runtime.signals import TERMINATED

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
# Turns that a waiting thread of GCC's OpenMP makes before it sleeps. By default it makes as many as it can for some 100
# ms, and takes a core from whoever shares the machine: beside one busy process a training step of small layers took 20
# to 60 times as long. None at all costs a quiet machine up to a third.
SPIN_COUNT = 1000


def limit_spinning() -> None:
    """Let the waiting threads of numerical libraries sleep soon, in libraries loaded later and in child processes.

    Values that the user sets for OpenMP stay.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without garbage collection, exclude the imported objects from later collections, and limit spinning.

    Modules are never garbage, but they are a million objects to traverse: half of the time that a process with PyTorch
    takes to start and to exit.

    Yields:
        Nothing.
    """
    limit_spinning()
    gc.disable()
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(TERMINATED)  # a job that has not begun
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the threads of numerical libraries: loaded ones directly, others by the environment.

    Args:
        threads: Threads per library.

    Yields:
        Nothing.
    """
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with threadpool_limits(threads):
        yield


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the system; without glibc nothing happens.

    A training step frees and allocates hundreds of MB; new pages each time cost more than the work on them (on virtual
    machines up to ten times as much). Do not use it for a loop over slides that keeps a small object of each: these
    then fragment the freed memory, and large arrays no longer fit.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
