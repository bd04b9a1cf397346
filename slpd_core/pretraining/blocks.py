"""Blocks of regions, as large as the memory of a device allows."""

from collections.abc import Callable
from typing import TypeVar

import torch

from slpd_core.runtime import log

T = TypeVar("T")
BLOCK_REGIONS = {"cpu": 32, "cuda": 256}  # that go through a network at a time


def in_blocks(work: Callable[[int], T], n_regions: int, device: torch.device) -> T:
    """Call a function with the number of regions per block; where memory is short, halve it for good.

    Args:
        work: Is called anew after each halving.
        n_regions: Of the batch.
        device: Where it works.

    Returns:
        The result of the function.

    Raises:
        torch.OutOfMemoryError: Memory is short even for one region, or a CUDA graph is captured.
    """
    while True:
        size = min(BLOCK_REGIONS[device.type], n_regions)
        try:
            return work(size)
        except torch.OutOfMemoryError:
            if size <= 1 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
                raise
            BLOCK_REGIONS[device.type] = size // 2
            log.warning("memory is short for %d regions at a time: %d at a time from now on", size, size // 2)
