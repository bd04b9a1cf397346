"""The labels of external cohorts, as the workflow knows them before any job runs."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import config
from slpd_core.artifacts.spreadsheets import read_text_table
from slpd_core.config import ExternalLabelsConfig
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.evaluation.label_table import find_id_doubts, read_truth
from slpd_core.evaluation.labels import labels_fingerprint, read_labels
from slpd_core.workflow.tasks import Tasks


class ExternalLabels:
    """The labels of external cohorts for the tasks of a cohort.

    Args:
        settings: The whole config.
        sheets: By name, the checked sheets of external cohorts.
        tasks: Of the cohort.

    Raises:
        FileNotFoundError: predict.labels names no file.
        ValueError: It names a table without the columns of any task, or labels have problems.
    """

    def __init__(self, settings: config.Config, sheets: Mapping[str, pd.DataFrame], tasks: Tasks) -> None:
        self.settings, self.sheets, self.tasks = settings, sheets, tasks
        self._arguments = {name: self._locate(name) for name in sheets if name in settings.predict.sheet}

    @cached_property
    def tables(self) -> dict[tuple[str, str], pd.DataFrame]:
        """By external cohort and task, the labels of slides that have one; without those that have none."""
        pairs = [(name, task) for name, tasks in self._arguments.items() for task in tasks]
        tables = {pair: self._read(*pair) for pair in pairs}
        return {pair: table for pair, table in tables.items() if len(table)}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The external cohorts and tasks whose labels are known."""
        return [*self.tables]

    @cached_property
    def doubts(self) -> list[str]:
        """Ids of the tables that match no slide, and values that were taken as missing, one line each."""
        lines = []
        for name, task in ((name, task) for name, tasks in self._arguments.items() for task in tasks):
            of, path = self._arguments[name][task], self._path(name)
            content = read_truth(path, columns=of["columns"], id_column=of["id_column"])
            doubts = find_id_doubts(content, self.sheets[name], key=of["key"])
            lines += [f"external cohort {name}, task {task}: {path}: {doubt}" for doubt in doubts]
        return lines

    def path(self, wildcards: Any) -> Path:
        """Return the table of labels of an external cohort.

        Args:
            wildcards: Of a rule; `external`.

        Returns:
            Its path.
        """
        return self._path(wildcards.external)

    def arguments(self, wildcards: Any) -> dict[str, Any]:
        """Return where labels are in their table, and their kind, as arguments of `labels.run`.

        Args:
            wildcards: Of a rule; `external` and `task`.

        Returns:
            kind, classes, columns, key, id_column and external.
        """
        endpoint = self._endpoint(wildcards.task)
        of = self._arguments[wildcards.external][wildcards.task]
        return {"kind": endpoint.kind, "classes": [*endpoint.classes], "external": True} | of

    def rows(self, wildcards: Any) -> str:
        """Return the fingerprint of labels, which changes with any of them and with nothing else.

        Args:
            wildcards: Of a rule; `external` and `task`.

        Returns:
            32 hex digits.
        """
        table = self._read(wildcards.external, wildcards.task)
        return labels_fingerprint(table, self._endpoint(wildcards.task))

    def _section(self, name: str) -> ExternalLabelsConfig:
        return self.settings.predict.labels.get(name, ExternalLabelsConfig())

    def _path(self, name: str) -> Path:
        return Path(self._section(name).path or self.settings.predict.sheet[name]).expanduser()

    def _endpoint(self, task: str) -> Endpoint:
        """The endpoint that labels are read by; classes are free, since some may be unknown to the classifiers."""
        endpoint = self.tasks.endpoints[task]
        return make_endpoint("classification") if endpoint.has_classes else endpoint

    def _locate(self, name: str) -> dict[str, dict[str, Any]]:
        """By task whose columns the table of an external cohort has: columns, key and id_column."""
        section, path = self._section(name), self._path(name)
        key = f"predict.labels.{name}.path"
        if section.path and not path.is_file():
            raise FileNotFoundError(f"{key}: {path}: no such table; correct the path, or set it to null for the sheet")
        if not path.is_file() or not self.tasks.names:  # a folder of slides; nothing to score
            return {}
        renamed = {} if section.path else self.settings.sheet.columns
        header = read_text_table(path, (), ragged=True).header

        def name_of(column: str) -> str:
            return renamed[column] if renamed.get(column) in header else column

        of_key = "slide_id" if not section.path else section.key
        id_column = section.id_column if section.path and section.id_column else name_of(of_key)
        named = self.settings.labels.tasks or {}
        columns = {task: named[task].columns(task) if task in named else [task] for task in self.tasks.names}
        located = {
            task: {"columns": [*map(name_of, of_task)], "key": of_key, "id_column": id_column}
            for task, of_task in columns.items()
        }
        present = {task: of for task, of in located.items() if {*of["columns"]} <= {*header}}
        if section.path and not present:
            wanted = "; ".join(f"{task}: {', '.join(of['columns'])}" for task, of in located.items())
            raise ValueError(f"{key}: {path} has no column of a task ({wanted}) among {', '.join(header)}; add one")
        return present

    def _read(self, name: str, task: str) -> pd.DataFrame:
        of, endpoint = self._arguments[name][task], self._endpoint(task)
        return read_labels(self._path(name), self.sheets[name], endpoint, task=task, external=True, **of)
