"""The written contract of every artifact: columns, arrays, shapes, dtypes and units."""

from dataclasses import dataclass
from typing import Any

import numpy as np

OK, QUARANTINED, EMPTY = "ok", "quarantined", "empty"
Meta = dict[str, str]

# Columns of each Parquet table. `embedding` is a fixed-size list, float32.
TABLES: dict[str, tuple[str, ...]] = {
    "sheet": ("slide_id", "patient_id", "label", "mpp", "site"),  # not where the slides lie: they may move
    "ledger": (
        *("slide_id", "patient_id", "label", "status", "reason", "width_px", "height_px", "mpp", "mpp_source"),
        *("tissue_mm2", "tissue_source", "regions", "fingerprint", "remarks"),
    ),
    "embed": ("slide_id", "x", "y", "embedding"),  # and `attention`, a list of floats, if asked for
    "folds": ("fold", "slide_id", "patient_id", "label", "part"),
    "evaluate": ("fold", "slide_id", "patient_id", "label"),  # and one column p_{label} a class, float64
    "history": ("epoch", "loss"),  # of a training, a row an epoch; and what else was watched
    "remarks": ("remark", "id", "fold"),  # on the folds, texts
    "results": ("row", "patch_encoder", "splits"),  # of a report, a row of scores each
}
# The parts of a fold that pretraining sees: unlabeled slides too, for it needs no labels.
PRETRAINING_PARTS = ("train", "unlabeled")
# What the patch encoder's metadata must say for the tokens stage to use it; JSON values.
PATCH_ENCODER_META = (
    *("name", "source", "model_kwargs", "patch_px", "input_px", "pooling", "mean", "std", "token_dim"),
)
# What a tokens file says of the patch encoder that made it; texts, passed on to the `evaluate` tables.
ENCODER_META = ("encoder_source", "encoder_name", "encoder_normalization")

# What `folds/remarks.csv` says of slides of a status, and of a label that a part of a fold lacks.
REMARKS_OF_STATUS = {QUARANTINED: "quarantined", EMPTY: "without regions"}
REMARKS_OF_LABELS = {"train": "label not trained", "test": "label not tested"}


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide once it was opened, or why it could not be.

    status: "ok" or "quarantined", then `reason` says why. Level-0 size in px, mpp in um/px (nan when quarantined),
    mpp_source where the mpp came from, fingerprint of the slide's file. remarks: sentences to know about a slide that
    is used all the same. missing_tiles: "error", or "white" where tiles that its file leaves out are glass; the setting
    by which its tissue was found, and by which all later stages read it.
    """

    slide_id: str
    status: str
    reason: str = ""
    width_px: int = 0
    height_px: int = 0
    mpp: float = float("nan")
    mpp_source: str = ""
    fingerprint: str = ""
    remarks: tuple[str, ...] = ()
    missing_tiles: str = "error"


@dataclass(frozen=True)
class Tissue:
    """Tissue of a slide: shapely Polygons with holes, level-0 px.

    source: "segmented", or an "outline" by hand, "outline from bounds" where it counts from `bounds_xy`: the corner of
    the scanned area that some formats state, level-0 px, and that QuPath counts from.
    """

    slide: SlideInfo
    polygons: tuple[Any, ...]
    source: str = "segmented"
    bounds_xy: tuple[int, ...] = (0, 0)

    @property
    def area_mm2(self) -> float:
        """Area of all polygons."""
        return sum((polygon.area * self.slide.mpp**2 / 1e6 for polygon in self.polygons), 0.0)


@dataclass(frozen=True)
class Regions:
    """The regions kept of a slide.

    coords: int64 (L, 2), level-0 px (x, y) of the upper left corner. tissue_fraction: float32 (L,), 0..1.
    size_px: side at target_mpp; size_level0_px: the same side in level-0 px.
    """

    slide: SlideInfo
    coords: np.ndarray
    tissue_fraction: np.ndarray
    size_px: int
    size_level0_px: int
    target_mpp: float


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of a slide: float16 (L, grid * grid, dim), row-major grid; coords as in Regions.

    mean_color: mean RGB of each patch, float16 (L, grid * grid, 3), 0..255, in the order of the tokens.
    """

    slide: SlideInfo
    tokens: Any  # np.ndarray, or the open HDF5 dataset inside `writing_tokens` and `open_tokens`
    mean_color: Any  # the same
    coords: np.ndarray
