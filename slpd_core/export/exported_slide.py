"""A slide as it is exported: its squares and their vectors, read from artifacts and held against one another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slpd_core import artifacts, config

if TYPE_CHECKING:  # coordinates alone are written without pandas
    import pandas as pd


@dataclass(frozen=True)
class FeatureSet:
    """Squares of a slide and the vector of each.

    Attributes:
        kind: "regions" or "patches".
        name: Of the features: a run's region encoder ("" where there is none yet), patch_tokens, or a compared patch
            encoder.
        squares: Corners and sides of the n squares.
        vectors: float (n, D), in the order of the squares; None where there are none yet.
        per_region: Squares of a region, row by row; 1 of regions.
        facts: What is known of each region, one number per column; None where it is not read.
    """

    kind: str
    name: str
    squares: artifacts.Regions
    vectors: np.ndarray | None
    per_region: int = 1
    facts: "pd.DataFrame | None" = None

    @property
    def grid_name(self) -> str:
        """Magnification, side and overlap, as in TRIDENT's folders."""
        return f"{10 / self.squares.target_mpp:g}x_{self.squares.size_px}px_0px_overlap"


@dataclass(frozen=True)
class ExportedSlide:
    """A slide as it is exported.

    Attributes:
        tissue: The slide and its tissue.
        path: The slide's file.
        sets: Its feature sets.
        inputs: Fingerprints of what was read.
        from_bounds: Whether QuPath counts from the corner of the scanned area.
    """

    tissue: artifacts.Tissue
    path: Path
    sets: tuple[FeatureSet, ...]
    inputs: tuple[str, ...]
    from_bounds: bool = False

    @property
    def slide(self) -> artifacts.SlideInfo:
        """Its facts."""
        return self.tissue.slide


def divide_regions(regions: artifacts.Regions, grid: int) -> artifacts.Regions:
    """Divide each region into its patches, row by row.

    Args:
        regions: L regions.
        grid: Patches along a side.

    Returns:
        Squares (L * grid * grid) with the measures of their region; corners are rounded to whole level-0 px.
    """
    steps = np.rint(np.arange(grid) * regions.size_level0_px / grid).astype(np.int64)
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)  # x changes first
    return replace(
        regions.select(np.repeat(np.arange(len(regions.coords)), grid * grid)),
        coords=(regions.coords[:, None] + offsets).reshape(-1, 2),
        size_px=regions.size_px // grid,
        size_level0_px=round(regions.size_level0_px / grid),
    )


def check_corners(path: Path, slide_id: str, corners: np.ndarray, regions: artifacts.Regions) -> None:
    """Check that features are of a slide's regions.

    Args:
        path: Of the features, for the error.
        slide_id: The slide.
        corners: Of the features, (n, 2).
        regions: The slide's regions.

    Raises:
        ValueError: They are of others.
    """
    if not np.array_equal(corners, regions.coords):
        raise ValueError(
            f"{path}: slide {slide_id} has {len(corners)} regions here and {len(regions.coords)} in its regions file, "
            "or others; run snakemake again to renew what is outdated"
        )


def read_region_set(path: Path, regions: artifacts.Regions) -> tuple[FeatureSet, str]:
    """Read the embeddings of a slide.

    Args:
        path: Of the embeddings of a run.
        regions: The slide's regions.

    Returns:
        The feature set, and the fingerprint of the table.

    Raises:
        ValueError: The embeddings are of other regions.
    """
    table, meta = artifacts.read_table(path, "embed")
    rows = table[table["slide_id"] == regions.slide.slide_id]
    check_corners(path, regions.slide.slide_id, rows[["x", "y"]].to_numpy(), regions)
    empty = np.empty((0, int(meta["embed_dim"])), np.float32)
    vectors = np.stack(rows["embedding"].to_list()) if len(rows) else empty
    return FeatureSet("regions", path.stem, regions, vectors), meta["fingerprint"]


def read_patch_set(path: Path, regions: artifacts.Regions, name: str = config.PATCH_FEATURES) -> tuple[FeatureSet, str]:
    """Read the tokens of a slide.

    Args:
        path: Of the tokens.
        regions: The slide's regions.
        name: Of the features.

    Returns:
        The feature set, vectors float16, and the fingerprint of the tokens. A slide that is quarantined, be it by this
        encoder alone, has no squares.

    Raises:
        ValueError: The tokens are of other regions.
    """
    read, meta = artifacts.read_tokens(path)
    facts, tokens = regions.slide if regions.slide.status != artifacts.OK else read.slide, read.tokens
    if facts.status == artifacts.OK:
        check_corners(path, facts.slide_id, read.coords, regions)
    else:  # one encoder may fail where another does not
        regions, tokens = replace(regions.select(np.arange(0)), slide=facts), tokens[:0]
    _, per_region, dim = tokens.shape
    squares = divide_regions(regions, math.isqrt(per_region))
    vectors = tokens.reshape(-1, dim)
    return FeatureSet("patches", name, squares, vectors, per_region), meta["fingerprint"]


def read_exported_slide(
    *,
    regions_path: Path,
    tissue_path: Path,
    tokens_path: Path | None,
    embed_paths: Sequence[Path],
    slide_path: Path,
    kinds: Sequence[str],
    patch_px: int,
    compared_paths: Sequence[Path] = (),
) -> ExportedSlide:
    """Read the squares and features of a slide; a quarantined one has none.

    Args:
        regions_path: Of the regions; where features are read, of those that have tokens.
        tissue_path: Of the tissue.
        tokens_path: Of the tokens; None for the corners of patches alone.
        embed_paths: Of the embeddings of runs; none for the corners of regions alone.
        slide_path: The slide's file.
        kinds: Of squares: regions, patches.
        patch_px: Side of a patch at the target um/px.
        compared_paths: Of the tokens of compared patch encoders, .../{encoder}/tokens/{slide}.h5.

    Returns:
        The slide.

    Raises:
        ValueError: Features are of other regions.
    """
    regions, regions_meta = artifacts.read_regions(regions_path)
    tissue, tissue_meta = artifacts.read_tissue(tissue_path)
    tissue = replace(tissue, slide=regions.slide)  # a later stage may have quarantined it
    inputs, sets = [regions_meta["fingerprint"], tissue_meta["fingerprint"]], []
    read: Mapping[str, list[tuple[FeatureSet, str]]] = {
        "regions": [read_region_set(path, regions) for path in embed_paths] if "regions" in kinds else [],
        "patches": [read_patch_set(tokens_path, regions)] if tokens_path and "patches" in kinds else [],
    }
    grids, names = {"regions": 1, "patches": regions.size_px // patch_px}, {"patches": config.PATCH_FEATURES}
    for kind in kinds:
        corners = FeatureSet(kind, names.get(kind, ""), divide_regions(regions, grids[kind]), None)
        sets += [features for features, _ in read[kind]] or [corners]
        inputs += [fingerprint for _, fingerprint in read[kind]]
    for path in compared_paths:
        features, fingerprint = read_patch_set(path, regions, path.parents[1].name)
        sets.append(features)
        inputs.append(fingerprint)
    return ExportedSlide(tissue, slide_path, tuple(sets), tuple(inputs))
