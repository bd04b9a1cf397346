"""The patches that stage one is trained on, read from disk batch by batch."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slpd_core import artifacts
from slpd_core.ssl import distributed


class PatchDataset:
    """The sampled patches of all slides as one array, read from disk when asked for.

    Args:
        paths: Of the slides' patches.

    Raises:
        ValueError: No slide has any.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        read = [artifacts.read_patches(path) for path in paths]
        self._arrays = [array for array, _ in read]
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])
        self.fingerprint = artifacts.fingerprint(*(meta["fingerprint"] for _, meta in read), *map(str, self._starts))
        if not len(self):
            raise ValueError("no slide has patches to train the patch encoder on; the ledger's logs say why")

    def __len__(self) -> int:
        """Return the number of patches."""
        return int(self._starts[-1])

    def get(self, rows: np.ndarray) -> Tensor:
        """Read patches.

        Args:
            rows: int64 (n,).

        Returns:
            uint8 (n, P, P, 3).
        """
        slides = np.searchsorted(self._starts, rows, side="right") - 1
        patches = [self._arrays[slide][row - self._starts[slide]] for slide, row in zip(slides, rows, strict=True)]
        return torch.from_numpy(np.stack(patches))


def read_ahead(patches: PatchDataset, batches: list[np.ndarray]) -> Generator[Tensor]:
    """Read batches, the next one while the last is worked on.

    Args:
        patches: On disk.
        batches: Rows of each.

    Yields:
        This process's share of each batch, uint8 (b, P, P, 3).
    """
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(patches.get, distributed.local_shard(batch)) for batch in batches[:2]]
        for i in range(len(batches)):
            yield reading.pop(0).result()
            if i + 2 < len(batches):
                reading.append(thread.submit(patches.get, distributed.local_shard(batches[i + 2])))
