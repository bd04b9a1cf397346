"""Tiles of a TIFF, decoded straight from the file: fast, for most slides. The home of simplejpeg.

OpenSlide decodes the same JPEG tiles with the same libjpeg-turbo, then paints and converts them. The pixels are equal
to the last bit, and a tile that libjpeg only warns of is an error.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, SlideError
from slpd_core.wsi.tiff_levels import JPEG, SOI, Level
from slpd_core.wsi.tile_codecs import decode_tile

JPEG_SCALES = (1, 2, 4, 8)  # by which libjpeg can decode smaller
MAX_EXPANSION, MAX_HEADER_BYTES = 2, 1 << 20  # bounds on the bytes of a tile: per byte of pixels, and besides
Box = tuple[int, int, int, int]


class TiffTiles:
    """The levels of a slide whose tiles can be decoded; may be read from several threads at once.

    Args:
        path: The slide's file.
        levels: By level, its tiles.
        missing_tiles: "error", or "white" for tiles that the file leaves out.
    """

    def __init__(self, path: Path, levels: Mapping[int, Level], missing_tiles: str = "error") -> None:
        self.path, self._levels, self._missing_tiles = Path(path), dict(levels), missing_tiles
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def jpeg_scales(self, level: int) -> tuple[int, ...]:
        """Return the factors by which a level can be decoded smaller.

        Args:
            level: The level.

        Returns:
            The factors, (1,) for tiles other than JPEG; () for a level that is not decoded here.
        """
        tiles = self._levels.get(level)
        if tiles is None:
            return ()
        if tiles.compression != JPEG:
            return (1,)
        return tuple(scale for scale in JPEG_SCALES if not any(side % scale for side in tiles.tile_px))

    def count_missing(self) -> tuple[int, int]:
        """Count the tiles of level 0.

        Returns:
            Those that the file leaves out, and all.
        """
        lengths = self._levels[0].lengths
        return int((lengths == 0).sum()), lengths.size

    def read(self, level: int, box: Box, jpeg_scale: int, threads: int = 1) -> np.ndarray:
        """Read a box of a level.

        Args:
            level: The level.
            box: x, y, width, height, px of the level as it is decoded.
            jpeg_scale: One of `jpeg_scales`; the level is decoded at 1/jpeg_scale of its size.
            threads: Threads that decode.

        Returns:
            uint8 RGB (rows, columns, 3), white outside the level.

        Raises:
            SlideError: A tile is broken or missing; names the slide and the tile.
        """
        left, top, width, height = box
        out = np.empty((height, width, 3), np.uint8)
        inside = [-(-side // jpeg_scale) for side in self._levels[level].size_px]
        stop = max(0, min(height, inside[1] - top)), max(0, min(width, inside[0] - left))
        start = min(max(0, -top), stop[0]), min(max(0, -left), stop[1])
        out[: start[0]], out[stop[0] :], out[:, : start[1]], out[:, stop[1] :] = 255, 255, 255, 255
        side = self._levels[level].tile_px[1] // jpeg_scale
        rows = range((top + start[0]) // side, -(-(top + stop[0]) // side))
        inner = out[start[0] : stop[0], start[1] : stop[1]]
        decode = partial(self._decode_row, level, (left + start[1], top + start[0]), jpeg_scale, inner)
        if inner.size and threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(decode, rows))
        elif inner.size:
            for row in rows:
                decode(row)
        return out

    def _decode_row(self, level: int, corner: tuple[int, int], jpeg_scale: int, out: np.ndarray, row: int) -> None:
        """Decode the tiles of a row into `out`, whose upper left px is `corner` of the decoded level."""
        tile_px = self._levels[level].tile_px
        side_x, side_y = tile_px[0] // jpeg_scale, tile_px[1] // jpeg_scale
        top, bottom = (min(max(row * side_y + add - corner[1], 0), len(out)) for add in (0, side_y))
        above = corner[1] + top - row * side_y
        buffer = np.empty((side_y, side_x, 3), np.uint8)
        for column in range(corner[0] // side_x, -(-(corner[0] + out.shape[1]) // side_x)):
            left, right = (min(max(column * side_x + add - corner[0], 0), out.shape[1]) for add in (0, side_x))
            before = corner[0] + left - column * side_x
            tile = self._decode(level, row, column, jpeg_scale, buffer)
            out[top:bottom, left:right] = tile[above : above + bottom - top, before : before + right - left]

    def _decode(self, level: int, row: int, column: int, jpeg_scale: int, buffer: np.ndarray) -> np.ndarray:
        """Decode a tile into a buffer of its size, which is faster than into a new one each time."""
        tiles = self._levels[level]
        position = f"level {level} at x={column * tiles.tile_px[0]}, y={row * tiles.tile_px[1]}"
        offset, length = int(tiles.offsets[row, column]), int(tiles.lengths[row, column])
        if not length and self._missing_tiles == "white":
            buffer[:] = 255
            return buffer
        if not length:
            raise SlideError(f"{self.path}: missing tile of {position}; {MISSING_TILES}")
        try:
            data = self._read_bytes(offset, length, MAX_EXPANSION * tiles.tile_px[0] * tiles.tile_px[1] * tiles.samples)
            if tiles.compression != JPEG:
                return decode_tile(data, tiles)
            if not data.startswith(SOI):
                raise ValueError("no JPEG begins there")
            smaller = {"min_height": buffer.shape[0], "min_width": buffer.shape[1], "min_factor": jpeg_scale}
            stream = tiles.prefix + data[len(SOI) :]
            tile: np.ndarray = simplejpeg.decode_jpeg(stream, buffer=buffer, **(smaller if jpeg_scale > 1 else {}))
            if tile.shape != buffer.shape:
                raise ValueError(f"a tile of {tile.shape[1]} x {tile.shape[0]} px")
        except (ValueError, RuntimeError) as error:
            raise SlideError(f"{self.path}: broken tile of {position} ({error}); {COPY_AGAIN}") from error
        return tile

    def _read_bytes(self, offset: int, length: int, max_bytes: int) -> bytes:
        """Read a tile's bytes; ValueError if the file ends before, or they are more than `max_bytes` and headers."""
        if length > max_bytes + MAX_HEADER_BYTES:
            raise ValueError(f"states {length} bytes")
        available = max(0, min(length, os.fstat(self._file).st_size - offset))
        if available < length:
            raise ValueError(f"{available} of its {length} bytes are there")
        return os.pread(self._file, length, offset)
