"""Arrays: HDF5, contiguous and uncompressed.

Files are written beside their name and read through Python: HDF5's locks, which some file systems lack, are not needed.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.checksums import CheckedRows, RowWriter, check_seal, seal, stamp, unstamp
from slpd_core.artifacts.files import atomic_write, broken
from slpd_core.artifacts.reading import open_file
from slpd_core.artifacts.schema import ENCODER_META, Meta, Regions, SlideInfo, Tokens

ROWS = "_xxh3"  # ends the name of the checksums of an array's rows: uint64, one per row
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)  # what h5py raises


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attrs: Mapping[str, Any], meta: Meta) -> None:
    """Write named arrays, contiguous and uncompressed; str arrays as UTF-8."""
    import h5py

    with _writing_h5(path, {**meta, **attrs}) as file:
        for name, array in arrays.items():
            text = array.dtype.kind in "UO"
            file.create_dataset(
                name,
                data=array.astype(object) if text else array,
                dtype=h5py.string_dtype() if text else None,
            )


def read_arrays(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read named arrays and the attributes.

    Raises ValueError when the file is broken or lacks an array.
    """
    with _open_h5(path, names) as file:
        arrays = {}
        for name in names:
            dataset = file[name]
            arrays[name] = dataset.asstr()[()] if dataset.dtype.kind == "O" else dataset[()]
        return arrays, unstamp(path, _attributes(file))


def list_arrays(path: Path) -> list[str]:
    """List the names of a file's arrays, without those of checksums.

    Raises ValueError when the file is broken.
    """
    with _open_h5(path, ()) as file:
        return [name for name in file if not name.endswith(ROWS)]


def write_regions(path: Path, regions: Regions, meta: Meta) -> None:
    """Write `coords` with TRIDENT's attributes, and `tissue_fraction`."""
    with _writing_h5(path, {**meta, **_slide_attributes(regions.slide)}) as file:
        file.attrs.update(size_px=regions.size_px, size_level0_px=regions.size_level0_px, target_mpp=regions.target_mpp)
        coords = file.create_dataset("coords", data=regions.coords.astype(np.int64).reshape(-1, 2))
        coords.attrs.update(_trident_attributes(regions, path))
        file.create_dataset("tissue_fraction", data=regions.tissue_fraction.astype(np.float32))


def read_regions(path: Path) -> tuple[Regions, Meta]:
    """Read what `write_regions` wrote.

    Raises ValueError when the file is broken.
    """
    arrays, attrs = read_arrays(path, ("coords", "tissue_fraction"))
    coords, fraction = arrays["coords"], arrays["tissue_fraction"]
    if coords.ndim != 2 or coords.shape[1] != 2 or fraction.shape != (len(coords),):
        raise ValueError(broken(path, f"coords {coords.shape} and tissue_fraction {fraction.shape} do not fit"))
    slide = _slide_info(path, attrs)
    size = (int(attrs["size_px"]), int(attrs["size_level0_px"]), float(attrs["target_mpp"]))
    return Regions(slide, coords, fraction, *size), _meta(attrs)


@contextmanager
def create_tokens(path: Path, regions: Regions, grid: int, dim: int, meta: Meta) -> Iterator[Tokens]:
    """Give Tokens to fill region by region: `written.tokens[i] = array`, and `written.mean_color[i]` the same way."""
    with _writing_h5(path, {**meta, **_slide_attributes(regions.slide), "grid": grid, "token_dim": dim}) as file:
        coords = file.create_dataset("coords", data=regions.coords.astype(np.int64).reshape(-1, 2))
        coords.attrs.update(_trident_attributes(regions, path))
        shape = (len(regions.coords), grid * grid)
        with (
            _writing_rows(file, "tokens", (*shape, dim), np.float16) as tokens,
            _writing_rows(file, "mean_color", (*shape, 3), np.float16) as mean_color,
        ):
            yield Tokens(regions.slide, tokens, mean_color, regions.coords)


def copy_tokens(source: Path, path: Path, regions: Regions, fingerprint: str) -> None:
    """Copy tokens of the same regions that another cohort made, where the slide may have another name.

    Args:
        source: a tokens file.
        path: of its copy.
        regions: of the slide under its present name.
        fingerprint: that the tokens must have.

    Raises:
        ValueError: Where the source is damaged, or its regions or fingerprint are others.
    """
    with open_tokens(source, any_name=True) as (tokens, meta):
        if meta["fingerprint"] != fingerprint or not np.array_equal(tokens.coords, regions.coords):
            raise ValueError(f"{source}: not the tokens of its name, or of other regions")
        _, patches, dim = tokens.tokens.shape
        with create_tokens(path, regions, math.isqrt(patches), dim, meta) as written:
            for start in range(0, len(tokens.coords), 64):
                rows = slice(start, start + 64)
                written.tokens[rows], written.mean_color[rows] = tokens.tokens[rows], tokens.mean_color[rows]


