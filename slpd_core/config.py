"""config.yaml as frozen pydantic sections, one a stage, checked whole when the workflow is parsed.

There are no defaults here: config.yaml is the one place a value stands.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


# Text is read as a number too: YAML 1.1 takes 5e-4 for text, and --config delivers text.
Whole = Annotated[int, BeforeValidator(_refuse_boolean)]
Number = Annotated[float, BeforeValidator(_refuse_boolean)]
Positive = Annotated[Whole, Field(gt=0)]
NonNegativeInt = Annotated[Whole, Field(ge=0)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Classifier = Literal["knn", "mil", "dsmil", "vit_wsi"]
PATCH_FEATURES = "patch"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Section(BaseModel):
    """A section of config.yaml: immutable, and an unknown key is an error.

    A validator of several keys raises one line a problem, each beginning with the key below the section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sheet(Section):
    path: str


class Segmentation(Section):
    """How tissue is found where no one has outlined it."""

    thumbnail_mpp: Annotated[Number, Field(ge=1, le=64)]
    smoothing_um: NonNegative
    closing_um: NonNegative
    min_island_um2: NonNegative
    min_hole_um2: NonNegative


class Tissue(Segmentation):
    masks: str | None

    @property
    def segmentation(self) -> Segmentation:
        """The section without its folder: what a slide's tissue depends on, beside its own mask."""
        return Segmentation(**self.model_dump(exclude={"masks"}))


class Regions(Section):
    size_px: Positive
    target_mpp: Annotated[Number, Field(ge=0.05, le=5)]
    min_tissue_fraction: Share
    edge: Literal["pad", "drop"]
    anchor: Literal["slide", "tissue"]


class PatchEncoder(Section):
    source: Literal["random", "timm"]
    name: str
    weights: str | None
    patch_px: Positive
    mean: tuple[Number, Number, Number]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]

    @model_validator(mode="after")
    def _weights_fit_source(self) -> Self:
        if self.source == "timm" and self.weights is None:
            raise ValueError("weights: null, but source is timm; give the path of a local state dict")
        return self


class Tokens(Section):
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: Whole | Literal["auto"]
    compile: bool
    shrink_jpeg: bool

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto_or_positive(cls, value: Any) -> Any:
        try:
            number = value if value == "auto" else int(_refuse_boolean(value))
        except (TypeError, ValueError, OverflowError):
            number = 0
        if number != "auto" and (number < 1 or number != float(value)):
            raise ValueError("give a number of patches above 0, or auto")
        return number


class Ledger(Section):
    on_bad_slide: Literal["quarantine", "stop"]


class PretrainRun(Section):
    """The settings of one pretraining run, overrides applied."""

    alpha_intra: NonNegative
    alpha_inter: NonNegative
    n_prototypes: Positive
    n_neighbours: Positive
    self_only_epochs: NonNegativeInt
    kmeans_restarts: Positive
    kmeans_iterations: Positive
    n_global_crops: Annotated[Whole, Field(ge=2)]
    global_crop: Positive
    n_local_crops: NonNegativeInt
    local_crop: Positive
    hflip: Share
    embed_dim: Positive
    depth: Positive
    n_heads: Positive
    drop_path: Annotated[Number, Field(ge=0, lt=1)]
    hidden_dim: Positive
    bottleneck_dim: Positive
    out_dim: Positive
    epochs: Positive
    batch_size: Positive
    base_lr: PositiveFloat
    min_lr: NonNegative
    warmup_epochs: NonNegativeInt
    weight_decay: NonNegative
    weight_decay_end: NonNegative
    clip_norm: PositiveFloat
    freeze_last_layer_epochs: NonNegativeInt
    teacher_momentum: Share
    student_temperature: PositiveFloat
    teacher_temperature: PositiveFloat
    centre_momentum: Share

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        found = []
        if self.embed_dim % self.n_heads:
            found.append(f"embed_dim: {self.embed_dim} is not a multiple of n_heads {self.n_heads}; change one of them")
        if self.local_crop > self.global_crop:
            found.append(f"local_crop: {self.local_crop} is larger than global_crop {self.global_crop}; lower it")
        if self.warmup_epochs > self.epochs:
            found.append(f"warmup_epochs: {self.warmup_epochs} exceeds epochs {self.epochs}; lower it")
        if self.uses_prototypes and self.self_only_epochs >= self.epochs:
            found.append(
                f"self_only_epochs: {self.self_only_epochs} of {self.epochs} epochs leave none for the prototypes; "
                "lower it, or set alpha_intra and alpha_inter to 0"
            )
        _refuse(found)
        return self

    @property
    def uses_prototypes(self) -> bool:
        """Whether any loss of the run needs slide prototypes."""
        return self.alpha_intra > 0 or self.alpha_inter > 0


