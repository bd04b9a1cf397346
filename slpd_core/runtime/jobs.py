"""A job: its log file, threads, GPUs, and one clear line where it fails."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slpd_core.runtime.gpus import gpu_slot, pytorch_can_use
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
    goes_on: bool = False,
    keeps_memory: bool = True,
    wait_s: float = 0,
) -> Iterator[str]:
    """Run a job's work: a log file, limited threads, its own GPU; a failure ends in one clear line on the terminal.

    log_path: file for the log, the traceback of a failure included. name: what the job works on, e.g. "tissue slide-7".
    goes_on: whether another process of the job has begun the log. keeps_memory: as `keep_freed_memory` has it.
    wait_s: seconds before it begins, as an attempt after one that failed does.
    Gives the device: "cuda" where the job holds GPUs that PyTorch can use, else "cpu". Raises SystemExit when the work
    fails or SIGTERM stops it.
    """
    to_file = _log_to(log_path, name, goes_on)
    started = time.monotonic()
    if keeps_memory:
        keep_freed_memory()
    try:
        with sigterm_exits(), limited_threads(threads), _after(wait_s), gpu_slot(gpus) as held:
            yield "cuda" if held and pytorch_can_use(held) else "cpu"
        log.info("done in %.1f s", time.monotonic() - started)
    except SystemExit as stop:
        if stop.code == TERMINATED:
            log.error("stopped by SIGTERM after %.1f s: a time limit, or someone ended it", time.monotonic() - started)
        raise
    except Exception as error:  # the outermost frame of a job: whatever failed ends in the log and in one line
        log.info(traceback.format_exc())
        log.error(_failure_line(error, log_path))
        sys.exit(1)
    finally:
        to_file.close()


@contextmanager
def _after(seconds: float) -> Iterator[None]:
    if seconds:
        log.info("the last attempt failed: waiting %g s before this one", seconds)
        time.sleep(seconds)
    yield


def _log_to(log_path: str, name: str, goes_on: bool) -> logging.Handler:
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    if not goes_on:
        Path(log_path).write_bytes(b"")
    to_file = file_handler(log_path)
    log.handlers = [to_file, terminal_handler(f"[{name}] ")]
    log.setLevel(logging.INFO)
    log.propagate = False
    return to_file


def _failure_line(error: Exception, log_path: str) -> str:
    """The message of a failure, and where its traceback is unless the message says enough by itself."""
    where = f"the traceback is in {log_path}"
    if not isinstance(error, ValueError | OSError | RuntimeError) or not str(error):
        line = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        return f"{line} (unexpected: {where})"
    names_no_file = isinstance(error, OSError) and error.filename is None
    return f"{error} ({where})" if names_no_file else str(error)