@contextmanager
def open_tokens(path: Path, *, any_name: bool = False) -> Iterator[tuple[Tokens, Meta]]:
    """Open what `writing_tokens` wrote; `tokens` and `mean_color` are read by slicing, and each region is checked.

    any_name: whether it may have been written as another file, as those of a cache were. Raises ValueError when the
    file is broken.
    """
    with _open_h5(path, ("coords",), rows=("tokens", "mean_color"), any_name=any_name) as file:
        tokens, mean_color, coords = file["tokens"], file["mean_color"], file["coords"][()]
        if tokens.ndim != 3 or tokens.dtype != np.float16 or len(tokens) != len(coords):
            raise ValueError(broken(path, f"tokens {tokens.dtype} {tokens.shape} for {len(coords)} regions"))
        if mean_color.shape != (*tokens.shape[:2], 3) or mean_color.dtype != np.float16:
            raise ValueError(
                broken(path, f"mean_color {mean_color.dtype} {mean_color.shape} for tokens {tokens.shape}")
            )
        checked = {
            name: CheckedRows(path, name, file[name], file[name + ROWS][()]) for name in ("tokens", "mean_color")
        }
        attrs = _attributes(file)
        yield Tokens(_slide_info(path, attrs), checked["tokens"], checked["mean_color"], coords), _meta(attrs)


def read_tokens(path: Path) -> tuple[Tokens, Meta]:
    """Read a slide's tokens whole into memory."""
    with open_tokens(path) as (tokens, meta):
        return Tokens(tokens.slide, tokens.tokens[()], tokens.mean_color[()], tokens.coords), meta


@contextmanager
def create_patches(path: Path, sample: Regions, meta: Meta) -> Iterator[Any]:
    """Give the dataset `patches`, uint8 (n, size_px, size_px, 3), to fill patch by patch; sample: where they lie."""
    n, side = len(sample.coords), sample.size_px
    with _writing_h5(path, {**meta, **_slide_attributes(sample.slide)}) as file:
        file.create_dataset("coords", data=sample.coords.astype(np.int64).reshape(-1, 2))
        with _writing_rows(file, "patches", (n, side, side, 3), np.uint8) as patches:
            yield patches


def read_patches(path: Path) -> tuple[CheckedRows, Meta]:
    """The patches of a slide, uint8 (n, size_px, size_px, 3), mapped from the file rather than read, each checked.

    Raises ValueError when the file is broken.
    """
    with _open_h5(path, ("coords",), rows=("patches",)) as file:
        patches, meta = file["patches"], _meta(_attributes(file))
        if patches.ndim != 4 or patches.dtype != np.uint8 or len(patches) != len(file["coords"]):
            raise ValueError(broken(path, f"patches {patches.dtype} {patches.shape} of {len(file['coords'])} places"))
        offset, shape, checksums = patches.id.get_offset(), patches.shape, file["patches" + ROWS][()]
    unwritten = offset is None
    array = np.zeros(shape, np.uint8) if unwritten else np.memmap(path, np.uint8, "r", offset, shape)
    return CheckedRows(path, "patches", array, checksums), meta


@contextmanager
def _writing_h5(path: Path, attrs: Mapping[str, Any]) -> Iterator[Any]:
    import h5py

    with atomic_write(path) as part:
        file = h5py.File(part, "w", locking=False)
        try:
            file.attrs.update({**attrs, **stamp(path)})
            yield file
            file.flush()
        except BaseException:
            _give_up(file)
            raise
        file.close()
        seal_h5(part)


def seal_h5(path: Path) -> None:
    """Write the checksum of an HDF5 file into it, over all but the arrays that have checksums row by row."""
    import h5py

    with path.open("rb+") as raw:
        with h5py.File(raw, "r") as file:
            blocks = _row_blocks(file, [name for name in file if name + ROWS in file])
        position, digits = seal(path, _read_around(raw, blocks))
        for start, end in blocks:
            position += end - start if position >= start else 0
        raw.seek(position)
        raw.write(digits)


