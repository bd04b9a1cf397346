"""Settings of slide search."""

from typing import Any

from pydantic import field_validator

from slpd_core.config.base import NonNegativeInt, Positive, Section


class SearchIndexConfig(Section):
    """Settings of a run that its slides' prototypes depend on."""

    n_prototypes: Positive
    kmeans_restarts: Positive
    kmeans_iterations: Positive
    epochs: NonNegativeInt


class RankingConfig(Section):
    """Settings of what a query finds."""

    k: Positive
    exclude_same_patient: bool


class SearchConfig(RankingConfig):
    slides: list[str]
    run: str | None

    @property
    def ranking(self) -> RankingConfig:
        """The settings that the slides found depend on, but for the queries."""
        return RankingConfig(**self.model_dump(exclude={"slides", "run"}))

    @field_validator("slides", mode="before")
    @classmethod
    def _one_slide_and_numbers_are_taken(cls, slides: Any) -> Any:
        """A single slide stands for a list of one; YAML reads some ids as numbers."""
        listed = slides if isinstance(slides, list) else [] if slides is None else [slides]
        return [str(slide) if type(slide) is int else slide for slide in listed]
