"""Tiles of a TIFF decoded straight from the file: the fast way to the pixels of most slides.

OpenSlide decodes the same JPEG tiles with the same libjpeg-turbo, then paints and converts them; what is read here is
equal to the last bit, and a tile that libjpeg only warns of is an error. Tiles of other compressions are decoded by
imagecodecs, none into more memory than its level states. The home of simplejpeg and imagecodecs.
"""

import os
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from slpd_core.wsi import tiff_pictures as tiff
from slpd_core.wsi.errors import COPY_AGAIN, MISSING_TILES, SlideError
from slpd_core.wsi.tiff_pictures import SOI, Level

JPEG_2000_START = b"\xff\x4f\xff\x51"  # how a JPEG 2000 begins
JPEG_SCALES = (1, 2, 4, 8)  # what the inverse cosine transform of a JPEG can leave out
MAX_EXPANSION, MAX_HEADER_BYTES = 2, 1 << 20  # bounds on the bytes of a tile: per byte of pixels, and besides
Box = tuple[int, int, int, int]


def decode_tile(data: bytes, level: Level) -> np.ndarray:
    """Decode a tile of any compression but JPEG, over white where it is transparent: uint8 RGB (rows, columns, 3).

    Raises ValueError or RuntimeError when the data are not those of a tile of the level.
    """
    shape = (level.tile_px[1], level.tile_px[0], level.samples)
    pixels = np.empty(shape, np.uint8)
    if level.compression in tiff.UNCOMPRESSED:
        pixels = np.frombuffer(data, np.uint8).reshape(shape)
    elif codec := _picture_codec(level.compression, level.samples):
        if level.compression in tiff.JPEG_2000:
            check_jpeg_2000(data, level.tile_px)
        pixels = codec(data, out=pixels)
    else:
        size = len(_stream_codec(level.compression)(data, out=pixels.reshape(-1)))
        if size != pixels.size:
            raise ValueError(f"{size} of its {pixels.size} bytes are there")
    if level.has_predictor:
        pixels = np.cumsum(pixels, axis=1, dtype=np.uint8)
    return _over_white(pixels, level.is_premultiplied) if level.samples == 4 else pixels


def check_jpeg_2000(data: bytes, size_px: tuple[int, int]) -> None:
    """Raise ValueError where a JPEG 2000 stream states another size than a tile's: it would be decoded all the same.

    data: a codestream, or a file of boxes around one. size_px: (width, height) of the tile.
    """
    at = 0
    while data[at : at + 4] != JPEG_2000_START and len(data) >= at + 8:
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        at += 8 if kind == b"jp2c" else max(length, 8)
    if len(data) < at + 24 or data[at : at + 4] != JPEG_2000_START:
        raise ValueError("no JPEG 2000 begins there")
    right, bottom, left, top = struct.unpack(">4I", data[at + 8 : at + 24])
    if (right - left, bottom - top) != size_px:
        raise ValueError(f"a tile of {right - left} x {bottom - top} px")


def _picture_codec(compression: int, samples: int) -> Callable[..., np.ndarray] | None:
    """The decoder of a compression whose streams state a size; it refuses one that is not that of `out`."""
    import imagecodecs

    if compression in tiff.JPEG_2000:
        return imagecodecs.jpeg2k_decode
    if compression in tiff.WEBP:
        return partial(imagecodecs.webp_decode, hasalpha=samples == 4)  # opaque tiles of four samples hold three
    return imagecodecs.jpegxl_decode if compression in tiff.JPEG_XL else None


def _stream_codec(compression: int) -> Callable[..., Any]:
    """The decoder of a compression of plain bytes; it returns as much of `out` as there is."""
    import imagecodecs

    if compression in tiff.DEFLATE:
        return imagecodecs.zlib_decode
    if compression in tiff.ZSTD:
        return imagecodecs.zstd_decode
    return imagecodecs.packbits_decode if compression in tiff.PACKBITS else imagecodecs.lzw_decode


def _over_white(pixels: np.ndarray, premultiplied: bool) -> np.ndarray:
    """RGBA, uint8 (rows, columns, 4), as it looks on white."""
    colors, opacity = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    if not premultiplied:
        colors = (colors * opacity + 127) // 255
    return np.minimum(colors + 255 - opacity, 255).astype(np.uint8)


