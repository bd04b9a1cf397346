"""Settings of the stages from pixels to tokens."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from slpd_core.config.base import (
    AutoOrPositive,
    Fraction,
    NonNegative,
    Number,
    Positive,
    Section,
    find_pair_problems,
    raise_problems,
)

CoordinateFormat = Literal["trident", "hs2p"]


def _is_none(value: object) -> bool:
    return value is None


def _is_otsu(method: str) -> bool:
    return method == "otsu"


class SheetConfig(Section):
    COLUMNS: ClassVar[tuple[str, ...]] = ("slide_id", "patient_id", "label", "path", "mpp", "site")

    path: str
    columns: dict[str, Annotated[str, Field(min_length=1)]]

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_are_known(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        known = ", ".join(cls.COLUMNS)
        wrong = [column for column in columns if column not in cls.COLUMNS]
        raise_problems([f"{column}: no column of a sheet is called so; there are {known}" for column in wrong])
        return {column: name for column, name in columns.items() if name is not None}  # null: of an overlay


class TissueSegmentationConfig(Section):
    """Settings of automatic segmentation, and which pixels are glass."""

    thumbnail_mpp: Annotated[Number, Field(ge=1, le=64)]
    smoothing_um: NonNegative
    closing_um: NonNegative
    ink: Literal["auto", "exclude", "keep"]
    min_island_um2: NonNegative
    min_hole_um2: NonNegative
    missing_tiles: Literal["error", "white"]
    method: Literal["otsu", "grandqc", "hest"] = Field(default="otsu", exclude_if=_is_otsu)  # otsu is not recorded
    weights: str | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="after")
    def _networks_have_weights(self) -> Self:
        if self.method != "otsu" and not self.weights:
            raise_problems(
                [
                    f"weights: null, but method is {self.method}; download its weights from where its authors publish "
                    "them (docs/quality.md) and give their path"
                ]
            )
        if self.method == "otsu" and self.weights:
            raise_problems(["weights: given, but method is otsu; set method to grandqc or hest, or weights to null"])
        return self


class TissueOutlineConfig(Section):
    """Settings by which outlines drawn by hand are read."""

    mask_origin: Literal["slide", "bounds"] | None
    classes: tuple[str, ...] | None
    ignore: tuple[str, ...]


class TissueConfig(TissueOutlineConfig, TissueSegmentationConfig):
    masks_dir: str | None

    def require_weights(self) -> None:
        """Check that the local file of a network's weights exists.

        Raises:
            FileNotFoundError: It does not exist.
        """
        if self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(
                f"tissue.weights: no file {self.weights}; download the weights of {self.method} from where its authors "
                "publish them (docs/quality.md) and give their path"
            )

    @property
    def segmentation(self) -> TissueSegmentationConfig:
        """The settings that a slide without an outline depends on."""
        return TissueSegmentationConfig(**self.model_dump(include={*TissueSegmentationConfig.model_fields}))

    @property
    def outline(self) -> TissueOutlineConfig:
        """The settings that a slide with an outline depends on."""
        return TissueOutlineConfig(**self.model_dump(include={*TissueOutlineConfig.model_fields}))


class RegionsConfig(Section):
    size_px: Positive
    target_mpp: Annotated[Number, Field(ge=0.05, le=5)]
    min_tissue_fraction: Fraction
    edge: Literal["pad", "drop"]
    anchor: Literal["slide", "tissue"]
    min_focus: NonNegative | None = Field(
        default=None, exclude_if=_is_none
    )  # null is not recorded: what it leaves is the same


class RegionsStageConfig(RegionsConfig):
    coordinates: str | None
    format: CoordinateFormat | None

    @model_validator(mode="after")
    def _coordinates_have_a_format(self) -> Self:
        raise_problems(find_pair_problems("coordinates", self.coordinates, self.format, get_args(CoordinateFormat)))
        return self

    @property
    def selection(self) -> RegionsConfig:
        """The settings that a slide's regions depend on."""
        return RegionsConfig(**self.model_dump(include={*RegionsConfig.model_fields}))


class PatchesConfig(Section):
    patches_per_slide: Positive


class TokenEncodingConfig(Section):
    """Settings by which regions are read and encoded."""

    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: AutoOrPositive
    compile: bool
    jpeg_scaled_decoding: bool
    stain_normalization: Literal["macenko", "reinhard"] | None = Field(default=None, exclude_if=_is_none)


class TokensConfig(TokenEncodingConfig):
    cache_dir: str | None

    @property
    def encoding(self) -> TokenEncodingConfig:
        """The settings that a slide's tokens depend on."""
        return TokenEncodingConfig(**self.model_dump(exclude={"cache_dir"}))


class LedgerConfig(Section):
    on_bad_slide: Literal["quarantine", "stop"]
