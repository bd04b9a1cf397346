"""A cache of tokens that cohorts share: a folder of tokens files, named by the fingerprint of their inputs.

The fingerprint covers the slide's bytes, the settings of tissue, regions and tokens, the patch encoder's weights and
the stages' versions. It does not cover the slide's name and the cohort. Several users may share the folder; its own
permissions say who may read the files. A file that cannot be read or added costs an encoding and a warning, never the
job.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from slpd_core import artifacts
from slpd_core.runtime import log

READ_BY_OTHERS = 0o044


def get(cache_dir: Path, fingerprint: str, regions: artifacts.Regions, tokens_path: Path) -> bool:
    """Copy a slide's tokens out of the cache, under the slide's present name.

    A broken file, or one of other tokens, is removed from the cache with a warning.

    Args:
        cache_dir: The cache.
        fingerprint: Fingerprint of the tokens' inputs.
        regions: The slide's regions.
        tokens_path: The file to write.

    Returns:
        Whether the cache had them.

    Raises:
        OSError: `tokens_path` cannot be written.
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
        if error.filename != str(cached):  # an error of `tokens_path`, as of a full disk
            raise
        log.warning("tokens.cache_dir cannot be read (%s): the slide is encoded", error)
        return False
    log.info("taken from %s", cached)
    return True


def store(cache_dir: Path, fingerprint: str, tokens_path: Path) -> None:
    """Add tokens to the cache: a hard link if the file system has them, else a copy.

    Args:
        cache_dir: The cache.
        fingerprint: Fingerprint of the tokens' inputs.
        tokens_path: The slide's tokens.
    """
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
        # Whoever may read the folder may read its files, whatever this user's umask.
        cached.chmod(cached.stat().st_mode | cache_dir.stat().st_mode & READ_BY_OTHERS)
    except OSError as error:
        log.warning("not added to tokens.cache_dir (%s)", error)
