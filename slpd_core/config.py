"""config.yaml as frozen pydantic sections, one a stage, checked whole when the workflow is parsed.

There are no defaults here: config.yaml is the one place a value stands.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


def _auto_or_positive(value: Any) -> Any:
    try:
        number = value if value == "auto" else int(_refuse_boolean(value))
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number != "auto" and (number < 1 or number != float(value)):
        raise ValueError("give a whole number above 0, or auto")
    return number


# Text is read as a number too: YAML 1.1 takes 5e-4 for text, and --config delivers text.
Whole = Annotated[int, BeforeValidator(_refuse_boolean)]
Number = Annotated[float, BeforeValidator(_refuse_boolean)]
Positive = Annotated[Whole, Field(gt=0)]
AutoOrPositive = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_positive)]
NonNegativeInt = Annotated[Whole, Field(ge=0)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Classifier = Literal["knn", "mil", "dsmil", "vit_wsi"]
PATCH_FEATURES, COLOUR_FEATURES = "patch", "colour"  # the tokens of the patch encoder, the mean RGB of each patch
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _overrides(named: Any) -> Any:
    """Named overrides of a section: null overrides nothing, false removes what the file below names."""
    if not isinstance(named, dict):
        return named
    return {name: {} if own is None else own for name, own in named.items() if own is not False}


# A name of features -> the settings in which it differs from its section's own.
Overrides = Annotated[dict[str, dict[str, Any]], BeforeValidator(_overrides)]


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


class SelfDistillation(Section):
    """The recipe of DINO: what student and teacher of either stage are trained with."""

    n_global_crops: Annotated[Whole, Field(ge=2)]
    n_local_crops: NonNegativeInt
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
    koleo: NonNegative

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} exceeds epochs {self.epochs}; lower it")
        return self


class Patches(Section):
    per_slide: Positive


class DinoPatches(SelfDistillation):
    """Stage one: DINO on patches."""

    global_px: Positive
    local_px: Positive
    global_area: tuple[PositiveFloat, PositiveFloat]
    local_area: tuple[PositiveFloat, PositiveFloat]
    stain: Share
    contrast: Share
    greyscale: Share

    @model_validator(mode="after")
    def _areas_are_ranges(self) -> Self:
        for key in ("global_area", "local_area"):
            least, most = getattr(self, key)
            if not least <= most <= 1:
                raise ValueError(f"{key}: {[least, most]} is no range of shares; give [least, greatest], at most 1")
        return self


class PatchEncoder(Section):
    """The settings of one patch encoder, overrides applied: where its weights come from, how it is fed."""

    HUB: ClassVar[str] = "hf-hub:"
    FOLDER: ClassVar[str] = "local-dir:"

    source: Literal["random", "hipt", "timm", "dino"]
    name: str
    arguments: dict[str, Any]
    weights: str | None
    patch_px: Positive
    input_px: Positive | None
    pooling: Literal["cls", "cls_mean"]
    mean: tuple[Number, Number, Number] | None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None
    position_offset: Annotated[Number, Field(ge=0, lt=1)] | None

    @field_validator("arguments", mode="before")
    @classmethod
    def _text_that_reads_as_a_number_is_one(cls, arguments: Any) -> Any:
        found = dict(arguments) if isinstance(arguments, dict) else {}
        for key, value in found.items():
            for number in (int, float) if isinstance(value, str) else ():
                with suppress(ValueError):
                    found[key] = number(value)
                    break
        return found or arguments

    @model_validator(mode="after")
    def _weights_fit_source(self) -> Self:
        found = []
        if self.source == "hipt" and self.weights is None:
            found.append("weights: null, but source is hipt; give the path of its vit256_small_dino.pth")
        if self.source == "timm" and self.weights is not None:
            found += [
                f"{key}: null, but a file of weights does not say how its pixels were normalised; give the {key} of "
                "RGB in 0..1 that its authors publish (often ImageNet's: mean [0.485, 0.456, 0.406], std [0.229, "
                "0.224, 0.225])"
                for key in ("mean", "std")
                if getattr(self, key) is None
            ]
        if self.source != "timm" and self.name.startswith((self.HUB, self.FOLDER)):
            found.append(f"name: {self.name!r} is published weights, but source is {self.source}; set source to timm")
        for key in ("pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir", "features_only"):
            if key in self.arguments:
                found.append(f"arguments: {key!r} is no part of an architecture; delete it, name and weights say that")
        if self.arguments.get("num_classes"):
            found.append("arguments: 'num_classes' makes a classifier; delete it, tokens come from before the head")
        _refuse(found)
        return self

    @property
    def hub_name(self) -> str | None:
        """The repository on the Hugging Face hub that is named, if any."""
        return self.name.removeprefix(self.HUB) if self.name.startswith(self.HUB) else None

    @property
    def folder(self) -> Path | None:
        """The local folder of a model that is named, if any."""
        return Path(self.name.removeprefix(self.FOLDER)) if self.name.startswith(self.FOLDER) else None

    @property
    def files(self) -> list[str]:
        """The local files that the source reads."""
        if self.source not in ("hipt", "timm"):
            return []
        folder = sorted(str(path) for path in self.folder.iterdir() if path.is_file()) if self.folder else []
        return ([self.weights] if self.weights else []) + folder

    def require_weights(self, key: str = "patch_encoder") -> None:
        """Raise FileNotFoundError where the local file or folder that the source reads is missing.

        key: where the section stands in the config.
        """
        if self.source not in ("hipt", "timm"):
            return
        if self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(
                f"{key}.weights: no file {self.weights}; download the model's weights from where its authors publish "
                f"them and give their path, or set {key}.source to random for an untrained baseline"
            )
        if self.folder and not (self.folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{key}.name: {self.folder} has no config.json; give the whole folder of a timm model, as "
                "`hf download OWNER/MODEL --local-dir DIR` makes it"
            )


class PatchEncoders(PatchEncoder):
    others: Overrides
    dino: DinoPatches

    @model_validator(mode="after")
    def _others_are_valid(self) -> Self:
        _refuse_named("others", self.others, self.other)
        trained = [name for name in self.others if self.other(name).source == "dino"]
        _refuse(
            [
                f"others.{name}.source: dino is for the cohort's own encoder only; give another source"
                for name in trained
            ]
        )
        return self

    @property
    def recipe(self) -> DinoPatches | None:
        """How the cohort's own encoder is trained; None where its weights come from elsewhere."""
        return self.dino if self.source == "dino" else None

    @property
    def own(self) -> PatchEncoder:
        """The settings of the cohort's own encoder, whose tokens are pretrained on."""
        return PatchEncoder(**self._plain())

    def other(self, name: str) -> PatchEncoder:
        """The settings of the other encoder `name`: the section's own, with its overrides."""
        return PatchEncoder(**{**self._plain(), **self.others[name]})

    def each(self) -> dict[str, PatchEncoder]:
        """Every encoder by its key in the config, the section's own first."""
        return {"patch_encoder": self.own} | {f"patch_encoder.others.{name}": self.other(name) for name in self.others}

    def _plain(self) -> dict[str, Any]:
        return self.model_dump(include={*PatchEncoder.model_fields})