@contextmanager
def _writing_rows(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Iterator[RowWriter]:
    """Yield the writer of a new array's rows; their checksums are written beside it."""
    writer = RowWriter(file.create_dataset(name, shape, dtype))
    yield writer
    file.create_dataset(name + ROWS, data=writer.checksums)


def _row_blocks(file: Any, names: Iterable[str]) -> list[tuple[int, int]]:
    """Find where in the file the arrays lie whose rows have checksums, first byte and last but one, in order.

    Raises ValueError where two of them overlap.
    """
    offsets = [(file[name].id.get_offset(), file[name].nbytes) for name in names]
    blocks = sorted((start, start + size) for start, size in offsets if start is not None)
    if any(end > start for (_, end), (start, _) in pairwise(blocks)):
        raise ValueError("two of its arrays overlap")
    return blocks


def _read_around(raw: Any, blocks: Sequence[tuple[int, int]]) -> bytes:
    """Read a file without its blocks."""
    parts, position = [], 0
    for start, end in blocks:
        raw.seek(position)
        parts.append(raw.read(start - position))
        position = end
    raw.seek(position)
    return b"".join([*parts, raw.read()])


def _give_up(file: Any) -> None:
    """Close an unfinished file; what HDF5 then writes goes into memory, as on a full disk it would end the process."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("unfinished"), "wb") as memory:
            os.dup2(memory.fileno(), file.id.get_vfd_handle())
    with suppress(OSError, RuntimeError):
        file.close()


@contextmanager
def _open_h5(path: Path, names: Sequence[str], *, rows: Sequence[str] = (), any_name: bool = False) -> Iterator[Any]:
    """Yield an HDF5 file that has these arrays, all checked but those that are checked row by row."""
    import h5py

    with open_file(path) as raw, ExitStack() as stack:
        blocks: list[tuple[int, int]] = []
        try:
            file = stack.enter_context(h5py.File(raw, "r"))
            by_row = {*rows, *(name.removesuffix(ROWS) for name in file if name.endswith(ROWS))}
            problem = _find_problem(file, [*names, *by_row, *(name + ROWS for name in by_row)], path.stat().st_size)
            blocks = [] if problem else _row_blocks(file, by_row)
        except UNREADABLE as error:
            if getattr(error, "errno", None) is not None:
                raise
            problem = f"no whole HDF5 file ({error})"
        if problem:
            raise ValueError(broken(path, problem))
        check_seal(path, io.BytesIO(_read_around(raw, blocks)))
        if not any_name:
            unstamp(path, _attributes(file))
        yield file


def _find_problem(file: Any, names: Sequence[str], size: int) -> str:
    """Say which array is not as all are written here: whole, uncompressed, within the file itself. size: its bytes."""
    import h5py

    missing = [name for name in names if name not in file]
    if missing:
        return f"an HDF5 file without {sorted(missing)}"
    for name in names:
        own = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
        if not own or file[name].id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or file[name].external:
            return f"{name} is no plain array of this file"
        if file[name].nbytes > size:
            return f"{name} {file[name].shape} is larger than the file"
    return ""


def _attributes(file: Any) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}


def _meta(attrs: Mapping[str, Any]) -> Meta:
    keys = ("slpd_version", "stage", "stage_version", "section", "fingerprint", "precision", *ENCODER_META)
    return {key: str(attrs[key]) for key in keys if key in attrs}


def _slide_attributes(slide: SlideInfo) -> dict[str, Any]:
    values = asdict(slide) | {"remarks": "\n".join(slide.remarks)}
    return {"slide_fingerprint" if key == "fingerprint" else key: value for key, value in values.items()}


def _slide_info(path: Path, attrs: Mapping[str, Any]) -> SlideInfo:
    names = [name for name in SlideInfo.__dataclass_fields__ if name != "fingerprint"]
    missing = [name for name in (*names, "slide_fingerprint", "fingerprint") if name not in attrs]
    if missing:
        raise ValueError(broken(path, f"an HDF5 file without the attributes {missing}"))
    values = {name: attrs[name] for name in names} | {"remarks": tuple(attrs["remarks"].splitlines())}
    return SlideInfo(**values, fingerprint=attrs["slide_fingerprint"])


def _trident_attributes(regions: Regions, path: Path) -> dict[str, Any]:
    """The attributes TRIDENT writes on `coords`, so that it and Patho-Bench read ours; magnification = 10 / mpp.

    TRIDENT multiplies the size by the ratio of magnifications, so that of level 0 follows from the sizes.
    """
    slide, target = regions.slide, 10 / regions.target_mpp
    return {
        "patch_size": regions.size_px,
        "patch_size_level0": regions.size_level0_px,
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
