"""Random generators that depend on a seed and on what they are for."""

import zlib

import numpy as np


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A random generator that depends on the seed and on what it is for, and on nothing else that ran.

    keys: for example ("pretrain", epoch, slide_id).
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([seed, *numbers])
