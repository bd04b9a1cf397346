"""A job: its log file, threads, GPUs, and one clear line where it fails."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slpd_core.runtime.gpus import gpu_slot, pytorch_can_use
from slpd_core.runtime.job_progress import begin_progress, progress_path
from slpd_core.runtime.logs import file_handler, log, terminal_handler
from slpd_core.runtime.signals import TERMINATED, sigterm_exits
from slpd_core.runtime.threads import keep_freed_memory, limited_threads


@contextmanager
def job(
    log_path: str,
    name: str,
    *,
    threads: int = 1,
    gpus: int = 0,
    keep_memory: bool = True,
    wait_s: float = 0,
) -> Iterator[str]:
    """Run a job's work with a log file, limited threads and reserved GPUs; a failure prints one clear line.

    Args:
        log_path: File of the log, with the traceback of a failure; each attempt appends to it.
        name: Stage and subject, such as "tissue slide-7".
        threads: Threads of the numerical libraries.
        gpus: GPUs to reserve.
        keep_memory: Whether to call `keep_freed_memory`.
        wait_s: Seconds before the work begins; more than 0 after a failed attempt.

    Yields:
        The device: "cuda" if the job holds GPUs that PyTorch can use, else "cpu".

    Raises:
        SystemExit: The work failed, or SIGTERM or Ctrl-C stopped it.
    """
    to_file = _log_to(log_path, name)
    begin_progress(log_path)
    started = time.monotonic()
    if keep_memory:
        keep_freed_memory()
    try:
        with sigterm_exits(), limited_threads(threads), _after(wait_s), gpu_slot(gpus) as held:
            yield "cuda" if held and pytorch_can_use(held) else "cpu"
        log.info("---- %s is done in %.1f s ----", name, time.monotonic() - started)
    except SystemExit as stop:
        if stop.code == TERMINATED:
            log.error(
                "stopped after %.1f s: canceled, or at its time limit",
                time.monotonic() - started,
            )
        raise
    except Exception as error:  # the outermost frame of a job: every failure ends in the log and in one line
        log.info(traceback.format_exc())
        log.error(_failure_line(error, log_path))
        sys.exit(1)
    finally:
        to_file.close()
        progress_path(log_path).unlink(missing_ok=True)


@contextmanager
def _after(seconds: float) -> Iterator[None]:
    """Wait before the block."""
    if seconds:
        log.info("the last attempt failed: waiting %g s before this one", seconds)
        time.sleep(seconds)
    yield


def _log_to(log_path: str, name: str) -> logging.Handler:
    """The handler of a job's log file; warnings go to the terminal too."""
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    to_file = file_handler(log_path)
    log.handlers = [to_file, terminal_handler(f"[{name}] ")]
    log.setLevel(logging.INFO)
    log.propagate = False
    log.info("---- %s begins ----", name)
    return to_file


def _failure_line(error: Exception, log_path: str) -> str:
    """The message of a failure, with the path of its traceback if the message alone is not enough."""
    pointer = f"the traceback is in {log_path}"
    if not isinstance(error, ValueError | OSError | RuntimeError) or not str(error):
        line = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        return f"{line} (unexpected: {pointer})"
    names_no_file = isinstance(error, OSError) and error.filename is None
    return f"{error} ({pointer})" if names_no_file else str(error)
