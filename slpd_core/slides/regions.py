"""Regions: the grid of squares at the target um/px, kept where there is tissue."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from slpd_core import config, store
from slpd_core.runtime import log
from slpd_core.slides.bad_slides import SlideError
from slpd_core.slides.mpp import FINER, level0_side, scale_between

VERSION = 1


def grid_coords(slide_px: tuple[int, int], region_px: int, edge: str) -> np.ndarray:
    """Upper left corners of non-overlapping squares over a slide, row by row: int64 (cells, 2), (x, y).

    slide_px: (width, height); region_px: side, both level-0 px. edge: "pad" keeps squares that hang over the right and
    lower edges, "drop" does not.
    """
    count = [-(-side // region_px) if edge == "pad" else side // region_px for side in slide_px]
    y, x = np.mgrid[: count[1], : count[0]].reshape(2, -1) * region_px
    return np.stack([x, y], axis=1).astype(np.int64)


def tissue_fractions(coords: np.ndarray, region_px: int, polygons: tuple[shapely.Polygon, ...]) -> np.ndarray:
    """Exact share of each square that tissue covers: float32 (squares,).

    coords: (squares, 2) upper left corners; polygons: disjoint, in the same px.
    """
    covered = np.zeros(len(coords))
    if len(coords) and polygons:
        squares = shapely.box(coords[:, 0], coords[:, 1], coords[:, 0] + region_px, coords[:, 1] + region_px)
        pieces = np.array(polygons, dtype=object)
        square, piece = shapely.STRtree(pieces).query(squares, predicate="intersects")
        np.add.at(covered, square, shapely.area(shapely.intersection(squares[square], pieces[piece])))
    return (covered / region_px**2).astype(np.float32)


def keep_regions(tissue: store.Tissue, section: config.Regions) -> store.Regions:
    """The regions of a slide with enough tissue; none for a quarantined slide.

    Raises SlideError when the slide is coarser than the target um/px.
    """
    slide = tissue.slide
    if slide.status != store.OK:
        none = np.empty((0, 2), np.int64), np.empty(0, np.float32)
        return store.Regions(slide, *none, section.size_px, 0, section.target_mpp)
    if section.target_mpp < slide.mpp * (1 - FINER):
        raise SlideError(
            f"{slide.slide_id}: {slide.mpp:g} um/px ({slide.mpp_source}) is coarser than regions.target_mpp "
            f"{section.target_mpp:g}; leave the slide out, correct its mpp in the sheet or raise target_mpp"
        )
    region_px = level0_side(section.size_px, scale_between(slide.mpp, section.target_mpp))
    coords = grid_coords((slide.width_px, slide.height_px), region_px, section.edge)
    fractions = tissue_fractions(coords, region_px, tissue.polygons)
    kept = (fractions >= section.min_tissue_fraction) & (fractions > 0)
    return store.Regions(slide, coords[kept], fractions[kept], section.size_px, region_px, section.target_mpp)


def run(
    *, tissue_path: Path, regions_path: Path, section: config.Regions, quarantine: tuple[type[Exception], ...]
) -> None:
    """Lay a slide's regions; a slide coarser than the target um/px is quarantined with the reason.

    quarantine: the errors that do that, others are raised.
    """
    tissue, meta = store.read_tissue(tissue_path)
    try:
        regions = keep_regions(tissue, section)
    except quarantine as error:
        log.warning("quarantined: %s", error)
        lost = replace(tissue.slide, status=store.QUARANTINED, reason=str(error))
        regions = keep_regions(replace(tissue, slide=lost), section)
    log.info("%d regions of %d px at %g um/px", len(regions.coords), section.size_px, section.target_mpp)
    provenance = store.provenance("regions", VERSION, section.model_dump(), meta["fingerprint"])
    store.write_regions(regions_path, regions, provenance)
