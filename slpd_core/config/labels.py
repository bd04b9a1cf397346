"""Settings of labels and tasks."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from slpd_core.config.base import PLAIN_NAME, Section, raise_problems


class TaskConfig(Section):
    """A task: what is predicted. The user names tasks, so these settings have their defaults here.

    Args:
        kind: classification; ordinal: classes with an order; regression: a number; survival: a time to an event.
        column: Of the table of labels; None: called as the task.
        order: Of an ordinal task, its classes from the lowest.
        time, event: Of a survival task, the columns of the follow-up, and of whether it ended by the event.
    """

    kind: Literal["classification", "ordinal", "regression", "survival"] = "classification"
    column: str | None = None
    order: Annotated[list[str], Field(min_length=2)] | None = None
    time: str | None = None
    event: str | None = None

    @field_validator("order", mode="before")
    @classmethod
    def _classes_may_be_numbers(cls, order: Any) -> Any:
        return [str(name) if type(name) is int else name for name in order] if isinstance(order, list) else order

    @model_validator(mode="after")
    def _kinds_have_their_settings(self) -> Self:
        needed = {"ordinal": ["order"], "survival": ["time", "event"]}.get(self.kind, [])
        lines = [f"{key}: a task of kind {self.kind} needs it" for key in needed if getattr(self, key) is None]
        refused = {"order", "time", "event"} - {*needed} | ({"column"} if self.kind == "survival" else set())
        lines += [
            f"{key}: a task of kind {self.kind} has none; remove it, or set kind"
            for key in sorted(refused)
            if getattr(self, key) is not None
        ]
        order = self.order or []
        lines += [f"order: {name!r} is listed twice; remove one" for name in order if order.count(name) > 1]
        raise_problems([*dict.fromkeys(lines)])
        return self

    def columns(self, name: str) -> list[str]:
        """Return the columns of the truth.

        Args:
            name: Of the task.

        Returns:
            Their names in the table, in the order of the endpoint's targets.
        """
        return [str(self.time), str(self.event)] if self.kind == "survival" else [self.column or name]


class LabelsConfig(Section):
    path: str | None
    key: Literal["slide_id", "patient_id"]
    id_column: str | None
    tasks: dict[str, TaskConfig] | None

    @field_validator("tasks", mode="before")
    @classmethod
    def _null_takes_the_defaults(cls, tasks: Any) -> Any:
        if not isinstance(tasks, dict):
            return tasks
        return {name: {} if task is None else task for name, task in tasks.items() if task is not False}

    @model_validator(mode="after")
    def _tasks_name_folders(self) -> Self:
        wrong = [name for name in self.tasks or () if not PLAIN_NAME.fullmatch(name)]
        raise_problems([f"tasks: {name!r} cannot name a folder; use letters, digits, - and _" for name in wrong])
        return self


class ExternalLabelsConfig(Section):
    """Where the labels of an external cohort are. The user names cohorts, so these settings have their defaults here.

    Args:
        path: Table of labels; None: the sheet of the external cohort.
        key: What its rows belong to.
        id_column: Column of these ids; None: called as `key`.
    """

    path: str | None = None
    key: Literal["slide_id", "patient_id"] = "slide_id"
    id_column: str | None = None
