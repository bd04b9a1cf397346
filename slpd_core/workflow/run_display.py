"""What a run shows while it goes: one line per job, kept up to date on a terminal and printed once a minute elsewhere.

It listens to Snakemake's messages and reads the files in which jobs tell their progress, so it is the same for jobs of
this machine and of a cluster.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.runtime import CLEAR_BELOW, JobProgress, progress_path, read_progress
from slpd_core.workflow.run_lines import format_duration, format_job, format_run
from slpd_core.workflow.time_left import PlannedJob, TimeLeft, plan_run

# Messages of Snakemake that these lines replace; its log file keeps them.
REPLACED = {"job_info", "group_info", "job_started", "job_finished", "progress", "shellcmd"}
SAID = ("Select jobs to execute", "Elapsed time")
LOG_HINT = "Complete log(s)"  # of use where a job failed
OF_A_STOP = {"job_error", "group_error", "error"}  # of jobs that the user has stopped
STOPS = ("Terminating processes on user request", "Will exit after finishing currently running jobs")
LIVE_SECONDS, CLUSTER_SECONDS, LINE_SECONDS = 1.0, 5.0, 60.0  # between looks: here, on a cluster; between lines
MAX_JOBS, MAX_FAILED = 20, 5  # of the lines that are printed once a minute


@dataclass
class _Running:
    """A job that runs, or waits in a cluster's queue."""

    planned: PlannedJob
    log: str
    since: float | None  # None before it begins


