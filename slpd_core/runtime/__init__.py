"""A job's log, progress, randomness, threads and device."""

from slpd_core.runtime.gpus import gpu_slot
from slpd_core.runtime.job_progress import JobProgress, note_progress, progress, progress_path, read_progress
from slpd_core.runtime.jobs import job
from slpd_core.runtime.logs import CLEAR_BELOW, file_handler, log, read_earlier_seconds, terminal_handler
from slpd_core.runtime.messages import escape_controls, name_some
from slpd_core.runtime.rng import generator
from slpd_core.runtime.signals import SECONDS_TO_STOP, TERMINATED, deferred_sigterm, sigterm_exits
from slpd_core.runtime.threads import fast_imports, keep_freed_memory, limit_spinning, limited_threads

__all__ = [
    "CLEAR_BELOW",
    "SECONDS_TO_STOP",
    "TERMINATED",
    "JobProgress",
    "deferred_sigterm",
    "escape_controls",
    "fast_imports",
    "file_handler",
    "generator",
    "gpu_slot",
    "job",
    "keep_freed_memory",
    "limit_spinning",
    "limited_threads",
    "log",
    "name_some",
    "note_progress",
    "progress",
    "progress_path",
    "read_earlier_seconds",
    "read_progress",
    "sigterm_exits",
    "terminal_handler",
]