class Tokens(Section):
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: AutoOrPositive
    compile: bool
    shrink_jpeg: bool


class Ledger(Section):
    on_bad_slide: Literal["quarantine", "stop"]


# What the paper's text and its released code do differently: `preset` of a run sets these, its other keys go before.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "cluster_space": "embedding",
        "cluster_crop": None,
        "self_only_epochs": 0,
        "min_regions": None,
        "matching": "optimal",
        "shared_centre": False,
        "skip_first_crop": False,
        "exclude_same_patient": False,
        "kmeans_restarts": 5,
        "kmeans_iterations": 10,
        "batch_size": 256,
    },
    "released": {
        "cluster_space": "bottleneck",
        "cluster_crop": 14,
        "self_only_epochs": 21,
        "min_regions": 32,
        "matching": "nearest",
        "shared_centre": True,
        "skip_first_crop": True,
        "exclude_same_patient": False,
        "kmeans_restarts": 5,
        "kmeans_iterations": 10,
        "batch_size": 512,
    },
}


class PretrainRun(SelfDistillation):
    """The settings of one pretraining run, overrides applied."""

    slides: Literal["all", "train_only"]
    alpha_intra: NonNegative
    alpha_inter: NonNegative
    clustering: Literal["slide", "global"]
    n_prototypes: Positive
    min_regions: Positive | None
    cluster_space: Literal["embedding", "bottleneck"]
    cluster_crop: Positive | None
    self_only_epochs: NonNegativeInt
    kmeans_restarts: Positive
    kmeans_iterations: Positive
    n_neighbours: Positive
    exclude_same_patient: bool
    inter: Literal["prototype", "region"]
    matching: Literal["optimal", "nearest"]
    shared_centre: bool
    skip_first_crop: bool
    global_crop: Positive
    local_crop: Positive
    augment: Literal["none", "hflip", "dihedral"]
    init_from: str | None
    embed_dim: Positive
    depth: Positive
    n_heads: Positive
    precision: Literal["auto", "fp32", "bf16", "fp16"]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        found = []
        if self.embed_dim % self.n_heads:
            found.append(f"embed_dim: {self.embed_dim} is not a multiple of n_heads {self.n_heads}; change one of them")
        if self.local_crop > self.global_crop:
            found.append(f"local_crop: {self.local_crop} is larger than global_crop {self.global_crop}; lower it")
        if self.clustering == "global" and self.alpha_inter:
            found.append(
                f"clustering: global, but alpha_inter is {self.alpha_inter}; set it to 0, a cohort clustered as one "
                "has no nearest slides"
            )
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
    runs: Overrides

    @model_validator(mode="after")
    def _runs_are_valid(self) -> Self:
        _refuse_named("runs", self.runs, self.run)
        return self

    def run(self, name: str) -> PretrainRun:
        """The settings of run `name`: the section's own, with that run's overrides."""
        own = dict(self.runs[name])
        preset = own.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset: {preset!r} is none of {', '.join(PRESETS)}; name one of them")
        return PretrainRun(**{**self.model_dump(exclude={"runs"}), **PRESETS.get(preset, {}), **own})


