"""The sections of embeddings to numbers."""

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

# HIPT's settings of its classifiers. It has a weight decay of 1e-5, but divides its loss by 32 and steps every slide:
# L2 inside Adam, which does not see the scale of a loss, is then 32 times as strong.
PRESETS: dict[str, dict[str, Any]] = {
    "hipt": {"epochs": 20, "lr": 2e-4, "weight_decay": 3.2e-4, "dropout": 0.25, "knn_n_neighbors": 5},
}
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
        """The imported splits, fold after fold; none where the folds are made here."""
        found = {
            int(named[1]): path
            for path in (Path(self.splits_dir).glob("splits_*.csv") if self.splits_dir else ())
            if (named := SPLITS_FILE.fullmatch(path.name))
        }
        return [found[number] for number in sorted(found)]

    @property
    def count(self) -> int:
        """How many folds there are in all."""
        return len(self.files) if self.splits_dir else self.n_folds * self.n_repeats

    @model_validator(mode="after")
    def _splits_are_numbered(self) -> Self:
        found = []
        names = [path.name for path in self.files]
        if names != [f"splits_{number}.csv" for number in range(len(names))]:
            found.append(f"splits_dir: {self.splits_dir} holds {', '.join(names)}; number them from 0 without a gap")
        raise_problems(found)
        return self

    def require_splits(self) -> None:
        """Raise FileNotFoundError where the folder of imported splits holds none."""
        if self.splits_dir and not self.files:
            raise FileNotFoundError(
                f"folds.splits_dir: no splits_0.csv in {self.splits_dir}; put the splits there or correct the folder, "
                "or set it to null for folds that are drawn here, which no published numbers rest on"
            )


class ClassifierTrainingConfig(Section):
    """The settings every classifier is trained with."""

    epochs: Positive
    lr: PositiveFloat
    weight_decay: NonNegative
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    knn_n_neighbors: Positive
    logreg_c: PositiveFloat


class EvaluateConfig(ClassifierTrainingConfig):
    classifiers: dict[str, list[Classifier]]
    vit_wsi_on_patches: bool
    preset: Literal["hipt"] | None

    @field_validator("classifiers", mode="before")
    @classmethod
    def _null_leaves_a_row_out(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        return {features: names for features, names in rows.items() if names is not None and names != []}

    @property
    def training(self) -> ClassifierTrainingConfig:
        """The section, its preset applied, without what decides on its rows: what one fold of one row depends on."""
        own = self.model_dump(exclude={"classifiers", "vit_wsi_on_patches", "preset"})
        return ClassifierTrainingConfig(**own | PRESETS.get(self.preset or "", {}))


class HeatmapsConfig(Section):
    slides_per_label: Positive


class PredictConfig(Section):
    sheet: str | None
    classifiers: dict[str, list[Classifier]] | None


class CohortTableConfig(Section):
    """Rows, features/classifier as in evaluate.classifiers, of several cohorts; a mapping gives each a label."""

    cohorts: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[str] | dict[str, str], Field(min_length=1)]

    @property
    def labelled(self) -> dict[str, str]:
        """The rows by their labels; a row without is its own."""
        return self.rows if isinstance(self.rows, dict) else {row: row for row in self.rows}

    @model_validator(mode="after")
    def _rows_are_rows(self) -> Self:
        found = [
            f"rows: {row!r} is no features/classifier; write for example slpd/vit_wsi"
            for row in self.labelled.values()
            if row.partition("/")[2] not in CLASSIFIERS or not PLAIN_NAME.fullmatch(row.partition("/")[0])
        ]
        for key, names in (("cohorts", self.cohorts), ("rows", [*self.rows])):
            found += [f"{key}: {name!r} stands there twice; keep one" for name in names if names.count(name) > 1]
        found += [f"cohorts: {name!r} is no cohort's name" for name in self.cohorts if not PLAIN_NAME.fullmatch(name)]
        raise_problems(found)
        return self


class ReportConfig(Section):
    reference: str | None
    tsne_slides_per_label: Positive
    tsne_perplexity: PositiveFloat


class ReportPageConfig(ReportConfig):
    tables: dict[str, CohortTableConfig]

    @property
    def page(self) -> ReportConfig:
        """The section without the tables over cohorts: what the report of one cohort depends on."""
        return ReportConfig(**self.model_dump(exclude={"tables"}))

    @model_validator(mode="after")
    def _tables_name_files(self) -> Self:
        wrong = [name for name in self.tables if not PLAIN_NAME.fullmatch(name)]
        raise_problems([f"tables: {name!r} cannot name a file; use letters, digits, - and _" for name in wrong])
        return self
