"""Regions: the squares of a grid at the target um/px that hold enough tissue."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from slpd_core import artifacts, config
from slpd_core.artifacts.coordinate_files import COORDINATE_READERS
from slpd_core.drawing.caption import add_caption, format_um, png_text
from slpd_core.drawing.overlays import DROPPED_COLOR, KEPT_COLOR, TISSUE_COLOR, draw_placeholder, draw_regions
from slpd_core.runtime import log
from slpd_core.slides.focus import drop_blurred, measure_focus
from slpd_core.slides.grid import has_enough_tissue, place_grid, tissue_fractions
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import MPP_TOLERANCE, downsample_factor, region_side_level0

VERSION = 3
NO_SQUARES = np.empty((0, 2), np.int64)


@config.check_arguments(config.RegionsConfig)
def select_regions(
    tissue: artifacts.Tissue,
    *,
    size_px: int = 4096,
    target_mpp: float = 0.5,
    min_tissue_fraction: float = 0.25,
    edge: Literal["pad", "drop"] = "pad",
    anchor: Literal["slide", "tissue"] = "slide",
) -> artifacts.Regions:
    """Lay a grid of squares over a slide and select those with enough tissue; a quarantined slide has none.

    Args:
        tissue: The slide's tissue, as `segment_tissue` returns.
        size_px: Side of a region at `target_mpp` (paper: 4096).
        target_mpp: um/px at which regions are read (paper: 0.5).
        min_tissue_fraction: Squares with less tissue are dropped, and those without any.
        edge: Squares that hang over the slide's edge: "pad" (with white) or "drop".
        anchor: Where the grid begins: "slide" (its corner) or "tissue" (where most tissue is kept).

    Returns:
        The regions: `coords` int64 (L, 2), level-0 px of the upper left corners, and `tissue_fraction` float32 (L,); if
        there are none, `slide.reason` says why.

    Raises:
        SlideError: The slide is coarser than `target_mpp`.
        ValueError: An argument is out of its bounds.
    """
    slide = tissue.slide
    if slide.status != artifacts.OK:
        return artifacts.Regions(slide, NO_SQUARES, np.empty(0, np.float32), size_px, 0, target_mpp)
    if target_mpp < slide.mpp * (1 - MPP_TOLERANCE):
        raise SlideError(
            f"{slide.slide_id}: {slide.mpp:g} um/px ({slide.mpp_source}) is coarser than regions.target_mpp "
            f"{target_mpp:g}; remove the slide from the sheet, correct its mpp there or raise target_mpp"
        )
    region_px = region_side_level0(size_px, downsample_factor(slide.mpp, target_mpp))
    coords, fractions = place_grid(tissue, region_px, min_tissue_fraction=min_tissue_fraction, edge=edge, anchor=anchor)
    kept = has_enough_tissue(fractions, min_tissue_fraction)
    if not kept.any():
        slide = replace(slide, reason=empty_reason(tissue, fractions, min_tissue_fraction))
    return artifacts.Regions(slide, coords[kept], fractions[kept], size_px, region_px, target_mpp)


def import_regions(
    tissue: artifacts.Tissue, path: Path | None, *, size_px: int, target_mpp: float
) -> artifacts.Regions:
    """Take a slide's regions from another tool's coordinates as they are; a quarantined slide has none.

    Args:
        tissue: The slide's tissue, for the fraction of it in each region.
        path: The file of coordinates; None where the slide has none.
        size_px: Side of a region at `target_mpp`.
        target_mpp: um/px at which regions are read.

    Returns:
        The regions, in the order of the file.

    Raises:
        SlideError: The slide has no file of coordinates.
        ValueError: The file is broken, or its squares are of another size or beyond the slide.
    """
    none = select_regions(replace(tissue, polygons=()), size_px=size_px, target_mpp=target_mpp)
    slide = tissue.slide
    if slide.status != artifacts.OK:
        return none
    if path is None:
        raise SlideError(
            f"{slide.slide_id}: no file of coordinates in regions.coordinates; add it, or remove the slide from the "
            "sheet"
        )
    squares, side = COORDINATE_READERS[path.suffix](path), none.size_level0_px
    stated = squares.side_level0_px
    if stated is not None and abs(stated - side) > 1:
        raise ValueError(
            f"{slide.slide_id}: {path} lists squares of {stated:g} level-0 px ({stated * slide.mpp:g} um), but a "
            f"region has {side:g} ({side * slide.mpp:g} um); correct regions.size_px or regions.target_mpp, or the "
            "slide's mpp"
        )
    beyond = (squares.coords <= -side) | (squares.coords >= (slide.width_px, slide.height_px))
    if beyond.any():
        x, y = squares.coords[np.argmax(beyond.any(axis=1))]
        raise ValueError(
            f"{slide.slide_id}: {path} lists a square at ({x}, {y}), beyond the slide's {slide.width_px} x "
            f"{slide.height_px} level-0 px; give the coordinates of this slide"
        )
    fractions = tissue_fractions(squares.coords, side, tissue.polygons)
    slide = slide if len(squares.coords) else replace(slide, reason=f"{path.name} lists no regions")
    return artifacts.Regions(slide, squares.coords, fractions, size_px, side, target_mpp)


def empty_reason(tissue: artifacts.Tissue, fractions: np.ndarray, min_tissue_fraction: float) -> str:
    """Explain why a slide has no regions, with the remedy.

    Args:
        tissue: The slide's tissue.
        fractions: Tissue fraction of each square of the grid.
        min_tissue_fraction: Least fraction of a region.

    Returns:
        The reason.
    """
    max_fraction = float(fractions.max(initial=0))
    if not tissue.polygons:
        # Remarks may tell why, e.g. pixels excluded as ink.
        return " ".join(
            ["no tissue found; outline it by hand (tissue.masks_dir) if there is some.", *tissue.slide.remarks]
        )
    if not max_fraction:
        return "no whole region holds tissue; set regions.edge to pad"
    return (
        f"no region with enough tissue, the fullest has {max_fraction:.0%}; lower regions.min_tissue_fraction "
        f"({min_tissue_fraction:.0%}) or set regions.anchor to tissue"
    )


def find_dropped(
    tissue: artifacts.Tissue, region_px: int, *, min_tissue_fraction: float, edge: str, anchor: str
) -> np.ndarray:
    """Find the squares of a slide's grid that hold tissue, but not enough.

    Args:
        tissue: The slide's tissue.
        region_px: Side of a square, level-0 px.
        min_tissue_fraction, edge, anchor: As in `select_regions`.

    Returns:
        Their corners, int64 (n, 2), level-0 px.
    """
    coords, fractions = place_grid(tissue, region_px, min_tissue_fraction=min_tissue_fraction, edge=edge, anchor=anchor)
    dropped: np.ndarray = coords[(fractions > 0) & ~has_enough_tissue(fractions, min_tissue_fraction)]
    return dropped


def draw_regions_overlay(
    outlined_path: Path, tissue: artifacts.Tissue, regions: artifacts.Regions, dropped: np.ndarray
) -> Image.Image:
    """Draw a slide's squares, kept and dropped, on the picture of its tissue.

    A slide that this stage quarantined shows the reason instead.

    Args:
        outlined_path: Picture of the tissue stage.
        tissue: The slide's tissue.
        regions: Its regions.
        dropped: Corners of the squares that were dropped, int64 (n, 2).

    Returns:
        The picture.
    """
    with Image.open(io.BytesIO(artifacts.read_picture(outlined_path))) as file:
        outlined = file.convert("RGB")
    if tissue.slide.status != artifacts.OK:
        return outlined
    if regions.slide.status != artifacts.OK:
        return draw_placeholder(regions.slide.slide_id, regions.slide.reason)
    slide_px = (tissue.slide.width_px, tissue.slide.height_px)
    picture = draw_regions(outlined, slide_px, regions.coords, dropped, regions.size_level0_px)
    side = format_um(regions.size_px * regions.target_mpp)
    n = len(regions.coords)
    title = f"{tissue.slide.slide_id} · {n:,} region{'s' * (n != 1)} of {side}"
    legend = [(TISSUE_COLOR, "tissue"), (KEPT_COLOR, "region")]
    legend += [(DROPPED_COLOR, "dropped: too little tissue, or blurred")] if len(dropped) else []
    return add_caption(picture, title, tissue.slide.mpp * slide_px[0] / outlined.width, legend)


def run(
    *,
    tissue_path: Path,
    outlined_path: Path,
    regions_path: Path,
    overlay_path: Path,
    section: config.RegionsConfig,
    quarantine: tuple[type[Exception], ...],
    imported: bool = False,
    coordinates_path: Path | None = None,
    slide_path: Path | None = None,
    state_dir: Path | None = None,
) -> None:
    """Write a slide's regions and their picture; one that is too coarse, or cannot be read for focus, is quarantined.

    Args:
        tissue_path: The slide's tissue.
        outlined_path: Picture of the tissue stage.
        regions_path: The file to write.
        overlay_path: The picture to write.
        section: The stage's settings.
        quarantine: Errors that quarantine the slide; others are raised.
        imported: Whether regions are another tool's.
        coordinates_path: Their coordinates; None where the slide has none.
        slide_path: The file that the sheet names; read where `min_focus` is set.
        state_dir: Folder of memos and marks on the slides' files.

    Raises:
        SlideError: The slide is coarser than the target um/px, and `quarantine` does not hold SlideError.
        OSError: It cannot be read, and `quarantine` does not hold OSError.
    """
    tissue, meta = artifacts.read_tissue(tissue_path)
    settings = section.model_dump(include={*config.RegionsConfig.model_fields})
    grid = section.model_dump(include={"min_tissue_fraction", "edge", "anchor"})
    sizes = section.model_dump(include={"size_px", "target_mpp"})
    mark_path = outages.name_mark(state_dir, tissue.slide.slide_id, regions_path)
    dropped = NO_SQUARES
    inputs = [meta["fingerprint"], *([artifacts.file_fingerprint(coordinates_path)] if coordinates_path else [])]
    try:
        if imported:
            regions = import_regions(tissue, coordinates_path, **sizes)
        else:
            regions = select_regions(tissue, **sizes, **grid)
        if section.min_focus is not None and slide_path is not None:
            raise_slide_error = OSError in quarantine
            regions = measure_focus(
                slide_path, tissue, regions, raise_slide_error=raise_slide_error, state_dir=state_dir
            )
            regions, dropped = drop_blurred(regions, section.min_focus)
            if not len(dropped):  # these regions depend on it no more than if it were null
                settings.pop("min_focus", None)
            outages.note_read(mark_path)
            log.info("%d regions dropped as blurred", len(dropped))
    except SlideError as error:
        if SlideError not in quarantine:
            raise
        reason = outages.explain(error, mark_path, slide_path or tissue_path)
        log.warning("quarantined: %s", reason)
        slide = replace(tissue.slide, status=artifacts.QUARANTINED, reason=reason)
        regions = select_regions(replace(tissue, slide=slide), **sizes)
    log.info("%d regions of %d px at %g um/px", len(regions.coords), section.size_px, section.target_mpp)
    provenance = artifacts.provenance("regions", VERSION, settings, *inputs)
    if regions.size_level0_px and not imported:
        dropped = np.concatenate([find_dropped(tissue, regions.size_level0_px, **grid), dropped])
    overlay = draw_regions_overlay(outlined_path, tissue, regions, dropped)
    artifacts.write_picture(overlay_path, overlay, **png_text(overlay))
    artifacts.write_regions(regions_path, regions, provenance)
