"""Small pictures of single regions, read from their slides."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import log, progress


class ReadRegions(Protocol):
    """Yields the pixels of a slide's regions; raises ValueError where the slide cannot be read."""

    def __call__(
        self, slide_path: Path, regions: artifacts.Regions, *, jpeg_scaled_decoding: bool, raise_slide_error: bool
    ) -> Iterator[np.ndarray]:
        """uint8 (side, side, 3) each."""
        ...


def read_region_pictures(
    regions: pd.DataFrame,
    slide_paths: Mapping[str, Path],
    regions_dir: Path,
    read_regions: ReadRegions,
    *,
    side_px: int,
) -> dict[Hashable, np.ndarray]:
    """Read small pictures of regions.

    Args:
        regions: Columns slide_id, x and y, the upper left corner in level-0 px.
        slide_paths: Slide -> its file.
        regions_dir: Of the slides' regions.
        read_regions: Reads their pixels.
        side_px: Side of a picture.

    Returns:
        Row of `regions` -> uint8 RGB (side, side, 3), side_px wide or as a still smaller region; the rows of a slide
        that cannot be read are missing, with a warning.
    """
    pictures: dict[Hashable, np.ndarray] = {}
    slides = [*regions.groupby("slide_id")]
    for slide_id, shown in progress(slides, len(slides), "pictures of regions", "slides"):
        of_slide, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
        side = min(side_px, of_slide.size_level0_px)
        small = replace(
            of_slide,
            coords=shown[["x", "y"]].to_numpy(),
            size_px=side,
            target_mpp=of_slide.slide.mpp * of_slide.size_level0_px / side,
        )
        try:
            pixels = read_regions(slide_paths[slide_id], small, jpeg_scaled_decoding=True, raise_slide_error=True)
            pictures.update(zip(shown.index, pixels, strict=False))
        except ValueError as error:
            log.warning("%s: no pictures of its regions: %s", slide_id, error)
    return pictures
