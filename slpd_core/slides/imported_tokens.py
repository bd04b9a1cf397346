"""Tokens from features that another tool has extracted, aligned with our regions by their coordinates."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.artifacts.coordinate_files import FEATURE_READERS, SlideFeatures
from slpd_core.runtime import progress
from slpd_core.slides.encoding import SlideTask, quarantine_slide
from slpd_core.slides.patch_pixels import mean_colors
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import RegionReader, read_regions_ahead

TOLERANCE_PX = 1.0  # of level 0: tools round corners differently
COLOR_SHRINK = 16  # mean colors are read at a coarser scale, as that takes a hundredth of the time


def patch_corners(regions: artifacts.Regions, grid: int) -> np.ndarray:
    """Compute the upper left corners of the patches of regions.

    Args:
        regions: The regions (L).
        grid: Patches along a region's side.

    Returns:
        float64 (L * grid * grid, 2), level-0 px, region by region and row by row.
    """
    steps = np.arange(grid) * (regions.size_level0_px / grid)
    y, x = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    corners: np.ndarray = regions.coords[:, None, :] + np.stack([x, y], axis=1)
    return corners.reshape(-1, 2)


def align_features(features: SlideFeatures, regions: artifacts.Regions, grid: int, source: str | Path) -> np.ndarray:
    """Align features with the patches of a slide's regions by their coordinates; features elsewhere are left out.

    Args:
        features: Of patches or of whole regions.
        regions: The slide's regions (L).
        grid: Patches along a region's side.
        source: File of the features, for messages.

    Returns:
        Tokens, float16 (L, grid * grid, D).

    Raises:
        ValueError: The features are of squares of another size, miss a patch, or are not finite in float16.
    """
    from scipy.spatial import cKDTree

    slide_id, of_regions = regions.slide.slide_id, features.vectors.ndim == 3
    kind, side = ("region", regions.size_level0_px) if of_regions else ("patch", regions.size_level0_px / grid)
    stated = features.squares.side_level0_px
    if stated is not None and abs(stated - side) > TOLERANCE_PX:
        mpp = regions.slide.mpp
        raise ValueError(
            f"{slide_id}: {source} holds features of squares of {stated:g} level-0 px ({stated * mpp:g} um), but a "
            f"{kind} has {side:g} ({side * mpp:g} um); extract them on the coordinates of `snakemake export`, "
            "or correct regions.target_mpp, regions.size_px and patch_encoder.patch_px"
        )
    if of_regions and features.vectors.shape[1] != grid * grid:
        raise ValueError(
            f"{slide_id}: {source} holds {features.vectors.shape[1]} vectors per region, but a region has {grid} x "
            f"{grid} patches; correct regions.size_px or patch_encoder.patch_px"
        )
    corners = regions.coords if of_regions else patch_corners(regions, grid)
    coords = features.squares.coords
    distances, indices = (
        cKDTree(coords).query(corners, p=np.inf) if len(coords) else (np.full(len(corners), np.inf), None)
    )
    if (far := distances > TOLERANCE_PX).any():
        x, y = corners[np.argmax(far)]
        raise ValueError(
            f"{slide_id}: {source} has no features of {far.sum():,} of {len(corners):,} {kind} corners, the first at "
            f"({x:.0f}, {y:.0f}), level-0 px; extract them on the coordinates of `snakemake export` (docs/imports.md), "
            "or take the regions of that tool too (regions.coordinates)"
        )
    with np.errstate(over="ignore"):
        tokens = features.vectors[indices].astype(np.float16).reshape(len(regions.coords), grid * grid, -1)
    if not np.isfinite(tokens).all():
        raise ValueError(f"{slide_id}: {source} holds features that are not finite in float16; extract them again")
    return tokens


def import_slides(
    slides: Mapping[SlideTask, Path | None],
    *,
    patch_px: int,
    token_dim: int,
    quarantine: tuple[type[Exception], ...] = (),
    state_dir: Path | None = None,
) -> Generator[tuple[SlideTask, artifacts.Regions], None, None]:
    """Write the tokens of slides from files of features, and the mean colors of their patches.

    Args:
        slides: The slides, and the file of features of each; None where there is none.
        patch_px: Side of a patch in its region.
        token_dim: Length of a token.
        quarantine: Errors that quarantine a slide; others are raised.
        state_dir: Folder of memos and marks on the slides' files.

    Yields:
        Each slide once it is written, with its regions; a quarantined one, not written, without regions.

    Raises:
        SlideError: A slide is broken or has no features, and is not to be quarantined.
        ValueError: Features do not fit a slide's regions.
        OSError: A file cannot be read or written.
    """
    shrink = next(divisor for divisor in (COLOR_SHRINK, 8, 4, 2, 1) if patch_px % divisor == 0)

    def measure(_: RegionReader, pixels: np.ndarray) -> np.ndarray:
        return mean_colors(pixels, patch_px // shrink)

    for slide, features_path in slides.items():
        try:
            tokens = _read_tokens(slide, features_path, patch_px, token_dim)
            regions = slide.regions
            small = replace(regions, size_px=regions.size_px // shrink, target_mpp=regions.target_mpp * shrink)
            reader = RegionReader(slide.slide_path, small, raise_slide_error=OSError in quarantine, state_dir=state_dir)
            colors = read_regions_ahead([reader], measure)
            with slide.create(patch_px, token_dim) as written:
                for _, i, result in progress(colors, len(regions.coords), slide.slide_id, "regions"):
                    written.mean_color[i], written.tokens[i] = result.result(), tokens[i]
        except SlideError as error:
            if SlideError not in quarantine:
                raise
            yield slide, quarantine_slide(slide, error, state_dir)
        else:
            outages.note_read(slide.mark_path(state_dir))
            yield slide, regions


def _read_tokens(slide: SlideTask, path: Path | None, patch_px: int, token_dim: int) -> np.ndarray:
    """Read the features of a slide and align them with its regions."""
    if path is None:
        raise SlideError(
            f"{slide.slide_id}: no file of features in patch_encoder.path; extract them, or remove it from the sheet"
        )
    tokens = align_features(FEATURE_READERS[path.suffix](path), slide.regions, slide.regions.size_px // patch_px, path)
    if tokens.shape[-1] != token_dim:
        raise ValueError(
            f"{slide.slide_id}: {path} holds features of {tokens.shape[-1]} numbers, other slides of {token_dim}; "
            "extract all slides with one encoder, then delete patch_encoder/weights.safetensors"
        )
    return tokens
