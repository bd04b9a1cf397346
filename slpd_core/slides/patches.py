"""Patches: a sample of a slide's patches that the patch encoder is trained on (patch_encoder.source dino)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from slpd_core import artifacts, config
from slpd_core.runtime import generator, log, progress
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import iter_region_pixels

VERSION = 3
MAX_DRAWS = 50  # rounds of draws; a region holds at least a little tissue


def draw_corners(
    regions: artifacts.Regions, tissue: artifacts.Tissue, patch_level0_px: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw random patches of the regions whose centers are tissue.

    Each region is as likely as any other, and so is each position in it.

    Args:
        regions: The slide's regions.
        tissue: Its tissue.
        patch_level0_px: Side of a patch, level-0 px.
        n: Patches to draw.
        rng: Random generator.

    Returns:
        Upper left corners, int64 (at most n, 2), level-0 px, in rows from top to bottom.
    """
    polygons = shapely.union_all(tissue.polygons)
    shapely.prepare(polygons)
    corners_in_tissue = np.empty((0, 2), np.int64)
    for _ in range(MAX_DRAWS):
        if len(corners_in_tissue) >= n or not len(regions.coords):
            break
        region = regions.coords[rng.integers(len(regions.coords), size=n)]
        corners = region + rng.integers(0, regions.size_level0_px - patch_level0_px + 1, size=(n, 2))
        center = corners + patch_level0_px / 2
        corners_in_tissue = np.concatenate([corners_in_tissue, corners[shapely.contains_xy(polygons, center)]])
    corners_in_tissue = corners_in_tissue[:n]
    return corners_in_tissue[np.lexsort((corners_in_tissue[:, 0], corners_in_tissue[:, 1]))]


def run(
    *,
    slide_path: Path,
    tissue_path: Path,
    regions_path: Path,
    patches_path: Path,
    section: config.PatchesConfig,
    patch_px: int,
    jpeg_scaled_decoding: bool,
    seed: int,
    quarantine: tuple[type[Exception], ...],
    state_dir: Path | None = None,
) -> None:
    """Write a sample of a slide's patches; none of a slide without regions or a slide that cannot be read.

    Args:
        slide_path: The file that the sheet names.
        tissue_path, regions_path: The slide's artifacts.
        patches_path: The file to write.
        section: The stage's settings.
        patch_px: Side of a patch.
        jpeg_scaled_decoding: As in `Slide`.
        seed: Seed of the draws.
        quarantine: Errors that leave the slide without patches; others are raised.
        state_dir: Folder of memos and marks on the slides' files.
    """
    regions, meta = artifacts.read_regions(regions_path)
    tissue, _ = artifacts.read_tissue(tissue_path)
    inputs = (meta["fingerprint"], str(patch_px), str(jpeg_scaled_decoding), str(seed))
    provenance = artifacts.provenance("patches", VERSION, section.model_dump(), *inputs)
    side = round(patch_px * regions.size_level0_px / regions.size_px)
    rng = generator(seed, "patches", regions.slide.slide_id)
    corners = draw_corners(regions, tissue, side, section.patches_per_slide, rng)
    sample = replace(regions, coords=corners, size_px=patch_px, size_level0_px=side)
    mark_path = outages.name_mark(state_dir, regions.slide.slide_id, patches_path)
    try:
        with artifacts.create_patches(patches_path, sample, provenance) as patches:
            pixels = iter_region_pixels(
                slide_path,
                sample,
                jpeg_scaled_decoding=jpeg_scaled_decoding,
                raise_slide_error=OSError in quarantine,
                state_dir=state_dir,
            )
            for i, patch in enumerate(progress(pixels, len(corners), regions.slide.slide_id, "patches")):
                patches[i] = patch
        outages.note_read(mark_path)
        log.info("%d of %d patches", len(corners), section.patches_per_slide)
    except SlideError as error:
        if SlideError not in quarantine:
            raise
        log.warning("no patches to train on: %s", outages.explain(error, mark_path, slide_path))
        with artifacts.create_patches(patches_path, replace(sample, coords=corners[:0]), provenance):
            pass
