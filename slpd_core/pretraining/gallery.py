"""The gallery: regions of the prototypes of some slides, and of those they match, as one image."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.gallery import TILE_PX, draw_gallery
from slpd_core.pretraining.gallery_layout import PrototypeGallery, plan_cohort, plan_slides
from slpd_core.runtime import log, progress

VERSION = 2


class ReadRegions(Protocol):
    """Yields the pixels of a slide's regions; raises ValueError where the slide cannot be read."""

    def __call__(
        self, slide_path: Path, regions: artifacts.Regions, *, jpeg_scaled_decoding: bool, raise_slide_error: bool
    ) -> Iterator[np.ndarray]:
        """uint8 (side, side, 3) each."""
        ...


def read_tiles(
    rows: Iterable[int],
    embed: pd.DataFrame,
    paths: Mapping[str, Path],
    regions_dir: Path,
    read_regions: ReadRegions,
) -> dict[int, np.ndarray]:
    """Read thumbnails of regions.

    Args:
        rows: Of embed.
        embed: The embeddings' table.
        paths: Slide -> its file.
        regions_dir: Of the slides' regions.
        read_regions: Reads their pixels.

    Returns:
        Row -> uint8 RGB (side, side, 3), TILE_PX wide or that of a still smaller region; a slide that cannot be read
        is missing, with a warning.
    """
    tiles: dict[int, np.ndarray] = {}
    slides = [*embed.loc[sorted(set(rows))].groupby("slide_id")]
    for slide_id, shown in progress(slides, len(slides), "gallery", "slides"):
        regions, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
        side = min(TILE_PX, regions.size_level0_px)
        small = replace(
            regions,
            coords=shown[["x", "y"]].to_numpy(),
            size_px=side,
            target_mpp=regions.slide.mpp * regions.size_level0_px / side,
        )
        try:
            tiles.update(
                zip(
                    shown.index,
                    read_regions(paths[slide_id], small, jpeg_scaled_decoding=True, raise_slide_error=True),
                    strict=False,
                )
            )
        except ValueError as error:
            log.warning("%s: no thumbnails: %s", slide_id, error)
    return tiles


def load_gallery(embed: pd.DataFrame, prototypes_path: Path) -> tuple[PrototypeGallery, bool]:
    """Load the prototypes of a run.

    Args:
        embed: The embeddings' table.
        prototypes_path: Of the prototypes.

    Returns:
        The gallery, and whether the run clustered the whole cohort as one.

    Raises:
        ValueError: The prototypes are of other regions than the embeddings.
    """
    arrays, _ = artifacts.read_arrays(prototypes_path, ("slides", "neighbors", "matches", "coords", "assignment"))
    if not np.array_equal(arrays["coords"].reshape(-1, 2), embed[["x", "y"]].to_numpy()):
        raise ValueError(f"{prototypes_path}: not the regions of the embeddings; run snakemake again to renew both")
    names = arrays["slides"].tolist()
    as_one = names == [""]  # a run that clusters all regions at once has one group, without a name
    row = {name: i for i, name in enumerate(names)}
    slide_of = np.array([0 if as_one else row[name] for name in embed["slide_id"]], np.int64)
    counts = np.bincount(slide_of, minlength=len(names)).tolist()
    gallery = PrototypeGallery(
        titles=[f"{name}, {count} region{'s' * (count != 1)}" for name, count in zip(names, counts, strict=True)],
        embeddings=np.stack(embed["embedding"].to_list()) if len(embed) else np.empty((0, 1), np.float32),
        slide_of=slide_of,
        assignment=arrays["assignment"].astype(np.int64),
        nearest=arrays["neighbors"][:, 0],
        matches=arrays["matches"][:, 0],
    )
    return gallery, as_one


def run(
    *,
    slide_paths: dict[str, Path],
    embed_path: Path,
    prototypes_path: Path,
    regions_dir: Path,
    out_path: Path,
    section: config.GalleryConfig,
    read_regions: ReadRegions,
) -> None:
    """Draw the gallery of the slides a run was trained on.

    Args:
        slide_paths: Slide -> its file; one that cannot be read any more is shown by gray tiles.
        embed_path: Of the embeddings.
        prototypes_path: Of the prototypes.
        regions_dir: Of the slides' regions.
        out_path: Of the image.
        section: Settings of the stage.
        read_regions: Reads the pixels of a slide's regions.
    """
    embed, _ = artifacts.read_table(embed_path, "embed")
    trained, _ = artifacts.read_arrays(prototypes_path, ("region_slide",))
    embed = embed[embed["slide_id"].isin(trained["region_slide"])].reset_index(drop=True)
    gallery, as_one = load_gallery(embed, prototypes_path)
    strips = plan_cohort(gallery) if as_one else plan_slides(gallery, section.n_slides)
    rows = [row for strip in strips for cell in strip.cells for row in cell.regions]
    tiles = read_tiles(rows, embed, slide_paths, regions_dir, read_regions)
    # 256 colours: a quarter of the bytes, and of stained tissue nothing is lost to the eye.
    artifacts.write_picture(out_path, draw_gallery(strips, tiles).quantize(256), optimize=True)
    log.info("%d strips, %d regions, %d of them read", len(strips), len(set(rows)), len(tiles))
