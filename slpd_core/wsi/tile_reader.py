"""Levels of tiles of one size each: boxes of them, put together by one or several threads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from slpd_core.wsi.levels import Size
from slpd_core.wsi.read_plan import resample_into

Box = tuple[int, int, int, int]


class TiledLevel(Protocol):
    """A level whose tiles are all of one size."""

    @property
    def size_px(self) -> Size:
        """(width, height) of the level, px."""

    @property
    def tile_px(self) -> Size:
        """(width, height) of a tile, px."""


LevelT = TypeVar("LevelT", bound=TiledLevel)


class TileReader(ABC, Generic[LevelT]):
    """The levels of a slide whose tiles can be decoded; may be read from several threads at once.

    Args:
        path: The slide's file.
        levels: By level, its tiles.
        missing_tiles: "error", or "white" for tiles that the file leaves out.
    """

    def __init__(self, path: Path, levels: Mapping[int, LevelT], missing_tiles: str = "error") -> None:
        self.path, self._levels, self._missing_tiles = Path(path), dict(levels), missing_tiles

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def jpeg_scales(self, level: int) -> tuple[int, ...]:
        """Return the factors by which a level can be decoded smaller.

        Args:
            level: The level.

        Returns:
            The factors, (1,) for tiles other than JPEG; () for a level that is not decoded here.
        """
        return (1,)

    @abstractmethod
    def describe_missing(self) -> str:
        """Describe the tiles of level 0 that the file leaves out and that are read all the same.

        Returns:
            A remark; "" if there are none.
        """

    @abstractmethod
    def _decode(self, level: int, row: int, column: int, jpeg_scale: int, buffer: np.ndarray) -> np.ndarray:
        """Decode a tile, uint8 RGB; into a buffer of its size, which is faster than into a new one each time."""

    def holds_cells(self, level: int, box: Box, jpeg_scale: int, cell_px: int) -> bool:
        """Return whether each cell of a box lies within one tile.

        Args:
            level, box, jpeg_scale, cell_px: As in `read`.

        Returns:
            Whether they do, so that `read` can average them.
        """
        return not any(side % (jpeg_scale * cell_px) for side in self._levels[level].tile_px) and not any(
            side % cell_px for side in box
        )

    def read(self, level: int, box: Box, jpeg_scale: int, threads: int = 1, *, cell_px: int = 1) -> np.ndarray:
        """Read a box of a level.

        Args:
            level: The level.
            box: x, y, width, height, px of the level as it is decoded.
            jpeg_scale: One of `jpeg_scales`; the level is decoded at 1/jpeg_scale of its size.
            threads: Threads that decode.
            cell_px: Side of the squares of decoded px whose means are the result; `holds_cells` must be true.

        Returns:
            uint8 RGB (rows, columns, 3), white outside the level.

        Raises:
            SlideError: A tile is broken or missing; names the slide and the tile.
        """
        left, top, width, height = (side // cell_px for side in box)
        out = np.empty((height, width, 3), np.uint8)
        inside = [-(-side // (jpeg_scale * cell_px)) for side in self._levels[level].size_px]
        stop = max(0, min(height, inside[1] - top)), max(0, min(width, inside[0] - left))
        start = min(max(0, -top), stop[0]), min(max(0, -left), stop[1])
        out[: start[0]], out[stop[0] :], out[:, : start[1]], out[:, stop[1] :] = 255, 255, 255, 255
        side = self._levels[level].tile_px[1] // (jpeg_scale * cell_px)
        rows = range((top + start[0]) // side, -(-(top + stop[0]) // side))
        inner = out[start[0] : stop[0], start[1] : stop[1]]
        read_rows = partial(self._read_rows, level, (left + start[1], top + start[0]), jpeg_scale, cell_px, inner)
        if inner.size and threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(read_rows, [rows[i::threads] for i in range(threads)]))
        elif inner.size:
            read_rows(rows)
        return out

    def _read_rows(
        self, level: int, corner: tuple[int, int], jpeg_scale: int, cell_px: int, out: np.ndarray, rows: Iterable[int]
    ) -> None:
        """Read rows of tiles into `out`, whose upper left px is `corner`, in cells of the decoded level."""
        width, height = (side // jpeg_scale for side in self._levels[level].tile_px)
        buffer = tile_buffer(height, width)
        side_x, side_y = width // cell_px, height // cell_px
        columns = range(corner[0] // side_x, -(-(corner[0] + out.shape[1]) // side_x))
        for row, column in product(rows, columns):
            x, y = column * side_x - corner[0], row * side_y - corner[1]
            left, right = max(x, 0), min(x + side_x, out.shape[1])
            top, bottom = max(y, 0), min(y + side_y, out.shape[0])
            tile = self._decode(level, row, column, jpeg_scale, buffer)
            if cell_px > 1:
                tile = self._whiten_outside(level, row, column, jpeg_scale, tile)
            pixels = tile[(top - y) * cell_px : (bottom - y) * cell_px, (left - x) * cell_px : (right - x) * cell_px]
            resample_into(pixels, out[top:bottom, left:right])

    def _whiten_outside(self, level: int, row: int, column: int, jpeg_scale: int, tile: np.ndarray) -> np.ndarray:
        """Return a decoded tile, white outside its level."""
        width, height = (-(-side // jpeg_scale) for side in self._levels[level].size_px)
        inside = height - row * tile.shape[0], width - column * tile.shape[1]
        if inside[0] < tile.shape[0] or inside[1] < tile.shape[1]:
            tile = tile.copy()
            tile[inside[0] :], tile[:, inside[1] :] = 255, 255
        return tile


def describe_position(tile_px: Size, level: int, row: int, column: int) -> str:
    """Describe where a tile lies.

    Args:
        tile_px: (width, height) of the level's tiles, px.
        level, row, column: Of the tile.

    Returns:
        Words for an error.
    """
    return f"level {level} at x={column * tile_px[0]}, y={row * tile_px[1]}"


def tile_buffer(height: int, width: int) -> np.ndarray:
    """Allocate a tile no row of which begins at a multiple of 16 bytes.

    Into rows that do libjpeg-turbo writes past the cache. The next step then waits for memory.

    Args:
        height, width: px; the width is a multiple of 16, as that of a TIFF's tiles is.

    Returns:
        uint8 (height, width, 3).
    """
    memory = np.empty(height * width * 3 + 16, np.uint8)
    start = (8 - memory.ctypes.data) % 16
    return memory[start : start + height * width * 3].reshape(height, width, 3)
