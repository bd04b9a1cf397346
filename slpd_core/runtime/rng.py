"""Random generators that depend on a seed and on their purpose."""

import zlib

import numpy as np


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Make a random generator that depends on the seed and its keys alone, not on earlier draws.

    Args:
        seed: The run's seed.
        keys: Its purpose, such as "pretrain", epoch, slide_id.

    Returns:
        The generator.
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([seed, *numbers])
