"""A slide's tissue and regions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from slpd_core import artifacts, config
from slpd_core.slides import regions as grid
from slpd_core.slides import tissue as segmentation
from slpd_core.wsi.reader import Slide


def segment_tissue(
    slide: Slide,
    *,
    outline: str | Path | None = None,
    mask_origin: Literal["slide", "bounds"] | None = None,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str] = ("Artifact", "Artefact", "Background"),
    thumbnail_mpp: float = 8.0,
    smoothing_um: float = 24.0,
    closing_um: float = 64.0,
    ink: Literal["auto", "exclude", "keep"] = "auto",
    min_island_um2: float = 40_000.0,
    min_hole_um2: float = 40_000.0,
) -> artifacts.Tissue:
    """Find the tissue of a slide on a thumbnail, or take it from an outline.

    Args:
        slide: An open slide. Its file's name without extension becomes the slide's id.
        outline: A GeoJSON outlined by hand, as QuPath exports it; the slide is not segmented then.
        mask_origin: What the outline counts from, on slides that state bounds: "slide" (level 0) or "bounds" (QuPath).
        classes: The outline's classes that are tissue; None: all.
        ignore: The outline's classes that are subtracted from tissue.
        thumbnail_mpp: um/px of the thumbnail.
        smoothing_um: Width of the median filter; thinner lines are no tissue.
        closing_um: Narrower gaps are closed.
        ink: What is blue, green or yellow: "exclude" (ink of a pen), "keep" (a stain), or "auto".
        min_island_um2: Pieces of tissue that are no larger are dropped.
        min_hole_um2: Holes that are no larger are filled.

    Returns:
        The polygons with holes, level-0 px, with what is known of the slide.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The outline cannot be read as one of this slide.
    """
    settings = config.TissueSegmentationConfig(
        thumbnail_mpp=thumbnail_mpp,
        smoothing_um=smoothing_um,
        closing_um=closing_um,
        ink=ink,
        min_island_um2=min_island_um2,
        min_hole_um2=min_hole_um2,
        missing_tiles="white" if slide.missing_tiles == "white" else "error",
    )
    reading = config.TissueOutlineConfig(
        mask_origin=mask_origin, classes=None if classes is None else tuple(classes), ignore=tuple(ignore)
    )
    mask_path = None if outline is None else Path(outline)
    return segmentation.segment_slide(
        slide.path.stem,
        slide,
        mask_path=mask_path,
        **reading.model_dump(),
        **settings.model_dump(exclude={"missing_tiles"}),
    )[0]


def select_regions(
    tissue: artifacts.Tissue,
    *,
    size_px: int = 4096,
    target_mpp: float = 0.5,
    min_tissue_fraction: float = 0.25,
    edge: Literal["pad", "drop"] = "pad",
    anchor: Literal["slide", "tissue"] = "slide",
) -> artifacts.Regions:
    """Lay a grid of squares over a slide and keep those with enough tissue.

    Args:
        tissue: Of the slide, as `segment_tissue` returns.
        size_px: Side of a region at target_mpp (paper: 4096).
        target_mpp: um/px at which regions are read (paper: 0.5).
        min_tissue_fraction: Squares with less tissue are dropped.
        edge: Squares that hang over the slide's edge: "pad" (white) or "drop".
        anchor: Where the grid begins: "slide" (its corner) or "tissue" (where most tissue is kept).

    Returns:
        The regions: `coords` int64 (L, 2), level-0 px of the upper left corners, and `tissue_fraction` float32 (L,).

    Raises:
        SlideError: The slide is coarser than target_mpp.
    """
    settings = config.RegionsConfig(
        size_px=size_px, target_mpp=target_mpp, min_tissue_fraction=min_tissue_fraction, edge=edge, anchor=anchor
    )
    return grid.select_tissue_regions(tissue, **settings.model_dump())
