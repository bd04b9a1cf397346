"""Which files Snakemake tracks as inputs, and how changes of the others are noticed."""

import os
from collections.abc import Callable, Iterable
from typing import Any

# Files that rules read or write without declaring them: by the parameter that locates them, the reason.
_MAY_MOVE = "Snakemake refuses inputs dated in the future, as another machine's clock dates them; and they may move."
_SHOWN = "They are drawn or shown beside results that are made from declared inputs."
_KEPT = "One run leaves it for the next after a failure; Snakemake would delete a declared one."
UNDECLARED = {
    "sheet": f"{_MAY_MOVE} `rows` stands for the content.",
    "labels": f"{_MAY_MOVE} `rows` stands for the content.",
    "arguments": "The kind of a task and the names of its columns. `rows` stands for the content.",
    "columns": "The names of columns in the user's sheet. `rows` stands for the content.",
    "sheets": f"{_MAY_MOVE} preflight runs whenever it is requested.",
    "slide": f"{_MAY_MOVE} `slide_file` stands for names, sizes and dates of the slide's files.",
    "slides": f"{_MAY_MOVE} {_SHOWN}",
    "slide_paths": f"{_MAY_MOVE} `slide_file` stands for names, sizes and dates of the slides' files.",
    "outline_path": f"{_MAY_MOVE} `outline_file` stands for size and date, and for those of a network's weights.",
    "unmatched": "Names of files that are not read.",
    "coordinates": "It is an input too, where the slide has it.",
    "features_paths": "They are inputs too, where the slides have them.",
    "imported": "Other files are inputs then.",
    "kept_dir": _KEPT,
    "cache_dir": "Shared tokens are addressed by their content: other content has another name.",
    "tokens": "The ledger is declared and stands for all of them.",
    "tissue": _SHOWN,
    "regions": _SHOWN,
    "overlays": _SHOWN,
    "outlines": _SHOWN,
    "folds": "They are those of the declared outputs.",
    "benchmarks": _SHOWN,
    "paths": "The result tables are declared, but for those of cohorts that have none yet.",
    "checkpoint": _KEPT,
    "tracker": "Where scalars go as well; a result is the same.",
    "state": _KEPT,
    "results": "preflight measures the free disk there.",
    "out": "The folder of declared outputs.",
}
# Weights, splits and init_from are declared, unless Snakemake would take their names for patterns.
PATTERN_CHARACTERS = frozenset("{}<>")  # of Snakemake's wildcards and path variables


def untracked(location: Any) -> Callable[[Any, Any], Any]:
    """Wrap a location as a rule's parameter whose change reruns nothing.

    Snakemake compares no parameter that is a function of `threads`.

    Args:
        location: The location, or a function of the wildcards that returns it.

    Returns:
        A function of wildcards and threads.
    """

    def locate(wildcards: Any, threads: Any) -> Any:
        return location(wildcards) if callable(location) else location

    return locate


def existing(find: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """Turn a function that finds a file into an input of a rule, which is empty where there is none.

    Args:
        find: Of the wildcards: a file, several, or None in place of one.

    Returns:
        A function of the wildcards.
    """

    def find_existing(wildcards: Any) -> list[Any]:
        paths = find(wildcards)
        return [path for path in (paths if isinstance(paths, list) else [paths]) if path is not None]

    return find_existing


def file_state(path: str | os.PathLike[str]) -> str:
    """Describe a file by its size and date.

    Args:
        path: The file.

    Returns:
        The text.

    Raises:
        OSError: It does not exist, or cannot be read.
    """
    stat = os.stat(path)
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def trackable(paths: Iterable[str]) -> list[str]:
    """Select the files that can be inputs.

    Args:
        paths: The files.

    Returns:
        Those without characters of Snakemake's patterns in their names.
    """
    return [path for path in paths if not PATTERN_CHARACTERS & {*path}]


def file_states(paths: Iterable[str]) -> list[str]:
    """Describe the files that cannot be inputs.

    Args:
        paths: The files.

    Returns:
        One text per file, as `file_state` returns it.
    """
    return [file_state(path) for path in paths if PATTERN_CHARACTERS & {*path}]
