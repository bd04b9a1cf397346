"""The gallery: regions of the prototypes of some slides, and of those they match, as one image."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.gallery import TILE_PX, draw_gallery
from slpd_core.drawing.region_pictures import ReadRegions, read_region_pictures
from slpd_core.pretraining.gallery_layout import PrototypeGallery, plan_cohort, plan_slides
from slpd_core.runtime import log

VERSION = 2


def load_gallery(
    embed: pd.DataFrame, prototypes_path: Path, shown_names: Mapping[str, str] = MappingProxyType({})
) -> tuple[PrototypeGallery, bool]:
    """Load the prototypes of a run.

    Args:
        embed: The embeddings' table.
        prototypes_path: Of the prototypes.
        shown_names: Of slides, in place of their own.

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
        titles=[
            f"{shown_names.get(name, name)}, {count} region{'s' * (count != 1)}"
            for name, count in zip(names, counts, strict=True)
        ],
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
    shown_names: Mapping[str, str] = MappingProxyType({}),
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
        shown_names: Of slides, in place of their own.
    """
    embed, _ = artifacts.read_table(embed_path, "embed")
    trained, _ = artifacts.read_arrays(prototypes_path, ("region_slide",))
    embed = embed[embed["slide_id"].isin(trained["region_slide"])].reset_index(drop=True)
    gallery, as_one = load_gallery(embed, prototypes_path, shown_names)
    strips = plan_cohort(gallery) if as_one else plan_slides(gallery, section.n_slides)
    rows = sorted({row for strip in strips for cell in strip.cells for row in cell.regions})
    tiles = read_region_pictures(embed.loc[rows], slide_paths, regions_dir, read_regions, side_px=TILE_PX)
    # 256 colours: a quarter of the bytes, and of stained tissue nothing is lost to the eye.
    picture = draw_gallery(strips, tiles).quantize(256)
    artifacts.write_picture(out_path, picture, meta=artifacts.NUMBERED if shown_names else {}, optimize=True)
    log.info("%d strips, %d regions, %d of them read", len(strips), len(rows), len(tiles))
