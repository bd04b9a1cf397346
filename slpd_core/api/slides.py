"""A slide's tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from slpd_core import artifacts, config
from slpd_core.slides.tissue import segment_slide
from slpd_core.wsi.reader import Slide


@config.check_arguments(config.TissueSegmentationConfig, config.TissueOutlineConfig)
def segment_tissue(
    slide: Slide,
    *,
    outline: str | Path | None = None,
    mask_origin: Literal["slide", "bounds"] | None = None,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str] = ("Artifact", "Artefact", "Background"),
    method: Literal["otsu", "grandqc", "hest"] = "otsu",
    weights: str | None = None,
    thumbnail_mpp: float = 8.0,
    smoothing_um: float = 24.0,
    closing_um: float = 64.0,
    ink: Literal["auto", "exclude", "keep"] = "auto",
    min_island_um2: float = 40_000.0,
    min_hole_um2: float = 40_000.0,
) -> artifacts.Tissue:
    """Segment the tissue of a slide on a thumbnail, or read it from an outline.

    Args:
        slide: An open slide. Its file's name without extension becomes the slide's id.
        outline: A GeoJSON outlined by hand, as QuPath exports it, read instead of a segmentation.
        mask_origin: Origin of the outline on slides that state bounds: "slide" (level 0) or "bounds" (QuPath).
        classes: Classes of the outline that are tissue; None: all.
        ignore: Classes of the outline that are subtracted from tissue.
        method: "otsu" (on the saturation), or a network: "grandqc" or "hest".
        weights: File of the network's weights, as its authors publish them.
        thumbnail_mpp: um/px of the thumbnail.
        smoothing_um: Width of the median filter; thinner lines are no tissue.
        closing_um: Narrower gaps are closed.
        ink: Pixels of a pen's hue (blue, green, yellow): "exclude", "keep" (as a stain), or "auto".
        min_island_um2: Pieces of tissue that are no larger are dropped.
        min_hole_um2: Holes that are no larger are filled.

    Returns:
        The tissue: `polygons` with holes, level-0 px, and `slide`, the slide's size, mpp and remarks.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: An argument is out of its bounds, the outline cannot be read as one of this slide, or weights are
            not the network's.
        ModuleNotFoundError: A package of the network is not installed.
    """
    return segment_slide(
        slide.path.stem,
        slide,
        mask_path=None if outline is None else Path(outline),
        mask_origin=mask_origin,
        classes=classes,
        ignore=ignore,
        method=method,
        weights=weights,
        thumbnail_mpp=thumbnail_mpp,
        smoothing_um=smoothing_um,
        closing_um=closing_um,
        ink=ink,
        min_island_um2=min_island_um2,
        min_hole_um2=min_hole_um2,
    )[0]
