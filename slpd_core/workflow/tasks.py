"""The tasks of a cohort: their labels, as the workflow knows them before any job runs."""

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import config
from slpd_core.artifacts.column_names import ColumnNames, quote_name
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.evaluation.label_table import DEFAULT_TASK, find_id_doubts, has_labels, read_truth
from slpd_core.evaluation.labels import labels_fingerprint, read_labels
from slpd_core.slides.sheet_table import ALIASES


class Tasks:
    """The tasks of a cohort and where their labels are.

    Args:
        settings: The whole config.
        slides: The checked sheet; columns slide_id, patient_id.

    Raises:
        FileNotFoundError: labels.path names no file.
        ValueError: It names a table without labels, or tasks are named but there is no table.
    """

    def __init__(self, settings: config.Config, slides: pd.DataFrame) -> None:
        section, self.in_sheet = settings.labels, settings.labels.path is None
        self.slides, self.path = slides, Path(section.path or settings.sheet.path).expanduser()
        self.key = "slide_id" if self.in_sheet else section.key
        renamed = settings.sheet.columns if self.in_sheet else {}
        self.id_column = (
            section.id_column if section.id_column and not self.in_sheet else renamed.get(self.key, self.key)
        )
        tasks = section.tasks or {}
        self.endpoints = {task: make_endpoint(of.kind, of.order or ()) for task, of in tasks.items()}
        self.columns = {task: [renamed.get(name, name) for name in of.columns(task)] for task, of in tasks.items()}
        if not self.in_sheet and not self.path.is_file():
            raise FileNotFoundError(f"labels.path: {self.path}: no such table; correct the path, or set it to null")
        if self.path.is_dir() and self.columns:
            raise ValueError(f"labels.path: {self.path} is a folder of slides, without labels; name a table of labels")
        default = renamed.get(DEFAULT_TASK, DEFAULT_TASK)
        if section.tasks == {} and self.path.is_file() and self._has_labels(default):
            self.columns = {DEFAULT_TASK: [default]}
            self.endpoints = {DEFAULT_TASK: make_endpoint("classification")}

    def _has_labels(self, column: str) -> bool:
        """Whether the table has the column of the default task; raises ValueError if a table of labels lacks it."""
        if has_labels(self.path, column=column, id_column=self.id_column):
            return True
        if not self.in_sheet:
            raise ValueError(
                f"labels.path: {self.path} has no values in a column {column}; name its columns in labels.tasks, or "
                "set labels.path to null"
            )
        return False

    @cached_property
    def names(self) -> list[str]:
        """The tasks; none of a cohort without labels."""
        return [*self.columns]

    @cached_property
    def labels(self) -> dict[str, pd.DataFrame]:
        """The labels of each task, as `labels.read_labels` returns them; raises ValueError where they have problems."""
        return {task: self._read(task) for task in self.names}

    @property
    def descriptions(self) -> dict[str, str]:
        """How many slides each task labels, and how."""
        return {
            task: f"{len(table):,} slides: {self.endpoints[task].describe(table)}"
            for task, table in self.labels.items()
        }

    @cached_property
    def doubts(self) -> list[str]:
        """Ids of the tables that match no slide, and values that were taken as missing, one line each."""
        lines = []
        for task, columns in self.columns.items():
            content = read_truth(self.path, columns=columns, id_column=self.id_column)
            doubts = find_id_doubts(content, self.slides, key=self.key)
            lines += [f"task {task}: {self.path}: {doubt}" for doubt in doubts]
        return lines

    def describe_waiting(self) -> str:
        """Say why there is no task, and how to name one; "" if there is one."""
        if self.names:
            return ""
        remedy = "add a column `label` to the sheet, or name a table of labels (settings: labels)"
        if self.in_sheet and self.path.is_file():
            header = read_text_table(self.path, (self.id_column,), ragged=True).header
            alias = ColumnNames(aliases=ALIASES).find_alias(DEFAULT_TASK, header)
            if alias and alias != DEFAULT_TASK:
                remedy = f"column {alias} may hold it: set sheet.columns: {{label: {quote_name(alias)}}}; or {remedy}"
        return f"no slide has a label, so evaluation waits for labels: {remedy}"

    def arguments(self, wildcards: Any) -> dict[str, Any]:
        """Return where a task's labels are in their table, and their kind, as arguments of `labels.run`.

        Args:
            wildcards: Of a rule; `task`.

        Returns:
            kind, classes, columns, key and id_column.
        """
        endpoint = self.endpoints[wildcards.task]
        return {"kind": endpoint.kind, "classes": [*endpoint.classes]} | self._columns_of(wildcards.task)

    def rows(self, wildcards: Any) -> str:
        """Return the fingerprint of a task's labels, which changes with any of them and with nothing else.

        Args:
            wildcards: Of a rule; `task`.

        Returns:
            32 hex digits.
        """
        task = wildcards.task
        table = self.labels[task] if "labels" in vars(self) else self._read(task)
        return labels_fingerprint(table, self.endpoints[task])

    def _columns_of(self, task: str) -> dict[str, Any]:
        return {"columns": self.columns[task], "key": self.key, "id_column": self.id_column}

    def _read(self, task: str) -> pd.DataFrame:
        return read_labels(self.path, self.slides, self.endpoints[task], task=task, **self._columns_of(task))
