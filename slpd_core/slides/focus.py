"""Focus: how sharp a slide's regions are, by a few patches of their tissue."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from shapely import Polygon

from slpd_core import artifacts
from slpd_core.slides.grid import tissue_fractions
from slpd_core.wsi.region_reader import iter_region_pixels

PATCH_PX = 256  # side of a patch at the target um/px, at most
N_PATCHES = 7  # of a region, at most; an odd number has a median of its own
FULL = 0.9  # patches with this much of the most tissue in any are as good as the fullest


def focus_score(patch: np.ndarray) -> float:
    """Measure how sharp a patch is: the variance of its Laplacian (Pech-Pacheco et al. 2000).

    Args:
        patch: uint8 RGB (rows, columns, 3).

    Returns:
        The variance, gray levels squared.
    """
    return float(cv2.Laplacian(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def choose_patches(regions: artifacts.Regions, polygons: tuple[Polygon, ...]) -> tuple[artifacts.Regions, np.ndarray]:
    """Choose a few patches of each region that hold most tissue, evenly spaced among the fullest.

    Args:
        regions: The slide's regions (L).
        polygons: Its tissue, level-0 px.

    Returns:
        The patches as squares to read, region by region, and their number in each region, int64 (L,).
    """
    grid = max(1, regions.size_px // PATCH_PX)
    side_px = min(PATCH_PX, regions.size_px)
    side = regions.size_level0_px * side_px / regions.size_px
    row, column = np.divmod(np.arange(grid * grid), grid)
    steps = np.rint(np.stack([column, row], axis=1) * side).astype(np.int64)
    corners, fractions = [], []
    for corner in regions.coords:
        cells = corner + steps
        shares = tissue_fractions(cells, round(side), polygons)
        chosen = _choose_fullest(shares)
        corners.append(cells[chosen])
        fractions.append(shares[chosen])
    counts = np.array([len(cells) for cells in corners], np.int64)
    patches = replace(
        regions,
        coords=np.concatenate([np.empty((0, 2), np.int64), *corners]),
        tissue_fraction=np.concatenate([np.empty(0, np.float32), *fractions]),
        size_px=side_px,
        size_level0_px=round(side),
        focus=None,
    )
    return patches, counts


def _choose_fullest(fractions: np.ndarray) -> np.ndarray:
    """Choose at most N_PATCHES cells by their tissue: evenly spaced among those that are nearly as full as the best."""
    ranked = np.argsort(-fractions, kind="stable")
    n_full = int((fractions >= FULL * fractions.max()).sum())
    n_tissue = int((fractions > 0).sum())
    candidates = np.sort(ranked[: min(max(n_full, N_PATCHES), n_tissue)])
    picked = np.linspace(0, len(candidates) - 1, min(N_PATCHES, len(candidates)))
    chosen: np.ndarray = candidates[np.rint(picked).astype(int)]
    return chosen


def median_scores(patches: Iterable[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Compute the focus of regions: the median over their patches.

    Args:
        patches: uint8 RGB (side, side, 3) each, region by region.
        counts: Patches of each region, (L,).

    Returns:
        float32 (L,), gray levels squared; nan for a region without patches.
    """
    scores = np.array([focus_score(patch) for patch in patches])
    of_regions = np.split(scores, np.cumsum(counts)[:-1]) if len(counts) else []
    return np.array([np.median(of_one) if len(of_one) else np.nan for of_one in of_regions], np.float32)


def measure_focus(
    slide_path: Path,
    tissue: artifacts.Tissue,
    regions: artifacts.Regions,
    *,
    raise_slide_error: bool = False,
    state_dir: Path | None = None,
) -> artifacts.Regions:
    """Measure how sharp a slide's regions are, by a few patches of each; of a slide without regions nothing is read.

    Args:
        slide_path: The file that the sheet names.
        tissue: The slide's tissue.
        regions: Its regions (L).
        raise_slide_error, state_dir: As in `RegionReader`.

    Returns:
        The regions with their focus.

    Raises:
        SlideError, OSError, ValueError: As `RegionReader.read`.
    """
    patches, counts = choose_patches(regions, tissue.polygons)
    pixels = iter_region_pixels(slide_path, patches, raise_slide_error=raise_slide_error, state_dir=state_dir)
    return replace(regions, focus=median_scores(pixels, counts))


def drop_blurred(regions: artifacts.Regions, min_focus: float) -> tuple[artifacts.Regions, np.ndarray]:
    """Drop the regions that are less sharp than `min_focus`; one that was not measured is kept.

    Args:
        regions: The slide's regions with their focus.
        min_focus: Least variance of the Laplacian.

    Returns:
        The regions that are kept, `slide.reason` says why if there are none; and corners of the others, int64 (n, 2).
    """
    assert regions.focus is not None
    blurred = regions.focus < min_focus
    kept = regions.select(~blurred)
    if blurred.any() and not len(kept.coords):
        reason = (
            f"no region in focus, the sharpest has {regions.focus.max():.3g}; scan the slide again or lower "
            f"regions.min_focus ({min_focus:g})"
        )
        kept = replace(kept, slide=replace(kept.slide, reason=reason))
    return kept, regions.coords[blurred]
