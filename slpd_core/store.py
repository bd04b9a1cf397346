"""Reads and writes every artifact: the written contract of shapes, dtypes, units and metadata, checked on read.

Every file is written beside its name and renamed when whole, so a reader never sees half of one. Every artifact carries
`slpd_version`, `stage`, `stage_version`, the config `section` that made it and the `fingerprint` of its inputs.
"""

import errno
import glob
import hashlib
import json
import os
import shlex
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled freely
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import __version__

OK, QUARANTINED, EMPTY = "ok", "quarantined", "empty"
FORMULA = ("=", "+", "-", "@")  # what a formula of a spreadsheet begins with
Meta = dict[str, str]

# Columns of each Parquet table. `embedding` is a fixed-size list, float32.
TABLES: dict[str, tuple[str, ...]] = {
    "sheet": ("slide_id", "patient_id", "label", "mpp", "site"),  # not where the slides lie: they may move
    "ledger": (
        *("slide_id", "patient_id", "label", "status", "reason", "width_px", "height_px", "mpp", "mpp_source"),
        *("tissue_mm2", "regions", "fingerprint", "seconds"),
    ),
    "embed": ("slide_id", "x", "y", "embedding"),  # and `attention`, a list of floats, if asked for
    "folds": ("fold", "slide_id", "patient_id", "label", "part"),
    "evaluate": ("fold", "slide_id", "patient_id", "label"),  # and one column p_{label} a class, float64
}
# What the patch encoder's metadata must say for the tokens stage to use it; JSON values.
PATCH_ENCODER_META = (*("name", "source", "arguments", "patch_px", "input_px", "pooling", "mean", "std", "token_dim"),)
# What a tokens file says of the patch encoder that made it; texts, passed on to the `evaluate` tables.
ENCODER_META = ("encoder_source", "encoder_name")


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide once it was opened, or why it could not be.

    status: "ok" or "quarantined", then `reason` says why. Level-0 size in px, mpp in um/px (nan when quarantined),
    mpp_source where the mpp came from, fingerprint of the slide's file.
    """

    slide_id: str
    status: str
    reason: str = ""
    width_px: int = 0
    height_px: int = 0
    mpp: float = float("nan")
    mpp_source: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class Tissue:
    """Tissue of a slide: shapely Polygons with holes, level-0 px."""

    slide: SlideInfo
    polygons: tuple[Any, ...]

    @property
    def area_mm2(self) -> float:
        """Area of all polygons."""
        return sum((polygon.area * self.slide.mpp**2 / 1e6 for polygon in self.polygons), 0.0)


@dataclass(frozen=True)
class Regions:
    """The regions kept of a slide.

    coords: int64 (L, 2), level-0 px (x, y) of the upper left corner. tissue_fraction: float32 (L,), 0..1.
    size_px: side at target_mpp; size_level0_px: the same side in level-0 px.
    """

    slide: SlideInfo
    coords: np.ndarray
    tissue_fraction: np.ndarray
    size_px: int
    size_level0_px: int
    target_mpp: float


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of a slide: float16 (L, grid * grid, dim), row-major grid; coords as in Regions.

    colour: mean RGB of each patch, float16 (L, grid * grid, 3), 0..255, in the order of the tokens.
    """

    slide: SlideInfo
    tokens: Any  # np.ndarray, or the open HDF5 dataset inside `writing_tokens` and `open_tokens`
    colour: Any  # the same
    coords: np.ndarray


