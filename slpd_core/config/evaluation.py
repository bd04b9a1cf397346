"""Settings of the stages from embeddings to numbers."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from slpd_core.config.base import (
    CLASSIFIERS,
    PLAIN_NAME,
    Classifier,
    Int,
    NonNegative,
    Number,
    Positive,
    PositiveFloat,
    Section,
    raise_problems,
)
from slpd_core.config.labels import ExternalLabelsConfig

# HIPT's settings of its classifiers. It has a weight decay of 1e-5, but divides its loss by 32 and steps every slide:
# L2 inside Adam, which does not see the scale of a loss, is then 32 times as strong.
PRESETS: dict[str, dict[str, Any]] = {
    "hipt": {
        **{"select": "last", "epochs": 20, "lr": 2e-4, "lr_grid": None, "weight_decay": 3.2e-4, "dropout": 0.25},
        "knn_n_neighbors": 5,
    },
}
# Evaluations beside classifiers of all training slides.
Protocol = Literal["few_shot", "retrieval"]
SPLITS_FILE = re.compile(r"splits_(\d+)\.csv")


class FoldsConfig(Section):
    n_folds: Annotated[Int, Field(ge=2)]
    n_repeats: Positive
    group_by: Literal["patient", "site"]
    val_fraction: Annotated[Number, Field(ge=0, lt=1)]
    train_fraction: Annotated[Number, Field(gt=0, le=1)]
    splits_dir: str | None

    @property
    def files(self) -> list[Path]:
        """The files of imported splits, in the order of folds; none where folds are drawn here."""
        paths = {
            int(named[1]): path
            for path in (Path(self.splits_dir).glob("splits_*.csv") if self.splits_dir else ())
            if (named := SPLITS_FILE.fullmatch(path.name))
        }
        return [paths[i] for i in sorted(paths)]

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(self.files) if self.splits_dir else self.n_folds * self.n_repeats

    @property
    def partition_folds(self) -> int | None:
        """Number of folds of one partition; None for imported splits."""
        return None if self.splits_dir else self.n_folds

    @model_validator(mode="after")
    def _splits_are_numbered(self) -> Self:
        lines = []
        names = [path.name for path in self.files]
        if names != [f"splits_{i}.csv" for i in range(len(names))]:
            lines.append(f"splits_dir: {self.splits_dir} holds {', '.join(names)}; number them from 0 without a gap")
        raise_problems(lines)
        return self

    def require_splits(self) -> None:
        """Check that the folder of imported splits has splits.

        Raises:
            FileNotFoundError: It has none.
        """
        if self.splits_dir and not self.files:
            raise FileNotFoundError(
                f"folds.splits_dir: no splits_0.csv in {self.splits_dir}; put the splits there or correct the folder, "
                "or set it to null (folds are drawn here; results are then not comparable to published ones)"
            )


class ClassifierTrainingConfig(Section):
    """Settings of the training of every classifier."""

    bags: Literal["slide", "patient"] | None
    select: Literal["last", "val"]
    epochs: Positive
    lr: PositiveFloat
    lr_grid: Annotated[list[PositiveFloat], Field(min_length=1)] | None
    weight_decay: NonNegative
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    cox_batch_size: Annotated[Int, Field(ge=2)]
    knn_n_neighbors: Positive
    logreg_c: PositiveFloat
    linear_l2: PositiveFloat

    @property
    def options(self) -> dict[str, Any]:
        """The settings that are arguments of `classifiers.fit_classifier`."""
        return self.model_dump(exclude={"bags", "select", "lr_grid"})

    @model_validator(mode="after")
    def _a_grid_needs_validation(self) -> Self:
        if self.lr_grid and self.select == "last":
            raise_problems(["lr_grid: its rates are chosen on validation slides; set select: val, or lr_grid: null"])
        return self


class FewShotConfig(Section):
    """Settings of classifiers trained on few slides."""

    logreg_c: PositiveFloat


class EvaluateConfig(ClassifierTrainingConfig):
    classifiers: dict[str, list[Classifier]]
    vit_wsi_on_patches: bool
    protocols: list[Protocol] = Field(default=[], exclude_if=lambda names: not names)  # none is not recorded
    preset: Literal["hipt"] | None

    @field_validator("classifiers", mode="before")
    @classmethod
    def _null_leaves_a_row_out(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        return {features: names for features, names in rows.items() if names is not None and names != []}

    @property
    def training(self) -> ClassifierTrainingConfig:
        """The settings that one fold of one classifier depends on, preset applied."""
        values = self.model_dump(exclude={"classifiers", "vit_wsi_on_patches", "protocols", "preset"})
        return ClassifierTrainingConfig(**values | PRESETS.get(self.preset or "", {}))

    @property
    def few_shot(self) -> FewShotConfig:
        """The settings that classifiers of few slides depend on."""
        return FewShotConfig(logreg_c=self.logreg_c)

    @model_validator(mode="after")
    def _protocols_are_named_once(self) -> Self:
        names = self.protocols
        raise_problems([f"protocols: {name} is named twice; remove one" for name in names if names.count(name) > 1])
        return self


class HeatmapsConfig(Section):
    slides_per_label: Positive


class PredictConfig(Section):
    sheet: dict[str, str]  # of each external cohort
    labels: dict[str, ExternalLabelsConfig]
    classifiers: dict[str, list[Classifier]] | None

    @field_validator("sheet", mode="before")
    @classmethod
    def _a_single_sheet_is_named_by_its_file(cls, sheet: Any) -> Any:
        if isinstance(sheet, str):
            name = Path(sheet).expanduser().stem
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a folder; name the sheet yourself: {{new: {sheet}}}")
            return {name: sheet}
        if not isinstance(sheet, dict | None):
            raise ValueError("name a sheet, or several: {name: sheet}")
        return {name: path for name, path in (sheet or {}).items() if path is not None}  # null: of an overlay

    @field_validator("labels", mode="before")
    @classmethod
    def _null_takes_the_sheet(cls, labels: Any) -> Any:
        if not isinstance(labels, dict | None):
            return labels
        return {name: {} if section is None else section for name, section in (labels or {}).items()}

    @model_validator(mode="after")
    def _sheets_name_folders(self) -> Self:
        wrong = [name for name in self.sheet if not PLAIN_NAME.fullmatch(name)]
        lines = [f"sheet: {name!r} cannot name a folder; use letters, digits, - and _" for name in wrong]
        names = ", ".join(self.sheet) or "none"
        lines += [
            f"labels: {name!r} is no external cohort of predict.sheet ({names}); correct the name"
            for name in self.labels
            if name not in self.sheet
        ]
        raise_problems(lines)
        return self


class CohortTableConfig(Section):
    """A table of rows (features/classifier) of several cohorts; a mapping gives each row a label."""

    cohorts: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[str] | dict[str, str], Field(min_length=1)]

    @property
    def rows_by_label(self) -> dict[str, str]:
        """The rows by label; a row without one is its own label."""
        return self.rows if isinstance(self.rows, dict) else {row: row for row in self.rows}

    @model_validator(mode="after")
    def _rows_are_rows(self) -> Self:
        lines = [
            f"rows: {row!r} is no features/classifier; write for example slpd/vit_wsi"
            for row in self.rows_by_label.values()
            if row.partition("/")[2] not in CLASSIFIERS or not PLAIN_NAME.fullmatch(row.partition("/")[0])
        ]
        for key, names in (("cohorts", self.cohorts), ("rows", [*self.rows])):
            lines += [f"{key}: {name!r} is listed twice; remove one" for name in names if names.count(name) > 1]
        lines += [
            f"cohorts: {name!r} is no cohort's name; write a cohort, or cohort/task"
            for name in self.cohorts
            if len(parts := name.split("/")) > 2 or not all(map(PLAIN_NAME.fullmatch, parts))
        ]
        raise_problems(lines)
        return self


class ReportConfig(Section):
    reference: str | None
    tsne_slides_per_label: Positive
    tsne_perplexity: PositiveFloat
    pseudonyms: bool = Field(default=False, exclude_if=lambda value: not value)  # false is not recorded


class ReportPageConfig(ReportConfig):
    tables: dict[str, CohortTableConfig]

    @property
    def page(self) -> ReportConfig:
        """The settings that the report of one cohort depends on."""
        return ReportConfig(**self.model_dump(exclude={"tables"}))

    @model_validator(mode="after")
    def _tables_name_files(self) -> Self:
        wrong = [name for name in self.tables if not PLAIN_NAME.fullmatch(name)]
        raise_problems([f"tables: {name!r} cannot name a file; use letters, digits, - and _" for name in wrong])
        return self
