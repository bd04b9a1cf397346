"""The sections of embeddings to numbers."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from slpd_core.config.base import (
    Classifier,
    NonNegative,
    Number,
    Positive,
    PositiveFloat,
    Section,
    Whole,
)


class Folds(Section):
    n_folds: Annotated[Whole, Field(ge=2)]
    val_fraction: Annotated[Number, Field(ge=0, lt=1)]


class Evaluation(Section):
    """The settings every classifier is trained with."""

    epochs: Positive
    lr: PositiveFloat
    weight_decay: NonNegative
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    knn_neighbours: Positive


class Evaluate(Evaluation):
    rows: dict[str, list[Classifier]]

    @field_validator("rows", mode="before")
    @classmethod
    def _null_leaves_a_row_out(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        return {features: names for features, names in rows.items() if names is not None and names != []}

    @property
    def training(self) -> Evaluation:
        """The section without its rows: what one fold of one row depends on."""
        return Evaluation(**self.model_dump(exclude={"rows"}))


class Report(Section):
    tsne_slides_per_label: Positive
    tsne_perplexity: PositiveFloat