class RunDisplay(logging.Handler):
    """The lines of a run; a handler of Snakemake's messages, which it clears the way for on a terminal.

    Args:
        jobs: By Snakemake's number.
        forecast: Of the preflight, seconds per unit by stage.
        stream: Where the lines go.
        queues: Whether jobs wait in a cluster's queue before they begin.
    """

    def __init__(
        self, jobs: Mapping[int, PlannedJob], forecast: Mapping[str, float], stream: TextIO, *, queues: bool = False
    ) -> None:
        super().__init__()
        self.jobs, self.stream, self.queues = jobs, stream, queues
        self.time_left = TimeLeft(jobs, forecast)
        self.running: dict[int, _Running] = {}
        self.failed: dict[int, str] = {}  # log files
        self.done, self.stopped, self.started = 0, False, time.monotonic()
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._printed: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Print the first line, and the others from now on."""
        self._print_lines([self._run_line([])])
        self._thread.start()

    def close(self) -> None:
        """Clear what is not to stay on a terminal, and print no more."""
        self._ended.set()
        with self.lock:  # type: ignore[union-attr]
            self._clear()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what Snakemake says of a job.

        Args:
            record: Its message.
        """
        try:
            self._note(record)
        except Exception:
            self.handleError(record)  # as all handlers do: a line that cannot be printed must not end the run

    def _note(self, record: logging.LogRecord) -> None:
        """Take note of a message."""
        self._clear()
        event, now = str(getattr(record, "event", None) or ""), time.monotonic()
        number = getattr(record, "job_id", getattr(record, "jobid", -1))
        self.stopped |= str(record.msg).startswith(STOPS)
        if number not in self.jobs:
            return
        if event == "job_info":
            log = str(record.log[0])  # type: ignore[attr-defined]
            progress_path(log).unlink(missing_ok=True)  # of an attempt that was killed
            self.failed.pop(number, None)
            self.time_left.retry(number)
            if not self.queues:
                self.time_left.begin(number)
            self.running[number] = _Running(self.jobs[number], log, None if self.queues else now)
        elif event == "job_finished" and number in self.running:
            job = self.running.pop(number)
            self.time_left.begin(number)
            self.done += 1
            if job.since is not None:
                self.time_left.finish(number, now - job.since)
        elif event == "job_error" and number in self.running:
            job = self.running.pop(number)
            self.time_left.begin(number)
            self.failed[number] = job.log

    def filter_replaced(self, record: logging.LogRecord) -> bool:
        """Tell whether a message of Snakemake is still to be shown.

        Args:
            record: The message.

        Returns:
            False where the lines say it.
        """
        event = str(getattr(record, "event", None) or "")
        hidden = REPLACED | (OF_A_STOP if self.stopped else set())
        said = SAID if self.stopped or self.failed else (*SAID, LOG_HINT)
        return event not in hidden and not str(record.msg).startswith(said)

    def lines(self, *, since_s: float = 0.0) -> list[str]:
        """Format the lines as of now.

        Args:
            since_s: Seconds that a job has run at least, and since its last line.

        Returns:
            One per job, then that of the run.
        """
        self._look()
        now = time.monotonic()
        states = [
            (number, now - job.since, read_progress(job.log))
            for number, job in self.running.items()
            if job.since is not None
        ]
        due = [state for state in states if state[1] >= since_s and now - self._printed.get(state[0], 0.0) >= since_s]
        if since_s:
            due = due[:MAX_JOBS]
            self._printed |= dict.fromkeys((number for number, _, _ in due), now)
        named = [format_job(self.jobs[number].name, progress, elapsed) for number, elapsed, progress in due]
        return [*named, self._run_line(states)]

    def end(self) -> list[str]:
        """End the display.

        Returns:
            The last lines: what failed, and how to go on.
        """
        self.close()
        jobs, took = f"{self.done:,} of {len(self.jobs):,} jobs", format_duration(time.monotonic() - self.started)
        if self.stopped:
            return [f"Stopped after {took}, {jobs} done: the same command goes on from here."]
        lines = [f"[{self.jobs[number].name}] failed: {log}" for number, log in self.failed.items()]
        if len(lines) > MAX_FAILED:
            lines = [*lines[:MAX_FAILED], f"... and {len(lines) - MAX_FAILED:,} more"]
        if self.failed:
            return [*lines, f"{jobs} done in {took}: once the cause is mended, the same command goes on from here."]
        return [f"{jobs} done in {took}."]

    def _look(self) -> None:
        """Note which jobs have begun that waited in a queue."""
        for number, job in self.running.items():
            if job.since is None and progress_path(job.log).exists():
                job.since = time.monotonic()
                self.time_left.begin(number)

    def _run_line(self, states: Collection[tuple[int, float, JobProgress | None]]) -> str:
        """The line of the run."""
        left_s, known = self.time_left.estimate(states)
        queued = len(self.running) - len(states)
        return format_run(self.done, len(self.jobs), failed=len(self.failed), queued=queued, left_s=left_s, known=known)

    def _watch(self) -> None:
        """Keep the lines up to date until the run ends."""
        wait, last = CLUSTER_SECONDS if self.queues else LIVE_SECONDS, time.monotonic()
        while not self._ended.wait(wait):
            with self.lock:  # type: ignore[union-attr]
                if self._ended.is_set():
                    return
                if self.live:
                    self._draw(self.lines())
                elif time.monotonic() - last >= LINE_SECONDS:
                    last = time.monotonic()
                    self._print_lines(self.lines(since_s=LINE_SECONDS - CLUSTER_SECONDS))
                else:
                    self._look()

    def _print_lines(self, lines: list[str]) -> None:
        """Print lines that stay."""
        if not self.live:
            stamp = time.strftime("%H:%M:%S")
            self.stream.write("".join(f"{stamp} {line}\n" for line in lines))
            self.stream.flush()

    def _draw(self, lines: list[str]) -> None:
        """Draw lines below an empty one, where the cursor stays: what jobs write themselves is not drawn over."""
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 3)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"... and {len(lines) - room} more jobs; {lines[-1]}"]
        block = "".join(f"\n{line[: size.columns - 1]}" for line in lines)
        self.stream.write(f"{CLEAR_BELOW}{block}\x1b[{len(lines)}A\r")
        self.stream.flush()

    def _clear(self) -> None:
        """Clear what was drawn."""
        if self.live:
            self.stream.write(CLEAR_BELOW)
            self.stream.flush()


def show_run(workflow: Any, paths: CohortPaths) -> RunDisplay | None:
    """Show a run that begins, in place of Snakemake's lines on its jobs.

    Args:
        workflow: Snakemake's.
        paths: The files of the cohort.

    Returns:
        The display; None without jobs, and where the user asks for --verbose, --quiet all, or another --logger.
    """
    settings, logger = workflow.output_settings, workflow.logger_manager.logger
    handler = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    if handler is None or settings.verbose or "all" in {str(quiet).lower() for quiet in settings.quiet or ()}:
        return None
    jobs = plan_run(workflow)
    if not jobs:
        return None
    try:
        forecast = artifacts.read_json(paths.forecast())["seconds"]
    except (OSError, ValueError, KeyError):
        forecast = {}
    display = RunDisplay(jobs, forecast, handler.stream, queues=not workflow.local_exec)
    handler.addFilter(display.filter_replaced)
    logger.handlers.insert(0, display)  # before the handler that prints, so that it clears the way
    display.start()
    return display


def end_run(workflow: Any) -> list[str]:
    """End the display of a run.

    Args:
        workflow: Snakemake's.

    Returns:
        Its last lines; none without a display.
    """
    logger = workflow.logger_manager.logger
    display = next((handler for handler in logger.handlers if isinstance(handler, RunDisplay)), None)
    if display is None:
        return []
    logger.removeHandler(display)
    return display.end()
