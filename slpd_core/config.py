"""config.yaml as frozen pydantic sections, one a stage, checked whole when the workflow is parsed.

There are no defaults here: config.yaml is the one place a value stands.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rgb = tuple[float, float, float]
Classifier = Literal["knn", "mil", "dsmil", "vit_wsi"]
PATCH_FEATURES = "patch"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Section(BaseModel):
    """A section of config.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sheet(Section):
    path: str


class Tissue(Section):
    thumbnail_mpp: PositiveFloat
    smoothing_um: NonNegative
    closing_um: NonNegative
    min_island_um2: NonNegative
    min_hole_um2: NonNegative


class Regions(Section):
    size_px: Positive
    target_mpp: PositiveFloat
    min_tissue_fraction: Share
    edge: Literal["pad", "drop"]


class PatchEncoder(Section):
    source: Literal["random", "timm"]
    name: str
    weights: str | None
    patch_px: Positive
    mean: Rgb
    std: Rgb

    @model_validator(mode="after")
    def _weights_fit_source(self) -> Self:
        if self.source == "timm" and self.weights is None:
            raise ValueError("weights is null but source is timm: give the path of a local state dict")
        return self


class Tokens(Section):
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: Positive


class Ledger(Section):
    on_bad_slide: Literal["quarantine", "stop"]


class PretrainRun(Section):
    """The settings of one pretraining run, overrides applied."""

    alpha_intra: NonNegative
    alpha_inter: NonNegative
    n_prototypes: Positive
    n_neighbours: Positive
    self_only_epochs: Annotated[int, Field(ge=0)]
    kmeans_restarts: Positive
    kmeans_iterations: Positive
    n_global_crops: Annotated[int, Field(ge=2)]
    global_crop: Positive
    n_local_crops: Annotated[int, Field(ge=0)]
    local_crop: Positive
    hflip: Share
    embed_dim: Positive
    depth: Positive
    n_heads: Positive
    drop_path: Share
    hidden_dim: Positive
    bottleneck_dim: Positive
    out_dim: Positive
    epochs: Positive
    batch_size: Positive
    base_lr: PositiveFloat
    min_lr: NonNegative
    warmup_epochs: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    weight_decay_end: NonNegative
    clip_norm: PositiveFloat
    freeze_last_layer_epochs: Annotated[int, Field(ge=0)]
    teacher_momentum: Share
    student_temperature: PositiveFloat
    teacher_temperature: PositiveFloat
    centre_momentum: Share

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.embed_dim % self.n_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of n_heads {self.n_heads}")
        if self.local_crop > self.global_crop:
            raise ValueError(f"local_crop {self.local_crop} is larger than global_crop {self.global_crop}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} exceeds epochs {self.epochs}")
        return self

    @property
    def uses_prototypes(self) -> bool:
        """Whether any loss of the run needs slide prototypes."""
        return self.alpha_intra > 0 or self.alpha_inter > 0


class Pretrain(PretrainRun):
    runs: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _runs_are_valid(self) -> Self:
        for name in self.runs:
            if not PLAIN_NAME.fullmatch(name) or name == PATCH_FEATURES:
                raise ValueError(f"runs: {name!r} cannot name a run: use letters, digits, - and _; not 'patch'")
            try:
                self.run(name)
            except ValidationError as error:
                raise ValueError("; ".join(problems(error, f"runs.{name}."))) from None
        return self

    def run(self, name: str) -> PretrainRun:
        """The settings of run `name`: the section's own, with that run's overrides."""
        return PretrainRun(**{**self.model_dump(exclude={"runs"}), **self.runs[name]})


class Embed(Section):
    batch_size: Positive


class Folds(Section):
    n_folds: Annotated[int, Field(ge=2)]
    val_fraction: Annotated[float, Field(ge=0, lt=1)]


class Evaluation(Section):
    """The settings every classifier is trained with."""

    epochs: Positive
    lr: PositiveFloat
    weight_decay: NonNegative
    dropout: Annotated[float, Field(ge=0, lt=1)]
    knn_neighbours: Positive


class Evaluate(Evaluation):
    rows: dict[str, list[Classifier]]

    @property
    def training(self) -> Evaluation:
        """The section without its rows: what one fold of one row depends on."""
        return Evaluation(**self.model_dump(exclude={"rows"}))


class Report(Section):
    tsne_slides_per_label: Positive
    tsne_perplexity: PositiveFloat


class Config(Section):
    """The whole of config.yaml."""

    cohort: str
    seed: Annotated[int, Field(ge=0)]
    sheet: Sheet
    tissue: Tissue
    regions: Regions
    patch_encoder: PatchEncoder
    tokens: Tokens
    ledger: Ledger
    pretrain: Pretrain
    embed: Embed
    folds: Folds
    evaluate: Evaluate
    report: Report

    @property
    def grid(self) -> int:
        """Patches along a side of a region (paper: 16)."""
        return self.regions.size_px // self.patch_encoder.patch_px

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if not PLAIN_NAME.fullmatch(self.cohort):
            raise ValueError(f"cohort: {self.cohort!r} names a folder: use letters, digits, - and _")
        if self.regions.size_px % self.patch_encoder.patch_px:
            raise ValueError(
                f"regions.size_px: {self.regions.size_px} is not a multiple of "
                f"patch_encoder.patch_px {self.patch_encoder.patch_px}"
            )
        for name in self.pretrain.runs:
            crop = self.pretrain.run(name).global_crop
            if crop > self.grid:
                raise ValueError(f"pretrain.global_crop: {crop} exceeds the {self.grid} patches along a region")
        unknown = set(self.evaluate.rows) - set(self.pretrain.runs) - {PATCH_FEATURES}
        if unknown:
            known = ", ".join([PATCH_FEATURES, *self.pretrain.runs])
            raise ValueError(f"evaluate.rows: unknown features {sorted(unknown)}; pretrain.runs offers {known}")
        return self


def problems(error: ValidationError, prefix: str = "") -> list[str]:
    """Each problem of a validation as one line: the key, the value found, what is wrong with it."""
    lines = []
    for item in error.errors():
        key = prefix + ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key; see config.yaml for those there are"
        elif item["type"] == "missing":
            message = "missing; config.yaml has every key"
        elif not isinstance(item["input"], dict | BaseModel):
            message = f"{message} (found {item['input']!r})"
        lines.append(f"{key}: {message}" if key else message)
    return lines


def load(values: Mapping[str, Any]) -> Config:
    """Check a parsed config.yaml whole.

    Raises ValueError with one line a problem.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError("config.yaml: " + "\n  ".join(problems(error))) from None
