"""Arrays of a slide: its regions, its tokens and its patches for stage one."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.checked_rows import CheckedRows
from slpd_core.artifacts.files import broken
from slpd_core.artifacts.hdf5 import CHECKSUMS, create_h5, create_rows, open_h5, read_arrays, read_attributes
from slpd_core.artifacts.schema import ENCODER_META, Meta, Regions, SlideInfo, Tokens


def write_regions(path: Path, regions: Regions, meta: Meta) -> None:
    """Write a slide's regions: `coords` with TRIDENT's attributes, `tissue_fraction`, and `focus` if measured.

    Args:
        path: Of the file.
        regions: The regions.
        meta: As `provenance` returns.
    """
    with create_h5(path, {**meta, **_slide_attributes(regions.slide)}) as file:
        file.attrs.update(size_px=regions.size_px, size_level0_px=regions.size_level0_px, target_mpp=regions.target_mpp)
        coords = file.create_dataset("coords", data=regions.coords.astype(np.int64).reshape(-1, 2))
        coords.attrs.update(trident_attributes(regions, path))
        file.create_dataset("tissue_fraction", data=regions.tissue_fraction.astype(np.float32))
        if regions.focus is not None:
            file.create_dataset("focus", data=regions.focus.astype(np.float32))


def read_regions(path: Path) -> tuple[Regions, Meta]:
    """Read a file that `write_regions` wrote.

    Args:
        path: Of the file.

    Returns:
        The regions and the metadata.

    Raises:
        ValueError: The file is broken.
    """
    arrays, attrs = read_arrays(path, ("coords", "tissue_fraction"), optional=("focus",))
    coords, fraction, focus = arrays["coords"], arrays["tissue_fraction"], arrays.get("focus")
    if coords.ndim != 2 or coords.shape[1] != 2 or fraction.shape != (len(coords),):
        raise ValueError(broken(path, f"coords {coords.shape} and tissue_fraction {fraction.shape} do not fit"))
    if focus is not None and focus.shape != fraction.shape:
        raise ValueError(broken(path, f"focus {focus.shape} for {len(coords)} regions"))
    slide = _slide_info(path, attrs)
    size = (int(attrs["size_px"]), int(attrs["size_level0_px"]), float(attrs["target_mpp"]))
    return Regions(slide, coords, fraction, *size, focus), _meta(attrs)


@contextmanager
def create_tokens(path: Path, regions: Regions, grid: int, dim: int, meta: Meta) -> Iterator[Tokens]:
    """Create a tokens file that is filled region by region: `tokens.tokens[i] = array`, `tokens.mean_color[i] = ...`.

    Args:
        path: Of the file.
        regions: The slide's regions (L).
        grid: Patches along a region's side.
        dim: Dimension of a token.
        meta: As `provenance` returns.

    Yields:
        Tokens of zeros, float16 (L, grid * grid, dim), to write to.
    """
    with create_h5(path, {**meta, **_slide_attributes(regions.slide), "grid": grid, "token_dim": dim}) as file:
        coords = file.create_dataset("coords", data=regions.coords.astype(np.int64).reshape(-1, 2))
        coords.attrs.update(trident_attributes(regions, path))
        shape = (len(regions.coords), grid * grid)
        with (
            create_rows(file, "tokens", (*shape, dim), np.float16) as tokens,
            create_rows(file, "mean_color", (*shape, 3), np.float16) as mean_color,
        ):
            yield Tokens(regions.slide, tokens, mean_color, regions.coords)


def copy_tokens(source: Path, path: Path, regions: Regions, fingerprint: str) -> None:
    """Copy tokens that another cohort made of the same regions, where the slide may have another name.

    Args:
        source: A tokens file.
        path: Of its copy.
        regions: Regions of the slide under its present name.
        fingerprint: Fingerprint that the tokens must have.

    Raises:
        ValueError: The source is damaged or has other regions or another fingerprint.
    """
    with open_tokens(source, any_name=True) as (tokens, meta):
        if meta["fingerprint"] != fingerprint or not np.array_equal(tokens.coords, regions.coords):
            raise ValueError(f"{source}: has another fingerprint than its name says, or other regions")
        _, patches, dim = tokens.tokens.shape
        with create_tokens(path, regions, math.isqrt(patches), dim, meta) as written:
            for start in range(0, len(tokens.coords), 64):
                rows = slice(start, start + 64)
                written.tokens[rows], written.mean_color[rows] = tokens.tokens[rows], tokens.mean_color[rows]


@contextmanager
def open_tokens(path: Path, *, any_name: bool = False) -> Iterator[tuple[Tokens, Meta]]:
    """Open a file that `create_tokens` wrote; each region is read and checked when it is sliced.

    Args:
        path: Of the file.
        any_name: Whether it may have been written under another name, as the files of a cache are.

    Yields:
        The tokens, `tokens` and `mean_color` still in the file, and the metadata.

    Raises:
        ValueError: The file is broken; inside the block, a region is damaged.
    """
    with open_h5(path, ("coords",), rows=("tokens", "mean_color"), any_name=any_name) as file:
        tokens, mean_color, coords = file["tokens"], file["mean_color"], file["coords"][()]
        if tokens.ndim != 3 or tokens.dtype != np.float16 or len(tokens) != len(coords):
            raise ValueError(broken(path, f"tokens {tokens.dtype} {tokens.shape} for {len(coords)} regions"))
        if mean_color.shape != (*tokens.shape[:2], 3) or mean_color.dtype != np.float16:
            raise ValueError(
                broken(path, f"mean_color {mean_color.dtype} {mean_color.shape} for tokens {tokens.shape}")
            )
        tokens, mean_color = (
            CheckedRows(path, name, file[name], file[name + CHECKSUMS][()]) for name in ("tokens", "mean_color")
        )
        attrs = read_attributes(file)
        yield Tokens(_slide_info(path, attrs), tokens, mean_color, coords), _meta(attrs)


def read_tokens(path: Path) -> tuple[Tokens, Meta]:
    """Read all tokens of a slide into memory.

    Args:
        path: Of a file that `create_tokens` wrote.

    Returns:
        The tokens and the metadata.

    Raises:
        ValueError: The file is broken.
    """
    with open_tokens(path) as (tokens, meta):
        return Tokens(tokens.slide, tokens.tokens[()], tokens.mean_color[()], tokens.coords), meta


@contextmanager
def create_patches(path: Path, sample: Regions, meta: Meta) -> Iterator[Any]:
    """Create a file of a slide's patches that is filled patch by patch: `patches[i] = array`.

    Args:
        path: Of the file.
        sample: Corners (n, 2) and side of the patches.
        meta: As `provenance` returns.

    Yields:
        The writer of the patches, uint8 (n, size_px, size_px, 3).
    """
    n, side = len(sample.coords), sample.size_px
    with create_h5(path, {**meta, **_slide_attributes(sample.slide)}) as file:
        file.create_dataset("coords", data=sample.coords.astype(np.int64).reshape(-1, 2))
        with create_rows(file, "patches", (n, side, side, 3), np.uint8) as patches:
            yield patches


def read_patches(path: Path) -> tuple[CheckedRows, Meta]:
    """Map a slide's patches into memory; each is read and checked when it is sliced.

    Args:
        path: Of a file that `create_patches` wrote.

    Returns:
        The patches, uint8 (n, size_px, size_px, 3), and the metadata.

    Raises:
        ValueError: The file is broken.
    """
    with open_h5(path, ("coords",), rows=("patches",)) as file:
        patches, meta = file["patches"], _meta(read_attributes(file))
        if patches.ndim != 4 or patches.dtype != np.uint8 or len(patches) != len(file["coords"]):
            raise ValueError(broken(path, f"patches {patches.dtype} {patches.shape} of {len(file['coords'])} corners"))
        offset, shape, checksums = patches.id.get_offset(), patches.shape, file["patches" + CHECKSUMS][()]
    unwritten = offset is None
    array = np.zeros(shape, np.uint8) if unwritten else np.memmap(path, np.uint8, "r", offset, shape)
    return CheckedRows(path, "patches", array, checksums), meta


def _meta(attrs: Mapping[str, Any]) -> Meta:
    """The metadata among a file's attributes."""
    keys = ("slpd_version", "stage", "stage_version", "section", "fingerprint", "precision", *ENCODER_META)
    return {key: str(attrs[key]) for key in keys if key in attrs}


