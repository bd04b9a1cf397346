"""Timing side by side, and memory in a process of its own."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Way = TypeVar("Way", bound=Hashable)


def best_seconds(ways: Mapping[Way, Callable[[], object]], rounds: int = 5) -> dict[Way, float]:
    """Return the least seconds of each way, timed in turn, so that other load on the machine affects all alike."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            least[name] = min(least[name], time.perf_counter() - started)
    return least


def show(title: str, seconds: Mapping[str, float], work: float, unit: str, baseline: str) -> None:
    """Print a table: the rate of each way, and its ratio to the baseline."""
    print(f"{title}\n\n| way | {unit} | ratio |\n|---|---:|---:|")
    for name, spent in seconds.items():
        print(f"| {name} | {work / spent:.1f} | {seconds[baseline] / spent:.2f} |")
    print(flush=True)


def processor() -> str:
    """Name the processor and its widest vectors; "" where not on Linux."""
    about = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in about.read_text().splitlines()] if about.exists() else []
    values = {key.strip(): value.split() for key, _, value in lines}
    vectors = {"avx512f": "AVX-512", "avx2": "AVX2"}
    widest = next((shown for flag, shown in vectors.items() if flag in values.get("flags", [])), "")
    return ", ".join(text for text in (" ".join(values.get("model name", [])), widest) if text)


@dataclass(frozen=True)
class Cost:
    """Seconds and MB read of a piece of work, and the peak memory in MB of the process that did it."""

    seconds: float
    peak_mb: float
    read_mb: float


def in_own_process(work: Callable[..., Any], *arguments: object) -> tuple[Any, Cost]:
    """Call `work` in a new process; return its result and cost.

    The process is forked from a server without libraries: a fork of this one would inherit its peak memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, work, *arguments).result()


def _measured(work: Callable[..., Any], *arguments: object) -> tuple[Any, Cost]:
    started, read = time.perf_counter(), _bytes_read()
    result = work(*arguments)
    spent = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result, Cost(spent, peak_kib * 1024 / 1e6, (_bytes_read() - read) / 1e6)


def _bytes_read() -> int:
    """Return the bytes that this process has read from files, cached or not; 0 where not on Linux."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0
