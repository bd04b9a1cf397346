"""Timing side by side."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def best_seconds(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The least seconds of each way, taken in turn, so that what else the machine does falls on all alike."""
    found = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name] = min(found[name], time.perf_counter() - started)
    return found


def show(title: str, seconds: Mapping[str, float], work: float, unit: str, baseline: str) -> None:
    """Print a table: the rate of each way and its ratio to the baseline's."""
    print(f"{title}\n\n| way | {unit} | ratio |\n|---|---:|---:|")
    for name, spent in seconds.items():
        print(f"| {name} | {work / spent:.1f} | {seconds[baseline] / spent:.2f} |")
    print(flush=True)