class TiffTiles:
    """The levels of a slide whose tiles can be decoded; may be read from several threads at once.

    levels: by their number. missing_tiles: "error", or "white" for what a tile that the file leaves out shows.
    """

    def __init__(self, path: Path, levels: Mapping[int, Level], missing_tiles: str = "error") -> None:
        self.path, self._levels, self._missing_tiles = Path(path), dict(levels), missing_tiles
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def jpeg_scales(self, number: int) -> tuple[int, ...]:
        """The factors a level can be decoded at, () where it is none of these."""
        level = self._levels.get(number)
        if level is None:
            return ()
        if level.compression != tiff.JPEG:
            return (1,)
        return tuple(shrink for shrink in JPEG_SCALES if not any(side % shrink for side in level.tile_px))

    def count_missing(self) -> tuple[int, int]:
        """How many tiles of level 0 the file leaves out, and how many there are."""
        lengths = self._levels[0].lengths
        return int((lengths == 0).sum()), lengths.size

    def read(self, number: int, box: Box, shrink: int, threads: int = 1) -> np.ndarray:
        """Pixels of a box of a level, uint8 RGB (rows, columns, 3), white outside the level.

        box: x, y, width, height in px of the shrunk level. shrink: one of `shrinks`; the sides of the level divided by
        it. Raises SlideError naming the slide and the tile that is broken or missing.
        """
        level, (left, top, width, height) = self._levels[number], box
        out = np.empty((height, width, 3), np.uint8)
        inside = [-(-side // shrink) for side in level.size_px]
        stop = max(0, min(height, inside[1] - top)), max(0, min(width, inside[0] - left))
        start = min(max(0, -top), stop[0]), min(max(0, -left), stop[1])
        out[: start[0]], out[stop[0] :], out[:, : start[1]], out[:, stop[1] :] = 255, 255, 255, 255
        side = level.tile_px[1] // shrink
        rows = range((top + start[0]) // side, -(-(top + stop[0]) // side))
        inner = out[start[0] : stop[0], start[1] : stop[1]]
        decode = partial(self._decode_row, number, (left + start[1], top + start[0]), shrink, inner)
        if inner.size and threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(decode, rows))
        elif inner.size:
            for row in rows:
                decode(row)
        return out

    def _decode_row(self, number: int, corner: tuple[int, int], shrink: int, out: np.ndarray, row: int) -> None:
        """Decode the tiles of a row into `out`, whose upper left px is `corner` of the shrunk level."""
        tile_px = self._levels[number].tile_px
        side_x, side_y = tile_px[0] // shrink, tile_px[1] // shrink
        top, bottom = (min(max(row * side_y + add - corner[1], 0), len(out)) for add in (0, side_y))
        above = corner[1] + top - row * side_y
        buffer = np.empty((side_y, side_x, 3), np.uint8)
        for column in range(corner[0] // side_x, -(-(corner[0] + out.shape[1]) // side_x)):
            left, right = (min(max(column * side_x + add - corner[0], 0), out.shape[1]) for add in (0, side_x))
            before = corner[0] + left - column * side_x
            tile = self._decode(number, row, column, shrink, buffer)
            out[top:bottom, left:right] = tile[above : above + bottom - top, before : before + right - left]

    def _decode(self, number: int, row: int, column: int, shrink: int, buffer: np.ndarray) -> np.ndarray:
        """Decode a tile into a buffer of its size: faster than into a new one for each."""
        level = self._levels[number]
        place = f"level {number} at x={column * level.tile_px[0]}, y={row * level.tile_px[1]}"
        offset, length = int(level.offsets[row, column]), int(level.lengths[row, column])
        if not length and self._missing_tiles == "white":
            buffer[:] = 255
            return buffer
        if not length:
            raise SlideError(f"{self.path}: missing tile of {place}; {MISSING_TILES}")
        try:
            data = self._bytes(offset, length, MAX_EXPANSION * level.tile_px[0] * level.tile_px[1] * level.samples)
            if level.compression != tiff.JPEG:
                return decode_tile(data, level)
            if not data.startswith(SOI):
                raise ValueError("no JPEG begins there")
            smaller = {"min_height": buffer.shape[0], "min_width": buffer.shape[1], "min_factor": shrink}
            stream = level.prefix + data[len(SOI) :]
            tile = simplejpeg.decode_jpeg(stream, buffer=buffer, **(smaller if shrink > 1 else {}))
            if tile.shape != buffer.shape:
                raise ValueError(f"a tile of {tile.shape[1]} x {tile.shape[0]} px")
        except (ValueError, RuntimeError) as error:
            raise SlideError(f"{self.path}: broken tile of {place} ({error}); {COPY_AGAIN}") from error
        return tile

    def _bytes(self, offset: int, length: int, most: int) -> bytes:
        """A tile's bytes; ValueError when they are not there, or more than `most` and a constant."""
        if length > most + MAX_HEADER_BYTES:
            raise ValueError(f"states {length} bytes")
        there = max(0, min(length, os.fstat(self._file).st_size - offset))
        if there < length:
            raise ValueError(f"{there} of its {length} bytes are there")
        return os.pread(self._file, length, offset)
