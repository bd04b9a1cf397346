"""Show the progress of a long loop."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from slpd_core.runtime.logs import log

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Pass items on and show the progress: a bar on a terminal, now and then a line in the log.

    Args:
        items: Of the loop.
        total: Their number.
        what: Name of the loop.
        unit: Name of an item.

    Yields:
        The items.
    """
    from tqdm import tqdm

    last = started = time.monotonic()
    with tqdm(total=total, desc=what, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            now = time.monotonic()
            if done == total or now - last > SECONDS_BETWEEN_LINES:
                last = now
                rate = done / max(now - started, 1e-9)
                left = (total - done) / rate
                log.info("%s: %d of %d %s, %.2f a second, %.0f s left", what, done, total, unit, rate, left)
