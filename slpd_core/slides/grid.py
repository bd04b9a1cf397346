"""Grids of squares over a slide, and the tissue in each square."""

import numpy as np
import shapely

from slpd_core import artifacts

ANCHOR_STEPS = 16  # shifts along each side that `anchor: tissue` compares


def grid_coords(slide_px: tuple[int, int], region_px: int, edge: str, start: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Compute the corners of a grid of squares over a slide.

    Args:
        slide_px: (width, height), level-0 px.
        region_px: Side of a square, level-0 px.
        edge: "pad" keeps squares that hang over the slide's edges, "drop" does not.
        start: (x, y) of the first square, level-0 px, 0 or less; "drop" begins at the next one within.

    Returns:
        Upper left corners row by row, int64 (squares, 2), level-0 px.
    """
    sides = []
    for begin, side in zip(start, slide_px, strict=True):
        corners = np.arange(begin, side, region_px)
        inside = (corners >= 0) & (corners + region_px <= side)
        sides.append(corners if edge == "pad" else corners[inside])
    y, x = (axis.ravel() for axis in np.meshgrid(sides[1], sides[0], indexing="ij"))
    return np.stack([x, y], axis=1).astype(np.int64)


def tissue_fractions(coords: np.ndarray, region_px: int, polygons: tuple[shapely.Polygon, ...]) -> np.ndarray:
    """Compute the exact fraction of each square that tissue covers.

    Args:
        coords: Upper left corners, (squares, 2), level-0 px.
        region_px: Side of a square, level-0 px.
        polygons: Disjoint polygons of tissue, level-0 px.

    Returns:
        float32 (squares,).
    """
    covered = np.zeros(len(coords))
    if len(coords) and polygons:
        squares = shapely.box(coords[:, 0], coords[:, 1], coords[:, 0] + region_px, coords[:, 1] + region_px)
        pieces = np.array(polygons, dtype=object)
        square, piece = shapely.STRtree(pieces).query(squares, predicate="intersects")
        np.add.at(covered, square, shapely.area(shapely.intersection(squares[square], pieces[piece])))
    return (covered / region_px**2).astype(np.float32)


def has_enough_tissue(fractions: np.ndarray, min_tissue_fraction: float) -> np.ndarray:
    """Return which squares hold enough tissue: at least `min_tissue_fraction` and more than 0.

    Args:
        fractions: Tissue fraction of each square, (squares,).
        min_tissue_fraction: Least fraction.

    Returns:
        bool (squares,).
    """
    return (fractions >= min_tissue_fraction) & (fractions > 0)


def place_grid(
    tissue: artifacts.Tissue,
    region_px: int,
    *,
    min_tissue_fraction: float = 0.25,
    edge: str = "pad",
    anchor: str = "slide",
) -> tuple[np.ndarray, np.ndarray]:
    """Place the grid of squares over a slide and measure the tissue in each.

    Args:
        tissue: The slide's tissue.
        region_px: Side of a square, level-0 px.
        min_tissue_fraction, edge: As in `regions.select_regions`.
        anchor: "slide" begins at its corner; "tissue" where kept squares hold most tissue, ties go to the
            smallest shift.

    Returns:
        Upper left corners, int64 (squares, 2), level-0 px, and the tissue fraction of each, float32 (squares,).
    """
    slide_px = (tissue.slide.width_px, tissue.slide.height_px)
    shifts = np.arange(ANCHOR_STEPS) * region_px // ANCHOR_STEPS if anchor == "tissue" else np.zeros(1, int)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for y in shifts.tolist():
        for x in shifts.tolist():
            coords = grid_coords(slide_px, region_px, edge, (-x, -y))
            fractions = tissue_fractions(coords, region_px, tissue.polygons)
            tissue_kept = float(fractions[has_enough_tissue(fractions, min_tissue_fraction)].sum(dtype=np.float64))
            if best is None or tissue_kept > best[0] * (1 + 1e-6):
                best = tissue_kept, coords, fractions
    assert best is not None  # there is at least one shift
    return best[1], best[2]
