"""The tasks of a cohort: their labels, as the workflow knows them before any job runs."""

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import config
from slpd_core.evaluation import labels


class Tasks:
    """The tasks of a cohort and where their labels are.

    Args:
        settings: The whole config.
        slides: The checked sheet; columns slide_id, patient_id.

    Raises:
        ValueError: A table of labels has problems.
    """

    def __init__(self, settings: config.Config, slides: pd.DataFrame) -> None:
        section, in_sheet = settings.labels, settings.labels.path is None
        self.path = Path(section.path or settings.sheet.path).expanduser()
        renamed = settings.sheet.columns if in_sheet else {}
        self.key = "slide_id" if in_sheet else section.key
        self.id_column = renamed.get(self.key, self.key)
        self.columns = section.columns
        if not in_sheet and not self.path.is_file():
            raise FileNotFoundError(f"labels.path: {self.path}: no such table; correct the path, or set it to null")
        if in_sheet and self.path.is_dir() and self.columns:
            raise ValueError(f"labels.path: {self.path} is a folder of slides, without labels; name a table of labels")
        default = renamed.get(labels.DEFAULT_TASK, labels.DEFAULT_TASK)
        if not self.columns and self.path.is_file() and labels.has_labels(self.path, default, self.id_column):
            self.columns = {labels.DEFAULT_TASK: default}
        self.labels = {
            task: labels.read_labels(self.path, slides, task=task, **self._section(task)) for task in self.columns
        }

    @cached_property
    def names(self) -> list[str]:
        """The tasks; none of a cohort without labels."""
        return [*self.columns]

    def section(self, wildcards: Any) -> dict[str, str]:
        """Return where a task's labels are in their table.

        Args:
            wildcards: Of a rule; `task`.

        Returns:
            Arguments of `labels.read_labels`.
        """
        return self._section(wildcards.task)

    def rows(self, wildcards: Any) -> str:
        """Return the fingerprint of a task's labels, which changes with any of them and with nothing else.

        Args:
            wildcards: Of a rule; `task`.

        Returns:
            32 hex digits.
        """
        return labels.labels_fingerprint(self.labels[wildcards.task])

    def _section(self, task: str) -> dict[str, str]:
        return {"column": self.columns[task], "key": self.key, "id_column": self.id_column}
