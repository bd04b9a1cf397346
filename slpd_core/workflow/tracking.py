"""Which files Snakemake tracks as inputs, and how changes of the others are seen.

Read but not declared as inputs, and why:

- the sheets and the slides: Snakemake refuses inputs that are dated in the future, as another machine's clock may date
  them, and slides may move. `rows` stands for the content of a sheet, `slide_file` for names, sizes and dates.
- outlines (tissue.masks): as slides; `outline_file` stands for size and date.
- a user's files with braces or angle brackets in their names, which Snakemake takes for patterns: `file_states`.
- shared tokens (tokens.cache): addressed by content, so another content has another name.
- the cohort's tokens in pretrain, embed, evaluate and predict: the ledger stands for all of them and says which.
- tissue, regions and overlays in gallery, heatmaps, predict and report, benchmarks in report: they are drawn or shown
  beside results that are made from the declared inputs.
- checkpoints and state/: what a run leaves for the next one after a failure; declared, they would be deleted.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

PATTERN_CHARACTERS = frozenset("{}<>")  # of Snakemake's wildcards and path variables


def untracked(location: Any) -> Callable[[Any, Any], Any]:
    """Wrap a location as a rule's parameter that may change without a rerun.

    Snakemake compares no parameter that is a function of threads.

    Args:
        location: The location, or a function of the wildcards that returns it.

    Returns:
        A function of wildcards and threads.
    """

    def locate(wildcards: Any, threads: Any) -> Any:
        return location(wildcards) if callable(location) else location

    return locate


def file_state(path: str | os.PathLike[str]) -> str:
    """Describe a file by its size and date, whatever it is called.

    Raises:
        OSError: It does not exist, or cannot be read.
    """
    stat = os.stat(path)
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def trackable(paths: Iterable[str]) -> list[str]:
    """Select the files that can be inputs."""
    return [path for path in paths if not PATTERN_CHARACTERS & {*path}]


def file_states(paths: Iterable[str]) -> list[str]:
    """Describe the files that cannot be inputs."""
    return [file_state(path) for path in paths if PATTERN_CHARACTERS & {*path}]
