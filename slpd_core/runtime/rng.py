"""Random generators that depend on a seed and on what they are for."""

import zlib

import numpy as np


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Create a random generator that depends on a seed and keys alone.

    Args:
        seed: Of the run.
        keys: For example ("pretrain", epoch, slide_id).

    Returns:
        The generator.
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([seed, *numbers])
