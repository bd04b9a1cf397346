"""Settings of the export, and the table of formats that settings, rules, writers and docs share."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slpd_core.config.base import Section, raise_problems

ExportFormatName = Literal["trident", "clam", "stamp", "slide2vec", "hs2p", "torchmil", "h5ad", "qupath", "huggingface"]
ExportedKind = Literal["regions", "patches"]


@dataclass(frozen=True)
class ExportFormat:
    """A format of other tools.

    Attributes:
        readers: The tools that read it.
        files: Names below export/{format}/ of the files per slide or run, by their part. {slide} is a slide's id,
            {stem} its file's name without the suffix, {features} a run's region encoder, patch_tokens or a compared
            patch encoder, {kind} regions or patches, and {grid} as 20x_256px_0px_overlap.
        tables: Names of the files that all slides share, or that labels need. {task} is a task of labels.
        kinds: Of squares that it can hold.
        needs_features: Whether it is nothing without embeddings or tokens; the others have corners alone.
        holds_empty: Whether a slide without regions has files.
        needs_stems: Whether slides are found by their file's name, so that no two may share it.
        per_run: Whether a file holds all regions of a run's region encoder, not the squares of one slide.
    """

    readers: str
    files: dict[str, str]
    tables: dict[str, str] = field(default_factory=dict)
    kinds: tuple[ExportedKind, ...] = ("regions", "patches")
    needs_features: bool = True
    holds_empty: bool = False
    needs_stems: bool = False
    per_run: bool = False


EXPORT_FORMATS: dict[str, ExportFormat] = {
    "trident": ExportFormat(
        "TRIDENT, Patho-Bench, MOOZY, LazySlide (contours)",
        {
            "coords": "{grid}/patches/{stem}_patches.h5",
            "features": "{grid}/features_{features}/{stem}.h5",
            "contours": "contours_geojson/{stem}.geojson",
        },
        needs_features=False,
        needs_stems=True,
    ),
    "clam": ExportFormat(
        "CLAM and its descendants",
        {"pt": "{features}/pt_files/{slide}.pt", "h5": "{features}/h5_files/{slide}.h5"},
        {"labels": "{task}.csv"},
    ),
    "stamp": ExportFormat(
        "STAMP",
        {"h5": "{features}/{slide}.h5"},
        {"slides": "slide_table.csv", "clinical": "clinical_table.csv"},
    ),
    "slide2vec": ExportFormat("slide2vec (hierarchical), HIPT, soma", {"pt": "{features}/{slide}.pt"}),
    "hs2p": ExportFormat(
        "hs2p, slide2vec (coordinates)",
        {"npz": "{kind}/{slide}.coordinates.npz", "meta": "{kind}/{slide}.coordinates.meta.json"},
        needs_features=False,
        holds_empty=True,
    ),
    "torchmil": ExportFormat(
        "torchmil",
        {"features": "{features}/X/{slide}.npy", "coords": "{features}/coords/{slide}.npy"},
        {"labels": "Y/{task}/{slide}.npy", "classes": "Y/{task}.csv"},
    ),
    "h5ad": ExportFormat("AnnData, scanpy, wsidata", {"h5ad": "{features}.h5ad"}, kinds=("regions",), per_run=True),
    "qupath": ExportFormat("QuPath 0.5", {"geojson": "{features}/{slide}.geojson"}, kinds=("regions",)),
    "huggingface": ExportFormat(
        "safetensors, the Hugging Face hub",
        {
            "weights": "{features}/model.safetensors",
            "config": "{features}/config.json",
            "card": "{features}/README.md",
        },
        kinds=("regions",),
        per_run=True,
    ),
}


def _is_empty(names: list[str]) -> bool:
    return not names


class ExportConfig(Section):
    formats: list[ExportFormatName]
    what: Annotated[list[ExportedKind], Field(min_length=1)]
    runs: list[str] | None
    encoders: list[str] = Field(default=[], exclude_if=_is_empty)  # none is not recorded
    qupath_origin: Literal["slide", "bounds"]

    @property
    def of_slides(self) -> Self:
        """The same with the formats that have files per slide."""
        return self.model_copy(update={"formats": [name for name in self.formats if not EXPORT_FORMATS[name].per_run]})

    @property
    def of_runs(self) -> list[str]:
        """The formats that have a file per run."""
        return [name for name in self.formats if EXPORT_FORMATS[name].per_run]

    def holds(self, kind: str) -> bool:
        """Return whether squares of a kind are exported."""
        return kind in self.what and any(kind in EXPORT_FORMATS[name].kinds for name in self.formats)

    def needs_features(self, kind: str) -> bool:
        """Return whether a format is nothing without the vectors of a kind of squares."""
        formats = [EXPORT_FORMATS[name] for name in self.formats]
        return kind in self.what and any(fmt.needs_features and kind in fmt.kinds for fmt in formats)

    @property
    def has_tables(self) -> bool:
        """Whether a format has tables of labels."""
        return any(EXPORT_FORMATS[name].tables for name in self.formats)

    @property
    def needs_stems(self) -> bool:
        """Whether a format finds slides by their file's name."""
        return any(EXPORT_FORMATS[name].needs_stems for name in self.formats)

    @model_validator(mode="after")
    def _formats_hold_something(self) -> Self:
        kinds = {name: EXPORT_FORMATS[name].kinds for name in self.formats}
        raise_problems(
            [
                f"formats: {name} holds {' and '.join(held)} alone; add them to what"
                for name, held in kinds.items()
                if not {*held} & {*self.what}
            ]
        )
        return self

    @model_validator(mode="after")
    def _names_are_listed_once(self) -> Self:
        lists: dict[str, list[str]] = {
            "formats": [*self.formats],
            "what": [*self.what],
            "runs": self.runs or [],
            "encoders": [*self.encoders],
        }
        raise_problems(
            [
                f"{key}: {name!r} is listed twice; remove one"
                for key, names in lists.items()
                for name in names
                if names.count(name) > 1
            ]
        )
        return self