class Embed(Section):
    batch_size: AutoOrPositive
    attention: bool


class Gallery(Section):
    slides: Positive


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
    patches: Patches
    patch_encoder: PatchEncoders
    tokens: Tokens
    ledger: Ledger
    pretrain: Pretrain
    embed: Embed
    gallery: Gallery
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
        size_px = self.regions.size_px
        for key, encoder in self.patch_encoder.each().items():
            if size_px % encoder.patch_px:
                found.append(
                    f"regions.size_px: {size_px} is not a multiple of {key}.patch_px {encoder.patch_px}; make it one"
                )
        for name, overrides in self.pretrain.runs.items():
            for key in ("global_crop", "cluster_crop"):
                crop = getattr(self.pretrain.run(name), key)
                if crop and crop > self.grid:
                    place = f"pretrain.runs.{name}" if {key, "preset"} & overrides.keys() else "pretrain"
                    found.append(f"{place}.{key}: {crop} exceeds the {self.grid} patches along a region; lower it")
        for name in [run for run in self.pretrain.runs if run in self.patch_encoder.others]:
            found.append(f"patch_encoder.others.{name}: names a run of pretrain.runs too; rename one of them")
        _refuse(found + self._problems_of_rows())
        return self

    def _problems_of_rows(self) -> list[str]:
        found = []
        patches = [COLOUR_FEATURES, PATCH_FEATURES, *self.patch_encoder.others]
        known = [*patches, *self.pretrain.runs]
        for features, names in self.evaluate.rows.items():
            if features not in known:
                found.append(
                    f"evaluate.rows.{features}: unknown features, there are {', '.join(known)}; add a run to "
                    f"pretrain.runs or an encoder to patch_encoder.others, or leave the row out by {features}: null"
                )
            if features in patches and features not in self.pretrain.runs and "vit_wsi" in names:
                found.append(
                    f"evaluate.rows.{features}: vit_wsi attends from each patch of a slide to all others, tens of "
                    "thousands; leave it out there, as the paper does"
                )
            if len(set(names)) < len(names):
                found.append(f"evaluate.rows.{features}: {', '.join(names)} names a classifier twice; keep one")
        if not self.evaluate.rows:
            found.append("evaluate.rows: none is left; keep one row")
        return found


def _refuse(found: list[str]) -> None:
    """Raise the problems found, if any: a line each, and each once."""
    if found:
        raise ValueError("\n".join(dict.fromkeys(found)))


def _refuse_named(key: str, overrides: Mapping[str, Any], settings_of: Callable[[str], Section]) -> None:
    """Raise what is wrong with the names and settings of runs or other encoders, the values of `key`."""
    found = []
    for name in overrides:
        if not PLAIN_NAME.fullmatch(name) or name in (PATCH_FEATURES, COLOUR_FEATURES):
            found.append(
                f"{key}: {name!r} cannot stand here; use letters, digits, - and _, and neither 'patch' nor 'colour'"
            )
            continue
        try:
            settings_of(name)
        except ValidationError as error:
            found += problems(error, key, name)
        except ValueError as error:
            found.append(f"{key}.{name}.{error}")
    _refuse(found)


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
