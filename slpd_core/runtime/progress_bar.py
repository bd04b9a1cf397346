"""Progress of a long loop: a bar on a terminal, lines in the log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from slpd_core.runtime.logs import log

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[Item], total: int, label: str, unit: str = "it") -> Iterator[Item]:
    """Iterate with a progress bar on a terminal and a line in the log every 15 seconds.

    Args:
        items: The items.
        total: Number of items.
        label: Name of the loop.
        unit: Name of the items.

    Yields:
        The items.
    """
    from tqdm import tqdm

    last = started = time.monotonic()
    with tqdm(total=total, desc=label, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            now = time.monotonic()
            if done == total or now - last > SECONDS_BETWEEN_LINES:
                last = now
                rate = done / max(now - started, 1e-9)
                left = (total - done) / rate
                log.info("%s: %d of %d %s, %.2f per second, %.0f s left", label, done, total, unit, rate, left)