def fingerprint(*parts: str) -> str:
    """Hash texts into 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def file_fingerprint(path: Path, blocks: int = 64, block_bytes: int = 65_536) -> str:
    """Hash a file's size and evenly spaced blocks of it, first and last included (whole when it is small)."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    last = max(0, size - block_bytes)
    with path.open("rb") as file:
        for offset in np.unique(np.linspace(0, last, min(blocks, last // block_bytes + 2)).astype(np.int64)):
            file.seek(int(offset))
            digest.update(file.read(block_bytes))
    return digest.hexdigest()


def provenance(stage: str, version: int, section: Mapping[str, Any], *inputs: str) -> Meta:
    """The metadata every artifact carries.

    inputs: fingerprints of what the stage read. The artifact's own fingerprint covers the stage, its version, its
    section and those.
    """
    text = json.dumps(section, sort_keys=True)
    return {
        "slpd_version": __version__,
        "stage": stage,
        "stage_version": str(version),
        "section": text,
        "fingerprint": fingerprint(stage, str(version), text, *inputs),
    }


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the name `path` when the block ends well and is removed otherwise.

    Whatever a killed job left of the same artifact is removed too. Raises OSError naming the artifact when the disk is
    full, whatever the library that writes says of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        full = os.strerror(errno.ENOSPC)
        if full not in str(error):
            raise
        raise OSError(errno.ENOSPC, f"{full}; make room and run snakemake again", str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole (CSV, Markdown, LaTeX, HTML)."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, frame: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table for people's spreadsheets, which would run a text that begins as a formula: a ' goes before it."""
    plain = frame.rename(columns=_as_text).map(_as_text)
    write_text(path, plain.to_csv(index=False, float_format=float_format))


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    line = cell.replace("\r", " ")  # which would begin a row of its own
    return f"'{line}" if line.lstrip().startswith(FORMULA) else line


# Tables: Parquet


def write_table(path: Path, name: str, frame: pd.DataFrame, meta: Meta) -> None:
    """Write the table `name` of TABLES as Parquet; a column `embedding` holds equally long float vectors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_columns(path, name, frame.columns)
    arrays = {}
    for column in frame.columns:
        if column == "embedding":
            dim = int(meta["embed_dim"])
            flat = np.concatenate([np.empty(0, np.float32), *frame[column]]).astype(np.float32)
            arrays[column] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
        else:
            arrays[column] = pa.Array.from_pandas(frame[column])
    table = pa.table(arrays).replace_schema_metadata({"slpd": json.dumps(meta)})
    with replacing(path) as part:
        pq.write_table(table, part)


def read_table(path: Path, name: str) -> tuple[pd.DataFrame, Meta]:
    """Read the table `name` of TABLES and its metadata.

    Raises ValueError when the file is broken or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(_broken(path, str(error))) from error
    _check_columns(path, name, table.column_names)
    frame = table.drop_columns(["embedding"]).to_pandas() if "embedding" in table.column_names else table.to_pandas()
    if "embedding" in table.column_names:
        frame["embedding"] = list(embedding_matrix(table))
    return frame, json.loads((table.schema.metadata or {}).get(b"slpd", b"{}"))


def embedding_matrix(table: Any) -> np.ndarray:
    """The `embedding` column of an Arrow table as float32 (rows, dim)."""
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def _check_columns(path: Path, name: str, columns: Sequence[str]) -> None:
    missing = [column for column in TABLES[name] if column not in columns]
    if missing:
        raise ValueError(_broken(path, f"a {name} table without {missing}"))


def make_anew(path: Path) -> str:
    """The remedy for a broken or missing artifact: its file by name, as a finished run misses none that it has used."""
    return f"delete the file and make it anew: snakemake --cores all {shlex.quote(str(path))}"


def _broken(path: Path, found: str) -> str:
    return f"{path}: {found}; {make_anew(path)}"


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path}: no such file; make it: snakemake --cores all {shlex.quote(str(path))}")


# Tissue: GeoJSON


def write_tissue(path: Path, tissue: Tissue, meta: Meta) -> None:
    """Write a FeatureCollection of level-0 px polygons that QuPath opens; slide and metadata stand beside them."""
    from shapely.geometry import mapping

    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": [46, 160, 67]}}
    features = [
        {
            "type": "Feature",
            "id": f"{tissue.slide.slide_id}-{number}",
            "geometry": mapping(polygon),
            "properties": properties,
        }
        for number, polygon in enumerate(tissue.polygons)
    ]
    slide = {key: None if value != value else value for key, value in asdict(tissue.slide).items()}
    collection = {"type": "FeatureCollection", "features": features, "slpd": {"slide": slide, **meta}}
    write_text(path, json.dumps(collection))


def read_areas(path: Path) -> list[Any]:
    """Read the areas of any GeoJSON, as shapely geometries: a FeatureCollection, a Feature, a geometry or a list.

    Raises ValueError when the file holds something else, or lines and points.
    """
    from shapely import get_coordinates
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found = found["features"] if isinstance(found, dict) and "features" in found else found
        geometries = [shape(item.get("geometry", item)) for item in (found if isinstance(found, list) else [found])]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ShapelyError) as error:
        raise ValueError(f"{path}: not a GeoJSON of areas ({error}); export it from QuPath as GeoJSON") from error
    if not np.isfinite(get_coordinates(geometries)).all():
        raise ValueError(f"{path}: holds a corner at no finite place; outline tissue anew")
    other = {item.geom_type for item in geometries} - {"Polygon", "MultiPolygon"}
    if other:
        raise ValueError(f"{path}: holds {', '.join(sorted(other))}; outline tissue with areas only")
    return geometries


def read_tissue(path: Path) -> tuple[Tissue, Meta]:
    """Read what `write_tissue` wrote.

    Raises ValueError when the file is broken.
    """
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        collection = json.loads(Path(path).read_text(encoding="utf-8"))
        meta = dict(collection["slpd"])
        slide: dict[str, Any] = {
            key: float("nan") if value is None else value for key, value in meta.pop("slide").items()
        }
        polygons = tuple(shape(feature["geometry"]) for feature in collection["features"])
        return Tissue(SlideInfo(**slide), polygons), meta
    except (KeyError, TypeError, ValueError, RecursionError, ShapelyError) as error:
        edited = "; where you have edited it, put it into the folder that tissue.masks names"
        raise ValueError(_broken(path, f"not a tissue file ({error})") + edited) from error


# Arrays: HDF5


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
        raise ValueError(_broken(path, f"coords {coords.shape} and tissue_fraction {fraction.shape} do not fit"))
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
            raise ValueError(_broken(path, f"tokens {tokens.dtype} {tokens.shape} for {len(coords)} regions"))
        if colour.shape != (*tokens.shape[:2], 3) or colour.dtype != np.float16:
            raise ValueError(_broken(path, f"colour {colour.dtype} {colour.shape} for tokens {tokens.shape}"))
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
            raise ValueError(_broken(path, f"patches {patches.dtype} {patches.shape} of {len(file['coords'])} places"))
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
        raise _missing(path) from error
    except OSError as error:
        raise ValueError(_broken(path, f"no whole HDF5 file ({error})")) from error
    with file:
        missing = [name for name in names if name not in file]
        if missing:
            raise ValueError(_broken(path, f"an HDF5 file without {missing}"))
        for name in names:
            _check_dataset(path, file, name)
        yield file


def _check_dataset(path: Path, file: Any, name: str) -> None:
    """Raise ValueError where an array is not as all are written here: whole, uncompressed, within the file itself."""
    import h5py

    own = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
    if not own or file[name].id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or file[name].external:
        raise ValueError(_broken(path, f"{name} is no plain array of this file"))
    if file[name].nbytes > path.stat().st_size:
        raise ValueError(_broken(path, f"{name} {file[name].shape} is larger than the file"))


def _attributes(file: Any) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}


def _meta(attrs: Mapping[str, Any]) -> Meta:
    keys = ("slpd_version", "stage", "stage_version", "section", "fingerprint", "precision", *ENCODER_META)
    return {key: str(attrs[key]) for key in keys if key in attrs}


def _slide_attributes(slide: SlideInfo) -> dict[str, Any]:
    values = asdict(slide)
    return {"slide_fingerprint" if key == "fingerprint" else key: value for key, value in values.items()}


def _slide_info(path: Path, attrs: Mapping[str, Any]) -> SlideInfo:
    names = [name for name in SlideInfo.__dataclass_fields__ if name != "fingerprint"]
    missing = [name for name in (*names, "slide_fingerprint", "fingerprint") if name not in attrs]
    if missing:
        raise ValueError(_broken(path, f"an HDF5 file without the attributes {missing}"))
    return SlideInfo(**{name: attrs[name] for name in names}, fingerprint=attrs["slide_fingerprint"])


def _trident_attributes(regions: Regions, path: Path) -> dict[str, Any]:
    """The attributes TRIDENT writes on `coords`, so that it and Patho-Bench read ours; magnification = 10 / mpp."""
    slide = regions.slide
    return {
        "patch_size": regions.size_px,
        "patch_size_level0": regions.size_level0_px,
        "level0_magnification": _magnification(slide.mpp),
        "target_magnification": _magnification(regions.target_mpp),
        "overlap": 0,
        "name": slide.slide_id,
        "savetodir": str(Path(path).parent),
        "level0_width": slide.width_px,
        "level0_height": slide.height_px,
        "slide_mpp": slide.mpp,
        "target_mpp": regions.target_mpp,
    }


def _magnification(mpp: float) -> float:
    """Not rounded: TRIDENT takes the ratio of two of them for the scale."""
    return 10 / mpp if mpp > 0 else 0.0


# Weights: safetensors


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a state dict of numpy arrays as safetensors; meta: texts only.

    The same tensors and metadata give the same bytes: safetensors writes one text, but several in any order.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as part:
        part.write_bytes(save(contiguous, {"slpd": json.dumps(meta)}))


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a state dict of numpy arrays and its metadata.

    Raises ValueError when the file is broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            meta = file.metadata() or {}
            return tensors, json.loads(meta["slpd"]) if "slpd" in meta else meta
    except SafetensorError as error:
        raise ValueError(_broken(path, f"no safetensors file ({error})")) from error


def read_torch(path: Path) -> Any:
    """Read torch tensors from .safetensors, or a file torch.save wrote: nothing it may hold is run.

    Of the latter, tensors, plain values and the settings (argparse.Namespace) that training scripts save beside them.
    Raises ValueError when the file is broken or holds anything else.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    # A broken file ends in any of these, depending on where it is broken.
    wrong = (ValueError, KeyError, IndexError, AttributeError, TypeError)
    broken = (UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, *wrong)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, *broken) as error:
            raise ValueError(f"{path}: no whole safetensors file ({error})") from error
    try:
        _check_zip(path)
        # A Namespace only sets attributes: it has no code of its own that unpickling would run.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except broken as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a whole file of tensors and plain values ({reason})") from error


def _check_zip(path: Path) -> None:
    """Raise ValueError where tensors are packed, as torch.save never does: a few bytes could unpack to any number."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if any(item.compress_type != zipfile.ZIP_STORED for item in file.infolist()):
                raise ValueError("its tensors are compressed")


def read_state_dict(path: Path, key: str) -> dict[str, Any]:
    """A network's tensors, half precision made float32, from .safetensors, .pth or .bin: nothing it may hold is run.

    Of DINO's whole checkpoints, as HIPT's, they are the teacher's, named without `module.` and `backbone.`. key: of the
    config that led to the file. Raises ValueError when the file holds something else.
    """
    import torch

    try:
        found = read_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{key}: {error}; download it again, or convert it to a plain state dict of safetensors"
        ) from error
    for name in ("state_dict", "model", "teacher"):
        found = found[name] if isinstance(found, dict) and isinstance(found.get(name), dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise ValueError(f"{key}: {path} holds no state dict of tensors; save one with torch.save or safetensors")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{key}: {path}: {name} states {[*tensor.shape]} numbers, more than it holds")
    return {
        name.removeprefix("module.").removeprefix("backbone."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in found.items()
    }
