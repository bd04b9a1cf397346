"""Tokens that cohorts share: a folder of tokens files, each under the fingerprint of all that went into it.

The slide's bytes, the settings of tissue, regions and tokens, the patch encoder's weights and the stages' versions are
in the fingerprint; the slide's name and the cohort are not.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from slpd_core import store
from slpd_core.runtime import log


def take(cache_dir: Path, fingerprint: str, regions: store.Regions, tokens_path: Path) -> bool:
    """Copy a slide's tokens out of the cache, under the slide's present name; False where they are not in it.

    A broken file is removed from the cache, with a warning.
    """
    cached = cache_dir / f"{fingerprint}.h5"
    if not cached.exists():
        return False
    try:
        with store.open_tokens(cached) as (tokens, meta):
            whole = meta["fingerprint"] == fingerprint and np.array_equal(tokens.coords, regions.coords)
    except ValueError:
        whole = False
    if not whole:
        log.warning("%s: broken, removed from tokens.cache", cached)
        cached.unlink(missing_ok=True)
        return False
    store.copy_tokens(cached, tokens_path, regions)
    log.info("taken from %s", cached)
    return True


def put(cache_dir: Path, fingerprint: str, tokens_path: Path) -> None:
    """Add tokens to the cache: another name for the same file where the file system has that, else a copy."""
    cached = cache_dir / f"{fingerprint}.h5"
    if cached.exists():
        return
    cache_dir.mkdir(parents=True, exist_ok=True)
    try:
        os.link(tokens_path, cached)
    except FileExistsError:
        pass
    except OSError:
        with store.replacing(cached) as part:
            shutil.copyfile(tokens_path, part)
