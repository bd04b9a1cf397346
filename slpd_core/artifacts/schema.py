"""The written contract of every artifact: columns, arrays, shapes, dtypes and units."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

OK, QUARANTINED, EMPTY = "ok", "quarantined", "empty"
Meta = dict[str, str]

# Columns of each Parquet table. `embedding` is a fixed-size list, float32.
TABLES: dict[str, tuple[str, ...]] = {
    "sheet": ("slide_id", "patient_id", "mpp", "site"),  # no paths: slides may move
    "ledger": (
        *("slide_id", "patient_id", "status", "reason", "width_px", "height_px", "mpp", "mpp_source"),
        *("tissue_mm2", "tissue_source", "regions", "fingerprint", "slide_fingerprint", "remarks"),
    ),
    "embed": ("slide_id", "x", "y", "embedding"),  # and `attention`, a list of floats, if asked for
    "labels": ("slide_id", "patient_id", "label"),  # of one task, slides that have a label
    "folds": ("fold", "slide_id", "patient_id", "label", "part"),
    "evaluate": ("fold", "slide_id", "patient_id", "label"),  # and one column p_{label} per class, float64
    "few_shot": ("fold", "repeat", "shots", "classifier"),  # of features; and the endpoint's scores, float64
    # Of features, a row per number of prototypes and query.
    "retrieval": ("n_prototypes", "fold", "slide_id", "patient_id", "label", "ap_5", "mv_1", "mv_3", "mv_5"),
    "attention": ("slide_id", "x", "y", "fold", "attention"),  # of a row, its test slides; float64
    "external": ("features", "classifier", "fold", "slide_id"),  # and the columns of the predictions
    "history": ("epoch", "loss"),  # of a training, one row per epoch; and the other curves
    "remarks": ("remark", "id", "fold"),  # on the folds; texts
    "few_shot_results": ("features", "classifier", "shots", "folds"),  # of a report; and scores
    "retrieval_results": ("features", "n_prototypes", "queries", "folds"),  # of a report; and scores
    "external_results": ("row", "folds", "slides", "patients"),  # of an external cohort; and scores
    "results": ("row", "patch_encoder", "splits"),  # of a report; scores, one row per features and classifier
}
# The parts of a fold that pretraining sees; it needs no labels.
PRETRAINING_PARTS = ("train", "unlabeled")
# Metadata of the patch encoder that the tokens stage needs; JSON values.
PATCH_ENCODER_META = (
    *("name", "source", "model_kwargs", "patch_px", "input_px", "pooling", "mean", "std", "token_dim"),
)
# Metadata of a tokens file about its patch encoder; texts, passed on to the `evaluate` tables.
ENCODER_META = ("encoder_source", "encoder_name", "encoder_normalization")

# Remarks of `folds/{task}/remarks.csv` on slides of a status, and on a label that a part of a fold lacks.
REMARKS_OF_STATUS = {QUARANTINED: "quarantined", EMPTY: "without regions"}
REMARK_UNLABELED = "without a label"
REMARKS_OF_LABELS = {"train": "label not trained", "test": "label not tested"}


@dataclass(frozen=True)
class SlideInfo:
    """Facts of a slide that was opened, or the reason why it could not be.

    Args:
        slide_id: Its id in the sheet.
        status: "ok" or "quarantined".
        reason: Why it is quarantined.
        width_px: Width of level 0.
        height_px: Height of level 0.
        mpp: um/px of level 0; nan if quarantined.
        mpp_source: Where the mpp comes from.
        fingerprint: Hash of the slide's file.
        remarks: Sentences to know about a slide that is used.
        missing_tiles: "error", or "white" to read tiles that its file leaves out as glass; the tissue stage's setting,
            which all later stages follow.
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
    """Tissue of a slide.

    Args:
        slide: The slide.
        polygons: shapely Polygons with holes, level-0 px.
        source: "segmented", "outline" drawn by hand, or "outline from bounds" if that counted from `bounds_xy`.
        bounds_xy: Corner of the scanned area, level-0 px, from which QuPath counts; (0, 0) if the format states none.
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
    """Regions of a slide that hold tissue.

    Args:
        slide: The slide.
        coords: Upper left corners (x, y), level-0 px, int64 (L, 2).
        tissue_fraction: Fraction of each region that is tissue, 0..1, float32 (L,).
        size_px: Side at target_mpp.
        size_level0_px: The same side in level-0 px.
        target_mpp: um/px at which regions are read.
        focus: How sharp each region is, float32 (L,), nan where it holds no tissue; None: not measured.
    """

    slide: SlideInfo
    coords: np.ndarray
    tissue_fraction: np.ndarray
    size_px: int
    size_level0_px: int
    target_mpp: float
    focus: np.ndarray | None = None

    @property
    def tissue_mm2(self) -> float:
        """Tissue in the regions; 0 without regions."""
        side_mm = self.size_level0_px * self.slide.mpp / 1000
        return float(self.tissue_fraction.sum()) * side_mm**2 if len(self.coords) else 0.0

    def select(self, rows: Any) -> "Regions":
        """Select some of the regions.

        Args:
            rows: Indices, a slice or bool (L,).

        Returns:
            The slide with these regions alone.
        """
        focus = None if self.focus is None else self.focus[rows]
        return replace(self, coords=self.coords[rows], tissue_fraction=self.tissue_fraction[rows], focus=focus)


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of a slide; arrays, or views of an open file that check what they read.

    Args:
        slide: The slide.
        tokens: float16 (L, grid * grid, dim), the grid row-major.
        mean_color: Mean RGB of each patch, 0..255, float16 (L, grid * grid, 3), in the order of the tokens.
        coords: As in `Regions`.
    """

    slide: SlideInfo
    tokens: Any
    mean_color: Any
    coords: np.ndarray
