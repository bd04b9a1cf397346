"""Writes OME-Zarr by the published specifications of Zarr 2 and 3 and OME-NGFF 0.4 and 0.5."""

import itertools
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "blosc": lambda data: imagecodecs.blosc_encode(data, level=5, compressor="zstd", shuffle=1, typesize=1),
    "gzip": imagecodecs.gzip_encode,
    "lz4": lambda data: imagecodecs.lz4_encode(data, header=True),
    "zlib": imagecodecs.zlib_encode,
    "zstd": imagecodecs.zstd_encode,
}
NO_CHUNK = b"\xff" * 16


def crc32c(data: bytes) -> bytes:
    """The CRC-32C of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for bit in np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").tolist():
        crc = (crc >> 1) ^ (0x82F63B78 * ((crc & 1) ^ bit))
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def write_array(
    folder: Path,
    data: np.ndarray,
    chunks: Sequence[int],
    *,
    version: int = 2,
    compressor: str = "zstd",
    order: Sequence[int] | None = None,
    separator: str = "/",
    fill_value: int | None = 255,
    has_checksum: bool = False,
    shards: Sequence[int] | None = None,
    index_location: str = "end",
    left_out: Callable[[tuple[int, ...]], bool] = lambda index: False,
) -> None:
    """An array; order: its axes as chunks store them; shards: chunks per shard by axis; left_out: by chunk."""
    order = tuple(order or range(data.ndim))
    grid = [-(-size // chunk) for size, chunk in zip(data.shape, chunks, strict=True)]
    padded = np.full([n * chunk for n, chunk in zip(grid, chunks, strict=True)], fill_value or 0, np.uint8)
    padded[tuple(slice(size) for size in data.shape)] = data
    files: dict[tuple[int, ...], dict[tuple[int, ...], bytes]] = {}
    for index in itertools.product(*map(range, grid)):
        if left_out(index):
            continue
        part = padded[tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(index, chunks, strict=True))]
        encoded = ENCODERS[compressor](np.ascontiguousarray(part.transpose(order)).tobytes())
        steps = shards or [1] * data.ndim
        file = tuple(i // step for i, step in zip(index, steps, strict=True))
        within = tuple(i % step for i, step in zip(index, steps, strict=True))
        files.setdefault(file, {})[within] = encoded + (crc32c(encoded) if has_checksum else b"")
    for file, parts in files.items():
        prefix = f"c{separator}" if version == 3 else ""
        path = folder / (prefix + separator.join(map(str, file)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_shard(parts, shards, index_location) if shards else next(iter(parts.values())))
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        meta = _metadata_v2(data, chunks, compressor, order, separator, fill_value)
    else:
        inner = _codecs(compressor, order, has_checksum=has_checksum)
        meta = _metadata_v3(data, chunks, inner, separator, fill_value, shards, index_location)
    (folder / (".zarray" if version == 2 else "zarr.json")).write_text(json.dumps(meta))


def _shard(parts: dict[tuple[int, ...], bytes], shape: Sequence[int], index_location: str) -> bytes:
    index_bytes = 16 * int(np.prod(shape)) + 4
    body, index, start = b"", b"", index_bytes if index_location == "start" else 0
    for within in itertools.product(*map(range, shape)):
        index += struct.pack("<QQ", start + len(body), len(parts[within])) if within in parts else NO_CHUNK
        body += parts.get(within, b"")
    index += crc32c(index)
    return index + body if index_location == "start" else body + index


def _codecs(compressor: str, order: tuple[int, ...], *, has_checksum: bool) -> list[dict[str, Any]]:
    codecs: list[dict[str, Any]] = []
    if order != tuple(range(len(order))):
        codecs.append({"name": "transpose", "configuration": {"order": list(order)}})
    codecs.append({"name": "bytes"})
    configuration = {
        "blosc": {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "typesize": 1, "blocksize": 0},
        "gzip": {"level": 5},
        "zstd": {"level": 3, "checksum": False},
    }
    codecs += [{"name": compressor, "configuration": configuration.get(compressor)}] * bool(compressor)
    return codecs + [{"name": "crc32c"}] * has_checksum


def _metadata_v2(data, chunks, compressor, order, separator, fill_value) -> dict[str, Any]:
    letters = {tuple(range(data.ndim)): "C", tuple(range(data.ndim))[::-1]: "F"}
    configuration = {"id": compressor, "level": 3, "clevel": 5, "cname": "zstd", "shuffle": 1, "acceleration": 1}
    fields = {"zstd": ("id", "level"), "zlib": ("id", "level"), "gzip": ("id", "level"), "lz4": ("id", "acceleration")}
    kept = fields.get(compressor, ("id", "clevel", "cname", "shuffle"))
    return {
        "zarr_format": 2,
        "shape": list(data.shape),
        "chunks": list(chunks),
        "dtype": "|u1",
        "compressor": {key: configuration[key] for key in kept} if compressor else None,
        "fill_value": fill_value,
        "order": letters[order],
        "filters": None,
        "dimension_separator": separator,
    }


def _metadata_v3(data, chunks, codecs, separator, fill_value, shards, index_location) -> dict[str, Any]:
    grid = chunks
    if shards:
        grid = [chunk * step for chunk, step in zip(chunks, shards, strict=True)]
        configuration = {
            "chunk_shape": list(chunks),
            "codecs": codecs,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": index_location,
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(data.shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill_value or 0,
        "codecs": codecs,
        "attributes": {},
    }


def multiscale(axes: str, n_levels: int, mpp: float, unit: str = "micrometer") -> dict[str, Any]:
    """The metadata of a pyramid whose levels halve."""
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    scales = [[mpp * 2**i if axis in "yx" else 1.0 for axis in axes] for i in range(n_levels)]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for i, scale in enumerate(scales)
    ]
    return {"axes": described, "datasets": datasets}


def write_group(folder: Path, attributes: dict[str, Any], version: int = 2) -> None:
    """The metadata of a group with attributes of OME."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == 3:
        ome = {"version": "0.5", **attributes}
        (folder / "zarr.json").write_text(
            json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
        )
        return
    for pyramid in attributes.get("multiscales", []):
        pyramid["version"] = "0.4"
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (folder / ".zattrs").write_text(json.dumps(attributes))


