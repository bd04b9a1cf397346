"""Tiles of a TIFF, decoded straight from the file: fast, for most slides. The home of simplejpeg.

OpenSlide decodes the same JPEG tiles with the same libjpeg-turbo, then paints and converts them. The pixels are equal
to the last bit, and a tile that libjpeg only warns of is an error. Threads share nothing but the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import simplejpeg

from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, SlideError
from slpd_core.wsi.tiff_levels import JPEG, SOI, Level
from slpd_core.wsi.tile_codecs import decode_tile
from slpd_core.wsi.tile_reader import TileReader, describe_position

JPEG_SCALES = (1, 2, 4, 8)  # by which libjpeg can decode smaller
MAX_EXPANSION, MAX_HEADER_BYTES = 2, 1 << 20  # bounds on the bytes of a tile: per byte of pixels, and besides


class TiffTiles(TileReader[Level]):
    """The levels of a TIFF whose tiles can be decoded; may be read from several threads at once.

    Args:
        path: The slide's file.
        levels: By level, its tiles.
        missing_tiles: "error", or "white" for tiles that the file leaves out.
    """

    def __init__(self, path: Path, levels: Mapping[int, Level], missing_tiles: str = "error") -> None:
        super().__init__(path, levels, missing_tiles)
        self._file = os.open(path, os.O_RDONLY)
        self._file_bytes = os.fstat(self._file).st_size

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

    def describe_missing(self) -> str:
        """Describe the tiles of level 0 that the file leaves out and that are read as white.

        Returns:
            A remark; "" if there are none.
        """
        lengths = self._levels[0].lengths
        missing = int((lengths == 0).sum())
        if not missing or self._missing_tiles == "error":
            return ""
        return f"{missing} of the {lengths.size} tiles of level 0 are missing and read as white (tissue.missing_tiles)."

    def _decode(self, level: int, row: int, column: int, jpeg_scale: int, buffer: np.ndarray) -> np.ndarray:
        """Decode a tile into a buffer of its size, which is faster than into a new one each time."""
        tiles = self._levels[level]
        offset, length = int(tiles.offsets[row, column]), int(tiles.lengths[row, column])
        if not length and self._missing_tiles == "white":
            buffer[:] = 255
            return buffer
        if not length:
            raise SlideError(
                f"{self.path}: missing tile of {describe_position(tiles.tile_px, level, row, column)}; {MISSING_TILES}"
            )
        try:
            data = self._read_bytes(offset, length, MAX_EXPANSION * tiles.tile_px[0] * tiles.tile_px[1] * tiles.samples)
            if tiles.compression != JPEG:
                return decode_tile(data, tiles)
            if not data.startswith(SOI):
                raise ValueError("no JPEG begins there")
            height, width, _ = buffer.shape
            smaller = {"min_height": height, "min_width": width, "min_factor": jpeg_scale} if jpeg_scale > 1 else {}
            tile: np.ndarray = simplejpeg.decode_jpeg(tiles.prefix + data[len(SOI) :], buffer=buffer, **smaller)
            if tile.shape != buffer.shape:
                raise ValueError(f"a tile of {tile.shape[1]} x {tile.shape[0]} px")
        except (ValueError, RuntimeError) as error:
            position = describe_position(tiles.tile_px, level, row, column)
            raise SlideError(f"{self.path}: broken tile of {position} ({error}); {COPY_AGAIN}") from error
        return tile

    def _read_bytes(self, offset: int, length: int, max_bytes: int) -> bytes:
        """Read a tile's bytes; ValueError if the file ends before, or they are more than `max_bytes` and headers."""
        if length > max_bytes + MAX_HEADER_BYTES:
            raise ValueError(f"states {length} bytes")
        data = os.pread(self._file, max(0, min(length, self._file_bytes - offset)), offset)
        if len(data) < length:
            raise ValueError(f"{len(data)} of its {length} bytes are there")
        return data
