"""Metadata of the arrays of Zarr 2 and 3, with limits on what they may state."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slpd_core.wsi.tiff_limits import MAX_TILE_PX
from slpd_core.wsi.zarr_codecs import COMPRESSORS, Codec, find_order
from slpd_core.wsi.zarr_store import Store

MAX_METADATA_BYTES = 1 << 22
MAX_AXES = 8
MAX_CHUNKS = 1 << 23  # per array; two million tiles of three channels
MAX_CHUNKS_PER_SHARD = 1 << 20


class UnsupportedZarrError(ValueError):
    """Zarr that is whole, but of a kind that is not read."""


@dataclass(frozen=True)
class Shards:
    """How the chunks of an array are packed in files.

    Attributes:
        shape: Of a shard, by axis, in chunks.
        has_checksum: Whether the index ends with a CRC-32C.
        is_index_first: Whether the index lies at the start of the file; otherwise at its end.
    """

    shape: tuple[int, ...]
    has_checksum: bool = True
    is_index_first: bool = False


@dataclass(frozen=True)
class ZarrArray:
    """An array of bytes.

    Attributes:
        path: Its folder in the store.
        shape: By axis.
        codec: Of its chunks.
        fill_value: Of the chunks that are left out; None if it states none.
        prefix, separator: Of the names of its files, before and between the indices.
        shards: None if each chunk is a file.
    """

    path: str
    shape: tuple[int, ...]
    codec: Codec
    fill_value: int | None
    prefix: str
    separator: str
    shards: Shards | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks by axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.codec.shape, strict=True))

    def file_index(self, index: Sequence[int]) -> tuple[int, ...]:
        """Find the file of a chunk.

        Args:
            index: Of the chunk, by axis.

        Returns:
            Of its file, by axis.
        """
        steps = self.shards.shape if self.shards else (1,) * len(self.shape)
        return tuple(i // step for i, step in zip(index, steps, strict=True))

    def file_key(self, index: Sequence[int]) -> str:
        """Name the file of a chunk, or of the shard that holds it.

        Args:
            index: Of the chunk, by axis.

        Returns:
            Its key in the store.
        """
        name = self.prefix + self.separator.join(str(i) for i in self.file_index(index))
        return f"{self.path}/{name}" if self.path else name


def read_json_object(store: Store, key: str) -> dict[str, Any] | None:
    """Read a JSON object.

    Args:
        store: Where it lies.
        key: Its key.

    Returns:
        The object; None if there is no such file.

    Raises:
        ValueError: It is no JSON object, or too large.
        OSError: It cannot be read.
    """
    data = store.read_whole(key, MAX_METADATA_BYTES)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{key} is nested without end") from error
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no JSON object")
    return value


def read_ome_attributes(store: Store, path: str) -> dict[str, Any]:
    """Read the attributes of a group, those of OME-Zarr in the layout of its version 0.4.

    Args:
        store: Where it lies.
        path: The group's folder; "" for the root.

    Returns:
        The attributes; {} if there is no such group.

    Raises:
        ValueError, TypeError: They are broken.
        OSError: They cannot be read.
    """
    folder = f"{path}/" if path else ""
    if (group := read_json_object(store, f"{folder}zarr.json")) is not None:
        return dict(group.get("attributes", {}).get("ome", {}))
    return read_json_object(store, f"{folder}.zattrs") or {}


def open_array(store: Store, path: str) -> ZarrArray:
    """Read the metadata of an array of bytes.

    Args:
        store: Where it lies.
        path: Its folder.

    Returns:
        The array.

    Raises:
        UnsupportedZarrError: It is of a kind that is not read.
        ValueError, TypeError, KeyError, AttributeError: Its metadata are missing or broken, or state too much.
        OSError: They cannot be read.
    """
    folder = f"{path}/" if path else ""
    if (meta := read_json_object(store, f"{folder}zarr.json")) is not None:
        array = _parse_v3(meta, path)
    elif (meta := read_json_object(store, f"{folder}.zarray")) is not None:
        array = _parse_v2(meta, path)
    else:
        raise ValueError(f"no array at {path!r}")
    if math.prod(array.codec.shape) > 4 * MAX_TILE_PX:
        raise ValueError(f"{path!r} states chunks of {' x '.join(map(str, array.codec.shape))}")
    if math.prod(array.grid) > MAX_CHUNKS:
        raise ValueError(f"{path!r} states {math.prod(array.grid)} chunks, more than {MAX_CHUNKS}")
    return array


def _parse_v2(meta: dict[str, Any], path: str) -> ZarrArray:
    if meta["zarr_format"] != 2:
        raise UnsupportedZarrError(f"Zarr of version {meta['zarr_format']}")
    _check_dtype(meta["dtype"], ("|u1", "<u1", ">u1"))
    if meta.get("filters"):
        raise UnsupportedZarrError(f"filters {meta['filters']}")
    shape, chunks = _sizes(meta["shape"]), _sizes(meta["chunks"])
    compressor = meta["compressor"]["id"] if meta["compressor"] else ""
    codec = Codec(chunks, find_order(str(meta["order"]), len(shape)), _check_compressor(compressor))
    return ZarrArray(path, shape, codec, _fill_value(meta["fill_value"]), "", _separator(meta, "dimension_separator"))


def _parse_v3(meta: dict[str, Any], path: str) -> ZarrArray:
    if (meta["zarr_format"], meta["node_type"]) != (3, "array"):
        raise ValueError(f"no array at {path!r}")
    _check_dtype(meta["data_type"], ("uint8",))
    if meta["chunk_grid"]["name"] != "regular" or meta.get("storage_transformers"):
        raise UnsupportedZarrError("chunks of several sizes, or stored by other means")
    shape, chunks = _sizes(meta["shape"]), _sizes(meta["chunk_grid"]["configuration"]["chunk_shape"])
    keys = meta["chunk_key_encoding"]
    if keys["name"] not in ("default", "v2"):
        raise UnsupportedZarrError(f"names of chunks by {keys['name']}")
    is_v2 = keys["name"] == "v2"
    separator = _separator(keys.get("configuration", {}), "separator", "." if is_v2 else "/")
    shards, codecs = None, meta["codecs"]
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        outer, chunks, codecs = chunks, _sizes(sharding["chunk_shape"]), sharding["codecs"]
        if any(whole % part for whole, part in zip(outer, chunks, strict=True)):
            raise ValueError(f"shards of {outer} in chunks of {chunks}")
        shards = _parse_shards(sharding, tuple(whole // part for whole, part in zip(outer, chunks, strict=True)))
    prefix = "" if is_v2 else f"c{separator}"
    return ZarrArray(
        path, shape, _parse_codecs(codecs, chunks), _fill_value(meta["fill_value"]), prefix, separator, shards
    )


def _parse_shards(sharding: dict[str, Any], shape: tuple[int, ...]) -> Shards:
    if math.prod(shape) > MAX_CHUNKS_PER_SHARD:
        raise ValueError(f"shards of {math.prod(shape)} chunks, more than {MAX_CHUNKS_PER_SHARD}")
    names = [codec["name"] for codec in sharding["index_codecs"]]
    endian = sharding["index_codecs"][0].get("configuration", {}).get("endian", "little")
    if names not in (["bytes"], ["bytes", "crc32c"]) or endian != "little":
        raise UnsupportedZarrError(f"an index of shards by {' '.join(names)}, {endian}-endian")
    return Shards(shape, "crc32c" in names, sharding.get("index_location", "end") == "start")


def _parse_codecs(codecs: list[dict[str, Any]], chunks: tuple[int, ...]) -> Codec:
    """The codecs of Zarr 3: an order of axes, plain bytes, one compressor and a checksum, all but bytes optional."""
    names = [codec["name"] for codec in codecs]
    order: Sequence[Any] | str = "C"
    if names[:1] == ["transpose"]:
        order = codecs[0]["configuration"]["order"]
        names = names[1:]
    has_checksum = names[-1:] == ["crc32c"]
    packed = names[1 : len(names) - has_checksum]
    if names[:1] != ["bytes"] or len(packed) > 1:
        raise UnsupportedZarrError(f"chunks by {', '.join(names)}")
    return Codec(chunks, find_order(order, len(chunks)), _check_compressor(*(packed or [""])), has_checksum)


def _check_compressor(name: str) -> str:
    if name and name not in COMPRESSORS:
        raise UnsupportedZarrError(f"chunks compressed by {name}, not by one of {', '.join(COMPRESSORS)}")
    return name


def _check_dtype(dtype: Any, known: tuple[str, ...]) -> None:
    if dtype not in known:
        raise UnsupportedZarrError(f"pixels of type {dtype}, not of 8 bits")


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if not 2 <= len(sizes) <= MAX_AXES or not all(isinstance(size, int) and 0 < size < 1 << 40 for size in sizes):
        raise ValueError(f"a shape of {str(sizes)[:100]}")
    return sizes


def _separator(meta: dict[str, Any], key: str, default: str = ".") -> str:
    separator = meta.get(key, default)
    if separator not in (".", "/"):
        raise ValueError(f"a separator {separator!r}")
    return str(separator)


def _fill_value(value: Any) -> int | None:
    if value is not None and not (isinstance(value, int) and 0 <= value < 256):
        raise ValueError(f"a fill value of {value!r}")
    return value