class Pretrain(PretrainRun):
    runs: dict[str, dict[str, Any]]

    @field_validator("runs", mode="before")
    @classmethod
    def _null_overrides_nothing_and_false_removes(cls, runs: Any) -> Any:
        if not isinstance(runs, dict):
            return runs
        return {name: {} if run is None else run for name, run in runs.items() if run is not False}

    @model_validator(mode="after")
    def _runs_are_valid(self) -> Self:
        _refuse([line for name in self.runs for line in self._problems_of(name)])
        return self

    def _problems_of(self, name: str) -> list[str]:
        if not PLAIN_NAME.fullmatch(name) or name == PATCH_FEATURES:
            return [f"runs: {name!r} cannot name a run; use letters, digits, - and _, and not 'patch'"]
        try:
            self.run(name)
        except ValidationError as error:
            return problems(error, "runs", name)
        return []

    def run(self, name: str) -> PretrainRun:
        """The settings of run `name`: the section's own, with that run's overrides."""
        return PretrainRun(**{**self.model_dump(exclude={"runs"}), **self.runs[name]})


class Embed(Section):
    batch_size: Positive


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


class Config(Section):
    """The whole of config.yaml."""

    cohort: str
    seed: Annotated[Whole, Field(ge=0, lt=2**32)]
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
        found = []
        if not PLAIN_NAME.fullmatch(self.cohort):
            found.append(f"cohort: {self.cohort!r} cannot name a folder; use letters, digits, - and _")
        size_px, patch_px = self.regions.size_px, self.patch_encoder.patch_px
        if size_px % patch_px:
            found.append(
                f"regions.size_px: {size_px} is not a multiple of patch_encoder.patch_px {patch_px}; make it one"
            )
        for name, overrides in self.pretrain.runs.items():
            crop = self.pretrain.run(name).global_crop
            if crop > self.grid:
                key = f"pretrain.runs.{name}" if "global_crop" in overrides else "pretrain"
                found.append(f"{key}.global_crop: {crop} exceeds the {self.grid} patches along a region; lower it")
        known = [PATCH_FEATURES, *self.pretrain.runs]
        for features in [row for row in self.evaluate.rows if row not in known]:
            found.append(
                f"evaluate.rows.{features}: unknown features, pretrain.runs offers {', '.join(known)}; add the run "
                f"there or leave the row out by {features}: null"
            )
        if "vit_wsi" in self.evaluate.rows.get(PATCH_FEATURES, ()):
            found.append(
                "evaluate.rows.patch: vit_wsi attends from each token of a slide to all others, tens of thousands; "
                "leave it out there, as the paper does"
            )
        for features, names in self.evaluate.rows.items():
            if len(set(names)) < len(names):
                found.append(f"evaluate.rows.{features}: {', '.join(names)} names a classifier twice; keep one")
        if not self.evaluate.rows:
            found.append("evaluate.rows: none is left; keep one row")
        _refuse(found)
        return self


def _refuse(found: list[str]) -> None:
    """Raise the problems found, if any: a line each, and each once."""
    if found:
        raise ValueError("\n".join(dict.fromkeys(found)))


def problems(error: ValidationError, *within: str) -> list[str]:
    """Each problem of a validation as one line: the key, the value found, what is wrong with it.

    within: the keys above what was validated.
    """
    lines = []
    for item in error.errors():
        key = ".".join(map(str, (*within, *item["loc"])))
        message = _message(item)
        if item["type"] == "value_error" and isinstance(item["input"], dict | BaseModel):
            lines += [f"{key}.{line}" if key else line for line in message.splitlines()]
        else:
            lines.append(f"{key}: {message}")
    return lines


def _message(item: ErrorDetails) -> str:
    """What is wrong with a value and what to do about it; says the value unless it is a whole section."""
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return "unknown key; see config.yaml for those there are"
    if kind == "missing":
        return "missing; config.yaml has every key"
    if value is None:
        return "empty; delete the line or fill it in"
    message = item["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "dict_type"):
        message = "give keys below it, as config.yaml does"
    return message if isinstance(value, dict | BaseModel) else f"{message} (found {value!r})"


def load(values: Mapping[str, Any]) -> Config:
    """Check the settings, config.yaml and what overlays it, whole.

    Raises ValueError with one line a problem.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError("\n  ".join(["settings:", *problems(error)])) from None
