"""JPEG tiles of a TIFF decoded straight from the file: the fast way to the pixels of most slides.

OpenSlide decodes the same tiles with the same libjpeg-turbo, then paints and converts them; what is read here is equal
to the last bit, and a tile that libjpeg only warns of is an error. The home of tifffile and simplejpeg.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile

from slpd_core.slides.bad_slides import SlideError

JPEG, RGB, YCBCR, CONTIGUOUS = 7, 2, 6, 1  # TIFF's numbers: compression, photometric interpretations, planes
SHRINKS = (1, 2, 4, 8)  # what the inverse cosine transform of a JPEG can leave out
START, END = b"\xff\xd8", b"\xff\xd9"
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Level:
    """Where the tiles of a pyramid level lie.

    size_px: (width, height) of the level; tile_px: of a tile. offsets, lengths: int64 (rows, columns), bytes of the
    file. prefix: what stands in place of a tile's own first two bytes: its colour space and the level's tables.
    """

    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    offsets: np.ndarray
    lengths: np.ndarray
    prefix: bytes


def adobe_segment(transform: bool) -> bytes:
    """The JPEG segment that says whether the three components are YCbCr (transform) or RGB, which tiles leave open."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def find_level(pages: Iterable[Any], size_px: tuple[int, int], path: Path) -> Level | None:
    """The first tiled page of that size as a level; None where it is not made of 8-bit RGB JPEG tiles, all there.

    Raises SlideError when its directory does not list as many tiles as it has.
    """
    same = (page for page in pages if isinstance(page, tifffile.TiffPage) and page.is_tiled)
    page = next((page for page in same if (page.imagewidth, page.imagelength) == size_px), None)
    if page is None or (page.compression, page.samplesperpixel, page.bitspersample) != (JPEG, 3, 8):
        return None
    if page.photometric not in (RGB, YCBCR) or page.planarconfig != CONTIGUOUS:
        return None
    shape = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    if not len(page.dataoffsets) == len(page.databytecounts) == shape[0] * shape[1]:
        raise SlideError(
            f"{path}: broken directory, {len(page.dataoffsets)} tiles listed for {shape[1]} x {shape[0]} of them; "
            "copy it again or leave it out"
        )
    if not all(page.databytecounts):  # Aperio's way to say: as in the finer level, which OpenSlide draws
        return None
    tables = (page.jpegtables or START + END).removeprefix(START).removesuffix(END)
    return Level(
        size_px,
        (page.tilewidth, page.tilelength),
        np.array(page.dataoffsets, np.int64).reshape(shape),
        np.array(page.databytecounts, np.int64).reshape(shape),
        START + adobe_segment(page.photometric == YCBCR) + tables,
    )


def subifd_sizes(path: Path) -> list[tuple[int, int]]:
    """(width, height) of the levels below a TIFF's first page, where an OME-TIFF keeps its pyramid; finest first.

    [] where one is not of 8-bit RGB tiles, channels together, or shows another part of the slide.
    """
    with tifffile.TiffFile(path) as file:
        first = file.pages.first
        pages = [page for page in first.pages or () if isinstance(page, tifffile.TiffPage)]
    for page in pages:
        kind = page.is_tiled, page.samplesperpixel, page.bitspersample, page.planarconfig
        rows = first.imagelength * page.imagewidth / first.imagewidth
        if kind != (True, 3, 8, CONTIGUOUS) or abs(rows - page.imagelength) > 1:
            return []
    return [(page.imagewidth, page.imagelength) for page in pages]


class JpegTiles:
    """The levels of a slide that consist of JPEG tiles; may be read from several threads at once.

    sizes: (width, height) of the slide's levels; below: of those an OME-TIFF keeps below its first page, numbered on.
    """

    def __init__(self, path: Path, sizes: Sequence[tuple[int, int]], below: Sequence[tuple[int, int]] = ()) -> None:
        self.path = Path(path)
        with tifffile.TiffFile(path) as file:
            found = [find_level(file.pages, size, self.path) for size in sizes]
            found += [find_level(file.pages.first.pages or (), size, self.path) for size in below]
        self._levels = {number: level for number, level in enumerate(found) if level}
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def shrinks(self, level: int) -> tuple[int, ...]:
        """The factors a level can be decoded at, () where it is not made of JPEG tiles."""
        if level not in self._levels:
            return ()
        return tuple(shrink for shrink in SHRINKS if not any(side % shrink for side in self._levels[level].tile_px))

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
        smaller = {"min_height": buffer.shape[0], "min_width": buffer.shape[1], "min_factor": shrink}
        try:
            stream = level.prefix + self._stream(int(level.offsets[row, column]), int(level.lengths[row, column]))
            tile = simplejpeg.decode_jpeg(stream, buffer=buffer, **(smaller if shrink > 1 else {}))
            if tile.shape != buffer.shape:
                raise ValueError(f"a tile of {tile.shape[1]} x {tile.shape[0]} px")
        except ValueError as error:
            x, y = column * level.tile_px[0], row * level.tile_px[1]
            raise SlideError(
                f"{self.path}: broken tile of level {number} at x={x}, y={y} ({error}); copy it again or leave it out"
            ) from error
        return tile

    def _stream(self, offset: int, length: int) -> bytes:
        """A tile's JPEG stream without its first two bytes; ValueError when it is not there, or no JPEG."""
        there = max(0, min(length, os.fstat(self._file).st_size - offset))
        if there < max(length, len(START)):
            raise ValueError(f"{there} of its {length} bytes are there")
        data = os.pread(self._file, length, offset)
        if not data.startswith(START):
            raise ValueError("no JPEG begins there")
        return data[len(START) :]