def write_ome_zarr(
    path: Path,
    levels: Sequence[np.ndarray],
    *,
    mpp: float = 0.5,
    unit: str = "micrometer",
    axes: str = "cyx",
    chunk_px: tuple[int, int] = (64, 48),
    colors_per_chunk: int = 3,
    version: int = 2,
    attributes: dict[str, Any] | None = None,
    shards: tuple[int, int] | None = None,
    **options: Any,
) -> Path:
    """A slide: levels of uint8 (rows, columns, colors), each half the one before; chunk_px: (rows, columns)."""
    sizes = {"c": colors_per_chunk, "y": chunk_px[0], "x": chunk_px[1]}
    steps = dict(zip("yx", shards, strict=True)) if shards else {}
    for i, level in enumerate(levels):
        data = level.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
        data = data.reshape([data.shape[[a for a in axes if a in "yxc"].index(a)] if a in "yxc" else 1 for a in axes])
        packed = [steps.get(axis, 1) for axis in axes] if shards else None
        chunks = [sizes.get(axis, 1) for axis in axes]
        write_array(path / str(i), data, chunks, version=version, shards=packed, **options)
    pyramid = multiscale(axes, len(levels), mpp, unit)
    write_group(path, {"multiscales": [pyramid], **(attributes or {})}, version)
    return path


def zip_folder(folder: Path, path: Path, *, top: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """A folder as a zip; top: the folder's name in it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for part in sorted(folder.rglob("*")):
            if part.is_file():
                file.write(part, top + part.relative_to(folder).as_posix())
    return path
