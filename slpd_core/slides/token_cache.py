"""Tokens that cohorts share: a folder of tokens files, each under the fingerprint of all that went into it.

The slide's bytes, the settings of tissue, regions and tokens, the patch encoder's weights and the stages' versions are
in the fingerprint; the slide's name and the cohort are not. Several users may share the folder: its own permissions say
who reads what is in it. What cannot be read or added costs the encoding, with a warning, and never ends a job.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from slpd_core import artifacts
from slpd_core.runtime import log

READ_BY_OTHERS = 0o044


def get(cache_dir: Path, fingerprint: str, regions: artifacts.Regions, tokens_path: Path) -> bool:
    """Copy a slide's tokens out of the cache, under the slide's present name; False where they are not in it.

    A file that can be read but is broken, or of other tokens, is removed from the cache, with a warning.
    """
    cached = cache_dir / f"{fingerprint}.h5"
    try:
        artifacts.copy_tokens(cached, tokens_path, regions, fingerprint)
    except FileNotFoundError:
        return False
    except ValueError:
        log.warning("%s: broken, removed from tokens.cache_dir", cached)
        with suppress(OSError):
            cached.unlink()
        return False
    except OSError as error:
        if error.filename != str(cached):  # of the slide's own tokens, as where the disk is full
            raise
        log.warning("tokens.cache_dir cannot be read (%s): the slide is encoded", error)
        return False
    log.info("taken from %s", cached)
    return True


def store(cache_dir: Path, fingerprint: str, tokens_path: Path) -> None:
    """Add tokens to the cache: another name for the same file where the file system has that, else a copy."""
    cached = cache_dir / f"{fingerprint}.h5"
    try:
        if cached.exists():
            return
        cache_dir.mkdir(parents=True, exist_ok=True)
        try:
            os.link(tokens_path, cached)
        except FileExistsError:
            return
        except OSError:
            with artifacts.atomic_write(cached) as part:
                shutil.copyfile(tokens_path, part)
        # Whoever may look into the folder may read what is in it, whatever this user's umask.
        cached.chmod(cached.stat().st_mode | cache_dir.stat().st_mode & READ_BY_OTHERS)
    except OSError as error:
        log.warning("not added to tokens.cache_dir (%s)", error)
