"""Tiles of an OME-Zarr, put together from the chunks of its arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, SlideError
from slpd_core.wsi.levels import Size
from slpd_core.wsi.tile_reader import TileReader, describe_position
from slpd_core.wsi.zarr_arrays import MAX_CHUNKS, Shards, ZarrArray
from slpd_core.wsi.zarr_codecs import CHECKSUM_BYTES, check_crc32c
from slpd_core.wsi.zarr_store import Store, open_store

MAX_EXPANSION, MAX_HEADER_BYTES = 2, 1 << 16  # bounds on the bytes of a chunk: per byte of pixels, and besides
NO_CHUNK = 2**64 - 1  # offset and length of a chunk that a shard leaves out
N_CHANNELS = 3


@dataclass(frozen=True)
class ZarrLevel:
    """A pyramid level.

    Attributes:
        size_px: (width, height) of the level, px.
        tile_px: (width, height) of a chunk, px.
        array: Its array.
        axes: Axes of y, x and color in the array; all others are of size 1.
    """

    size_px: Size
    tile_px: Size
    array: ZarrArray
    axes: tuple[int, int, int]

    def chunks_at(self, row: int, column: int) -> list[tuple[int, ...]]:
        """List the chunks of a tile, by color.

        Args:
            row, column: Of the tile.

        Returns:
            Their indices, by the array's axes.
        """
        steps = range(self.array.grid[self.axes[2]])
        at = [dict(zip(self.axes, (row, column, step), strict=True)) for step in steps]
        return [tuple(index.get(axis, 0) for axis in range(len(self.array.shape))) for index in at]


class ZarrTiles(TileReader[ZarrLevel]):
    """The levels of an OME-Zarr; may be read from several threads at once.

    Args:
        path: The slide's folder or zip.
        levels: By level, its array.
        missing_tiles: "error", or "white" for chunks that the array leaves out: they are of its fill value.
    """

    def __init__(self, path: Path, levels: Mapping[int, ZarrLevel], missing_tiles: str = "error") -> None:
        super().__init__(path, levels, missing_tiles)
        self._store = open_store(path)
        self._chunks = ChunkReader(self._store)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def describe_missing(self) -> str:
        """Describe the chunks of level 0 that the array leaves out and that are read as its fill value.

        Returns:
            A remark; "" if there are none.
        """
        level = self._levels[0]
        array = level.array
        if self._missing_tiles == "error":
            return ""
        keys = self._store.keys(array.path)
        rows, columns = (array.grid[axis] for axis in level.axes[:2])
        try:
            missing = sum(
                any(self._chunks.is_missing(array, index, keys) for index in level.chunks_at(row, column))
                for row, column in product(range(rows), range(columns))
            )
        except ValueError as error:
            raise SlideError(f"{self.path}: broken index of level 0 ({error}); {COPY_AGAIN}") from error
        if not missing:
            return ""
        return (
            f"{missing} of the {rows * columns} tiles of level 0 are missing and read as the fill value "
            f"{array.fill_value} (tissue.missing_tiles)."
        )

    def _decode(self, level: int, row: int, column: int, jpeg_scale: int, buffer: np.ndarray) -> np.ndarray:
        """Decode the chunks of a tile into a buffer of its size."""
        tiles = self._levels[level]
        position = describe_position(tiles.tile_px, level, row, column)
        first, step = 0, tiles.array.codec.shape[tiles.axes[2]]
        for index in tiles.chunks_at(row, column):
            try:
                chunk = self._chunks.read(tiles.array, index)
            except (ValueError, RuntimeError) as error:
                raise SlideError(f"{self.path}: broken chunk of {position} ({error}); {COPY_AGAIN}") from error
            colors = buffer[..., first : first + step]
            if chunk is not None:
                colors[:] = self._as_colors(chunk, tiles.axes)[..., : colors.shape[2]]
            elif self._missing_tiles == "white" and tiles.array.fill_value is not None:
                colors[:] = tiles.array.fill_value
            else:
                raise SlideError(f"{self.path}: missing chunk of {position}; {MISSING_TILES}")
            first += step
        return buffer

    @staticmethod
    def _as_colors(chunk: np.ndarray, axes: tuple[int, int, int]) -> np.ndarray:
        """View a chunk as (rows, columns, colors)."""
        others = tuple(axis for axis in range(chunk.ndim) if axis not in axes)
        colors: np.ndarray = chunk.transpose(*others, *axes)[(0,) * len(others)]
        return colors


class ChunkReader:
    """Reads the chunks of arrays; may be used by several threads at once.

    Args:
        store: Where the arrays lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables: dict[str, np.ndarray] = {}  # of shards, empty where there is no such file

    def read(self, array: ZarrArray, index: Sequence[int]) -> np.ndarray | None:
        """Read a chunk.

        Args:
            array: The array.
            index: Of the chunk, by axis.

        Returns:
            uint8, of the chunk's shape; None if it is left out.

        Raises:
            ValueError, RuntimeError: It is broken.
            OSError: It cannot be read.
        """
        key, max_bytes = array.file_key(index), MAX_EXPANSION * math.prod(array.codec.shape) + MAX_HEADER_BYTES
        if array.shards is None:
            data = self._store.read_whole(key, max_bytes)
        else:
            offset, length = self._find_in_shard(array, key, index)
            if length != NO_CHUNK and length > max_bytes:
                raise ValueError(f"states {length} bytes")
            data = None if length == NO_CHUNK else self._store.read(key, offset, length)
        return None if data is None else array.codec.decode(data)

    def is_missing(self, array: ZarrArray, index: Sequence[int], keys: set[str]) -> bool:
        """Return whether a chunk is left out.

        Args:
            array, index: As in `read`.
            keys: Of the files below the array's folder.

        Returns:
            Whether it is.

        Raises:
            ValueError: The index of its shard is broken.
            OSError: The index cannot be read.
        """
        key = array.file_key(index)
        return key not in keys or (array.shards is not None and self._find_in_shard(array, key, index)[1] == NO_CHUNK)

    def _find_in_shard(self, array: ZarrArray, key: str, index: Sequence[int]) -> tuple[int, int]:
        """Offset and length of a chunk in its shard."""
        assert array.shards
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) * math.prod(array.shards.shape) > MAX_CHUNKS:
                self._tables.clear()
            table = self._tables[key] = self._read_table(array.shards, key)
        if not table.size:
            return NO_CHUNK, NO_CHUNK
        entry = table[tuple(i % size for i, size in zip(index, array.shards.shape, strict=True))]
        return int(entry[0]), int(entry[1])

    def _read_table(self, shards: Shards, key: str) -> np.ndarray:
        """Read the offsets and lengths of a shard's chunks."""
        size, length = self._store.size(key), 16 * math.prod(shards.shape) + CHECKSUM_BYTES * shards.has_checksum
        if size is None:
            return np.empty(0, np.uint64)
        if size < length:
            raise ValueError(f"a shard of {size} bytes, fewer than its index")
        data = self._store.read(key, 0 if shards.is_index_first else size - length, length)
        if shards.has_checksum:
            data = check_crc32c(data)
        return np.frombuffer(data, "<u8").reshape(*shards.shape, 2)
