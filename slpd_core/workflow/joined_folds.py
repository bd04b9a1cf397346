"""Rows whose folds one job evaluates: the start of a process takes as long as many a fold."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slpd_core.workflow.encoders import name_pattern
from slpd_core.workflow.resources import overwritten_resource, resource_limit
from slpd_core.workflow.rows import Rows

_Row = tuple[str, str, str]  # task, features, classifier


def select_joined_rows(
    rows: Rows, overwritten: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Any], *, planning: bool = True
) -> list[_Row]:
    """Select the rows whose folds one job evaluates; each fold of the others has a job of its own.

    They have no file yet: folds that are made again leave the files of the others alone. They have one encoder: folds
    of several would wait for the last of them.

    Args:
        rows: All rows.
        overwritten: Resources of rules that the user sets; `folds_per_job` of evaluate: 1 for a job per fold, their
            number for a job per row; without it a job per row where that leaves no core idle.
        limits: Of resources, for all jobs together.
        planning: Whether this is the process that plans. A job's own process has been told its rule.

    Returns:
        The rows.

    Raises:
        ValueError: Some folds per job, neither one nor all.
    """
    folds_per_job = overwritten_resource(overwritten, "evaluate", "folds_per_job")
    if folds_per_job not in (0, 1, len(rows.folds)):
        raise ValueError(
            f"--set-resources evaluate:folds_per_job={folds_per_job}: 1 evaluates each fold in a job of its own, "
            f"{len(rows.folds)} all folds of a row in one"
        )
    joined = [row for row in rows.evaluated if len({rows.fold_encoder(row[1], fold) for fold in rows.folds}) == 1]
    if planning:
        joined = [row for row in joined if not any(Path(path).exists() for path in rows.files(*row))]
    idle = planning and not folds_per_job and len(joined) < resource_limit(limits, "_cores")
    return [] if (folds_per_job == 1 and len(rows.folds) > 1) or idle else joined


def row_pattern(rows: Iterable[_Row]) -> str:
    """Build a regular expression of the wildcard `task` that matches in the paths of these rows alone.

    Args:
        rows: The rows.

    Returns:
        The expression: it looks ahead to the wildcards `features` and `classifier` of the path.
    """
    return rf"(?=(?:{name_pattern(map('/'.join, rows))})/fold)[^/]+"
