"""Settings of the stages from tokens to embeddings."""

from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from slpd_core.config.base import (
    AutoOrPositive,
    NonNegative,
    NonNegativeInt,
    Overrides,
    Positive,
    Section,
    check_overrides,
    raise_problems,
)
from slpd_core.config.ssl import SelfDistillationConfig

# What the paper's text and its released code do differently: `preset` of a run sets these, its other keys go before.
# `authors_code` also sets min_regions, by the number of prototypes, and fits cluster_crop to a grid smaller than 16.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "cluster_space": "embedding",
        "cluster_crop": None,
        "prototype_start_epoch": 0,
        "min_regions": None,
        "matching": "optimal",
        "shared_center": False,
        "skip_crop_k": False,
        "warmup_endpoint": False,
        "exclude_same_patient": False,
        "center_slides": False,
        "kmeans_restarts": 5,
        "kmeans_iterations": 10,
        "batch_size": 256,
    },
    "authors_code": {
        "cluster_space": "bottleneck",
        "cluster_crop": 14,
        "prototype_start_epoch": 21,
        "matching": "nearest",
        "shared_center": True,
        "skip_crop_k": True,
        "warmup_endpoint": True,
        "exclude_same_patient": False,
        "center_slides": False,
        "kmeans_restarts": 5,
        "kmeans_iterations": 10,
        "batch_size": 512,
    },
}
PAPER_GRID, PAPER_GLOBAL_CROP, PAPER_LOCAL_CROP = 16, 14, 6  # sides in tokens
RELEASED_REGIONS_PER_PROTOTYPE = 8  # of the released code's commands: min_regions 32 for M = 4, 16 for M = 2


def scale_crops(grid: int) -> tuple[int, int]:
    """Scale the paper's crops to a grid smaller than the paper's: 7/8 and 3/8 of its side.

    Args:
        grid: Side of a region in tokens.

    Returns:
        Sides of a global and of a local crop, in tokens; the global one is larger, unless the grid is one token.
    """
    local_crop = max(1, (3 * grid + 4) // 8)  # rounded
    global_crop = max(7 * grid // 8, min(grid, local_crop + 1))  # rounded down: a crop of the whole grid cannot move
    return min(global_crop, PAPER_GLOBAL_CROP), min(local_crop, PAPER_LOCAL_CROP)


def _is_zero(value: float) -> bool:
    return value == 0


class PretrainBaseConfig(SelfDistillationConfig):
    """Settings of pretraining, of which the sizes of crops may be left to the grid."""

    epochs: NonNegativeInt  # 0: the encoder of init_from as it is
    train_on: Literal["all", "train_fold"]
    alpha_intra: NonNegative
    alpha_inter: NonNegative
    clustering: Literal["slide", "global"]
    n_prototypes: Positive
    min_regions: Positive | None
    cluster_space: Literal["embedding", "bottleneck"]
    cluster_crop: Positive | None
    prototype_start_epoch: NonNegativeInt
    kmeans_restarts: Positive
    kmeans_iterations: Positive
    n_neighbors: Positive
    exclude_same_patient: bool
    inter_target: Literal["prototype", "region", "any_region"]
    matching: Literal["optimal", "nearest"]
    center_slides: bool
    shared_center: bool
    skip_crop_k: bool
    warmup_endpoint: bool
    global_crop_size: Positive | None
    local_crop_size: Positive | None
    augment: Literal["none", "hflip", "dihedral"]
    slide_offset: NonNegative = Field(default=0.0, exclude_if=_is_zero)  # 0 is not recorded: it trains as before
    init_from: str | None
    embed_dim: Positive
    depth: Positive
    n_heads: Positive
    precision: Literal["auto", "fp32", "bf16", "fp16"]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        lines = []
        if self.embed_dim % self.n_heads:
            lines.append(f"embed_dim: {self.embed_dim} is not a multiple of n_heads {self.n_heads}; change one of them")
        global_crop = self.global_crop_size or PAPER_GLOBAL_CROP
        if (self.local_crop_size or 1) > global_crop:
            lines.append(
                f"local_crop_size: {self.local_crop_size} is larger than global_crop_size {global_crop}; lower it"
            )
        if self.clustering == "global" and self.alpha_inter:
            lines.append(
                f"clustering: global, but alpha_inter is {self.alpha_inter}; set it to 0, a cohort clustered as one "
                "has no nearest slides"
            )
        if self.center_slides and self.n_prototypes == 1:
            lines.append("center_slides: nothing is left of one prototype per slide; set n_prototypes to 2 or more")
        if not self.epochs and not self.init_from:
            lines.append("epochs: 0 trains nothing; name the encoder to take as it is in init_from, or raise it")
        if not self.epochs and self.cluster_space == "bottleneck":
            lines.append("cluster_space: bottleneck, but with epochs: 0 no head is trained; set it to embedding")
        if self.epochs and self.uses_prototypes and self.prototype_start_epoch >= self.epochs:
            lines.append(
                f"prototype_start_epoch: {self.prototype_start_epoch} of {self.epochs} epochs leave none for the "
                "prototypes; lower it, or set alpha_intra and alpha_inter to 0"
            )
        raise_problems(lines)
        return self

    @property
    def uses_prototypes(self) -> bool:
        """Whether a loss of the run needs prototypes."""
        return self.alpha_intra > 0 or self.alpha_inter > 0


class PretrainRunConfig(PretrainBaseConfig):
    """Settings of one pretraining run: overrides applied, crops of the size that fits its grid."""

    global_crop_size: Positive
    local_crop_size: Positive


class PretrainConfig(PretrainBaseConfig):
    runs: Overrides
    fold_task: str | None  # of all runs, and no setting of one: a run is known by its folds
    _grid: int = PrivateAttr(default=PAPER_GRID)

    def fit_grid(self, grid: int) -> None:
        """Let crops that have no size fit the regions.

        Args:
            grid: Side of a region in tokens.
        """
        self._grid = grid

    @model_validator(mode="after")
    def _runs_are_valid(self) -> Self:
        check_overrides("runs", self.runs, self.run)
        return self

    def run(self, name: str) -> PretrainRunConfig:
        """Apply the preset and the overrides of a run to the section, and fit its crops to the grid.

        Args:
            name: Of the run.

        Returns:
            Its settings.

        Raises:
            ValueError: There is no such preset, or the settings contradict each other.
        """
        overrides = dict(self.runs[name])
        preset = overrides.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset: {preset!r} is none of {', '.join(PRESETS)}; name one of them")
        run = PretrainBaseConfig(
            **{**self.model_dump(exclude={"runs", "fold_task"}), **PRESETS.get(preset, {}), **overrides}
        )
        global_crop, local_crop = scale_crops(self._grid)
        values = run.model_dump()
        if preset == "authors_code":
            fitted = {"min_regions": RELEASED_REGIONS_PER_PROTOTYPE * run.n_prototypes, "cluster_crop": global_crop}
            values |= {key: value for key, value in fitted.items() if key not in overrides}
        if not run.epochs:  # nothing is trained: one encoder for all folds
            values["train_on"] = "all"
        values["global_crop_size"] = run.global_crop_size or global_crop
        values["local_crop_size"] = run.local_crop_size or min(local_crop, values["global_crop_size"])
        return PretrainRunConfig(**values)


class EmbedConfig(Section):
    batch_size: AutoOrPositive
    attention: bool


class GalleryConfig(Section):
    n_slides: Positive
