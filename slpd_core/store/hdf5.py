"""Arrays: HDF5, contiguous and uncompressed."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.store.files import broken, missing_file, replacing
from slpd_core.store.schema import ENCODER_META, Meta, Regions, SlideInfo, Tokens


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attrs: Mapping[str, Any], meta: Meta) -> None:
    """Write named arrays, contiguous and uncompressed; str arrays as UTF-8."""
    import h5py

    with _writing_h5(path) as file:
        file.attrs.update({**meta, **attrs})
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
        return arrays, _attributes(file)


def write_regions(path: Path, regions: Regions, meta: Meta) -> None:
    """Write `coords` with TRIDENT's attributes, and `tissue_fraction`."""
    with _writing_h5(path) as file:
        file.attrs.update({**meta, **_slide_attributes(regions.slide)})
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
def writing_tokens(path: Path, regions: Regions, grid: int, dim: int, meta: Meta) -> Iterator[Tokens]:
    """Give Tokens to fill region by region: `written.tokens[i] = array`, and `written.colour[i]` the same way."""
    with _writing_h5(path) as file:
        file.attrs.update({**meta, **_slide_attributes(regions.slide), "grid": grid, "token_dim": dim})
        coords = file.create_dataset("coords", data=regions.coords.astype(np.int64).reshape(-1, 2))
        coords.attrs.update(_trident_attributes(regions, path))
        tokens, colour = (
            file.create_dataset(name, (len(regions.coords), grid * grid, size), np.float16)
            for name, size in (("tokens", dim), ("colour", 3))
        )
        yield Tokens(regions.slide, tokens, colour, regions.coords)


def copy_tokens(source: Path, path: Path, regions: Regions) -> None:
    """Copy tokens of the same regions that another cohort made, where the slide may have another name."""
    import h5py

    with replacing(path) as part:
        shutil.copyfile(source, part)
        with h5py.File(part, "r+") as file:
            file.attrs.update(_slide_attributes(regions.slide))
            file["coords"].attrs.update(_trident_attributes(regions, path))


@contextmanager
def open_tokens(path: Path) -> Iterator[tuple[Tokens, Meta]]:
    """Open what `writing_tokens` wrote; `tokens` and `colour` are HDF5 datasets, read by slicing.

    Raises ValueError when the file is broken.
    """
    with _open_h5(path, ("tokens", "colour", "coords")) as file:
        tokens, colour, coords = file["tokens"], file["colour"], file["coords"][()]
        if tokens.ndim != 3 or tokens.dtype != np.float16 or len(tokens) != len(coords):
            raise ValueError(broken(path, f"tokens {tokens.dtype} {tokens.shape} for {len(coords)} regions"))
        if colour.shape != (*tokens.shape[:2], 3) or colour.dtype != np.float16:
            raise ValueError(broken(path, f"colour {colour.dtype} {colour.shape} for tokens {tokens.shape}"))
        attrs = _attributes(file)
        yield Tokens(_slide_info(path, attrs), tokens, colour, coords), _meta(attrs)


def read_tokens(path: Path) -> tuple[Tokens, Meta]:
    """Read a slide's tokens whole into memory."""
    with open_tokens(path) as (tokens, meta):
        return Tokens(tokens.slide, tokens.tokens[()], tokens.colour[()], tokens.coords), meta


@contextmanager
def writing_patches(path: Path, sample: Regions, meta: Meta) -> Iterator[Any]:
    """Give the dataset `patches`, uint8 (n, size_px, size_px, 3), to fill patch by patch; sample: where they lie."""
    n, side = len(sample.coords), sample.size_px
    with _writing_h5(path) as file:
        file.attrs.update({**meta, **_slide_attributes(sample.slide)})
        file.create_dataset("coords", data=sample.coords.astype(np.int64).reshape(-1, 2))
        yield file.create_dataset("patches", (n, side, side, 3), np.uint8)


def read_patches(path: Path) -> tuple[np.ndarray, Meta]:
    """The patches of a slide, uint8 (n, size_px, size_px, 3), mapped from the file rather than read.

    Raises ValueError when the file is broken.
    """
    with _open_h5(path, ("patches", "coords")) as file:
        patches, meta = file["patches"], _meta(_attributes(file))
        if patches.ndim != 4 or patches.dtype != np.uint8 or len(patches) != len(file["coords"]):
            raise ValueError(broken(path, f"patches {patches.dtype} {patches.shape} of {len(file['coords'])} places"))
        offset, shape = patches.id.get_offset(), patches.shape
    if offset is None:  # nothing was ever written
        return np.zeros(shape, np.uint8), meta
    return np.memmap(path, np.uint8, "r", offset, shape), meta


@contextmanager
def _writing_h5(path: Path) -> Iterator[Any]:
    import h5py

    with replacing(path) as part:
        file = h5py.File(part, "w")
        try:
            yield file
            file.flush()
        except BaseException:
            _give_up(file)
            raise
        file.close()


def _give_up(file: Any) -> None:
    """Close an unfinished file; what HDF5 then writes goes into memory, as on a full disk it would end the process."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("unfinished"), "wb") as memory:
            os.dup2(memory.fileno(), file.id.get_vfd_handle())
    with suppress(OSError, RuntimeError):
        file.close()


@contextmanager
def _open_h5(path: Path, names: Sequence[str]) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except OSError as error:
        raise ValueError(broken(path, f"no whole HDF5 file ({error})")) from error
    with file:
        missing = [name for name in names if name not in file]
        if missing:
            raise ValueError(broken(path, f"an HDF5 file without {missing}"))
        for name in names:
            _check_dataset(path, file, name)
        yield file


def _check_dataset(path: Path, file: Any, name: str) -> None:
    """Raise ValueError where an array is not as all are written here: whole, uncompressed, within the file itself."""
    import h5py

    own = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
    if not own or file[name].id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or file[name].external:
        raise ValueError(broken(path, f"{name} is no plain array of this file"))
    if file[name].nbytes > path.stat().st_size:
        raise ValueError(broken(path, f"{name} {file[name].shape} is larger than the file"))


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
