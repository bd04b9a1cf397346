"""Tokens kept for a job of several slides: stopped, it goes on where it was; for one new slide it encodes that alone.

Snakemake deletes the outputs of a job that fails, and before a job runs again. A second name, a hard link, survives
that and takes no space. On file systems without links nothing is kept, and all slides of a job are encoded again.
"""

import os
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.runtime import log


def keep(kept_dir: Path, tokens_path: Path) -> None:
    """Keep a slide's tokens under a second name; they take the place of older ones.

    Args:
        kept_dir: Folder of kept tokens.
        tokens_path: The slide's tokens.
    """
    kept = kept_dir / tokens_path.name
    try:
        kept_dir.mkdir(parents=True, exist_ok=True)
        kept.unlink(missing_ok=True)
        os.link(tokens_path, kept)
    except OSError as error:
        log.info("not kept for a job that is stopped (%s)", error)


def restore(kept_dir: Path, fingerprint: str, regions: artifacts.Regions, tokens_path: Path) -> bool:
    """Give kept tokens their first name again.

    Args:
        kept_dir: Folder of kept tokens.
        fingerprint: Fingerprint of the tokens' inputs.
        regions: The slide's regions.
        tokens_path: The file to make.

    Returns:
        Whether there were tokens of these inputs.
    """
    kept = kept_dir / tokens_path.name
    try:
        with artifacts.open_tokens(kept, any_name=True) as (tokens, meta):
            same = meta["fingerprint"] == fingerprint and tokens.slide == regions.slide
            if not same or not np.array_equal(tokens.coords, regions.coords):
                return False
        tokens_path.parent.mkdir(parents=True, exist_ok=True)
        tokens_path.unlink(missing_ok=True)
        os.link(kept, tokens_path)
    except (ValueError, OSError):  # none, a damaged one, or a file system without links: the slide is encoded
        return False
    log.info("%s: encoded by an earlier job", regions.slide.slide_id)
    return True