def _slide_attributes(slide: SlideInfo) -> dict[str, Any]:
    """A slide's facts as attributes of a file."""
    values = asdict(slide) | {"remarks": "\n".join(slide.remarks)}
    return {"slide_fingerprint" if key == "fingerprint" else key: value for key, value in values.items()}


def _slide_info(path: Path, attrs: Mapping[str, Any]) -> SlideInfo:
    """The slide's facts among a file's attributes; raises ValueError if one is missing."""
    names = [name for name in SlideInfo.__dataclass_fields__ if name != "fingerprint"]
    missing = [name for name in (*names, "slide_fingerprint", "fingerprint") if name not in attrs]
    if missing:
        raise ValueError(broken(path, f"an HDF5 file without the attributes {missing}"))
    values = {name: attrs[name] for name in names} | {"remarks": tuple(attrs["remarks"].splitlines())}
    return SlideInfo(**values, fingerprint=attrs["slide_fingerprint"])


def trident_attributes(regions: Regions, path: Path) -> dict[str, Any]:
    """Make TRIDENT's attributes of `coords`, by which it and Patho-Bench read the file; magnification = 10 / mpp.

    Args:
        regions: Squares of a slide.
        path: Of the file.

    Returns:
        The attributes by name.
    """
    slide, target = regions.slide, 10 / regions.target_mpp
    return {
        "patch_size": regions.size_px,
        "patch_size_level0": regions.size_level0_px,
        # TRIDENT multiplies the size by the ratio of magnifications, so level 0's follows from the sizes.
        "level0_magnification": target * regions.size_level0_px / regions.size_px,
        "target_magnification": target,
        "overlap": 0,
        "name": slide.slide_id,
        "savetodir": str(Path(path).parent),
        "level0_width": slide.width_px,
        "level0_height": slide.height_px,
        "slide_mpp": slide.mpp,
        "target_mpp": regions.target_mpp,
    }
