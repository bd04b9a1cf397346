"""Levels of a TIFF: where their tiles lie in the file and how they are compressed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from slpd_core.wsi.errors import COPY_AGAIN, SlideError
from slpd_core.wsi.levels import Size

# TIFF's numbers of compressions, photometric interpretations, planar configurations and extra samples.
JPEG = 7
UNCOMPRESSED, LZW, PACKBITS, DEFLATE, ZSTD = (1,), (5,), (32773,), (8, 32946), (50000, 34926)
JPEG_2000, WEBP, JPEG_XL = (33004, 33005, 34712), (50001, 34927), (50002, 52546)
RGB_COMPRESSIONS = UNCOMPRESSED + LZW + PACKBITS + DEFLATE + ZSTD + JPEG_2000 + WEBP + JPEG_XL
GRAY, RGB, YCBCR = (0, 1), 2, 6
CONTIGUOUS = 1
UNASSOCIATED_ALPHA = 2  # colors are not multiplied by the opacity
SOI, EOI = b"\xff\xd8", b"\xff\xd9"  # JPEG's start and end of image


@dataclass(frozen=True)
class Level:
    """Tiles of a pyramid level.

    Attributes:
        size_px: (width, height) of the level, px.
        tile_px: (width, height) of a tile, px.
        offsets: Position of each tile in the file, int64 (rows, columns), bytes.
        lengths: Bytes of each tile, int64 (rows, columns); 0 if the file leaves it out.
        compression: TIFF's number.
        prefix: Of JPEG tiles, the bytes that replace a tile's first two: its color space and the level's tables.
        samples: 3, or 4 with opacity.
        is_premultiplied: Whether colors are multiplied by the opacity.
        has_predictor: Whether a px holds its difference from the one before.
    """

    size_px: Size
    tile_px: Size
    offsets: np.ndarray
    lengths: np.ndarray
    compression: int = JPEG
    prefix: bytes = b""
    samples: int = 3
    is_premultiplied: bool = False
    has_predictor: bool = False


def adobe_segment(*, is_ycbcr: bool) -> bytes:
    """Build the JPEG segment that states the color space of a tile, which tiles themselves do not.

    Args:
        is_ycbcr: Whether the three components are YCbCr; otherwise RGB.

    Returns:
        The segment's bytes.
    """
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([is_ycbcr])


def find_level(page: Any, path: Path) -> Level | None:
    """Find the tiles of a page.

    Args:
        page: A tiled page, as tifffile reads it.
        path: The slide's file, for messages.

    Returns:
        The level; None if its tiles are not 8-bit RGB, or of a compression that is not decoded.

    Raises:
        SlideError: The directory lists another number of tiles than the page has.
    """
    layout = page.bitspersample, page.planarconfig, page.fillorder, page.sampleformat
    if layout != (8, CONTIGUOUS, 1, 1) or page.samplesperpixel not in (3, 4):
        return None
    is_jpeg = page.compression == JPEG and page.photometric in (RGB, YCBCR) and page.samplesperpixel == 3
    is_rgb = page.compression in RGB_COMPRESSIONS and page.photometric == RGB and page.predictor in (1, 2)
    if not is_jpeg and not is_rgb:
        return None
    shape = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
    if not len(page.dataoffsets) == len(page.databytecounts) == shape[0] * shape[1]:
        raise SlideError(
            f"{path}: broken directory, {len(page.dataoffsets)} tiles listed for {shape[1]} x {shape[0]} of them; "
            f"{COPY_AGAIN}"
        )
    tables = (page.jpegtables or SOI + EOI).removeprefix(SOI).removesuffix(EOI)
    return Level(
        page_size(page),
        (page.tilewidth, page.tilelength),
        np.array(page.dataoffsets, np.int64).reshape(shape),
        np.array(page.databytecounts, np.int64).reshape(shape),
        int(page.compression),
        SOI + adobe_segment(is_ycbcr=page.photometric == YCBCR) + tables if is_jpeg else b"",
        page.samplesperpixel,
        page.samplesperpixel == 4 and page.extrasamples[:1] != (UNASSOCIATED_ALPHA,),
        page.predictor == 2,
    )


def find_levels(path: Path, sizes: Sequence[Size]) -> list[Level | None]:
    """Find the first tiled page of each size, if it holds JPEG or RGB JPEG 2000 tiles.

    Args:
        path: The slide's file.
        sizes: (width, height) of each level, px.

    Returns:
        A level per size; None if its tiles are of other kinds or some are missing. Aperio leaves out tiles that are as
        in the finer level, which OpenSlide draws.
    """
    with tifffile.TiffFile(path) as file:
        pages = {page_size(page): page for page in reversed(tiled_pages(file.pages))}
        levels = [find_level(pages[size], path) if size in pages else None for size in sizes]
    decoded = (JPEG, *JPEG_2000)
    return [level if level and level.compression in decoded and level.lengths.all() else None for level in levels]


def tiled_pages(pages: Iterable[Any]) -> list[tifffile.TiffPage]:
    """Select the pages whose pixels lie in tiles.

    Args:
        pages: Pages, as tifffile reads them.

    Returns:
        The tiled ones, in order.
    """
    return [page for page in pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]


def page_size(page: tifffile.TiffPage) -> Size:
    """Return the size of a page.

    Args:
        page: A page, as tifffile reads it.

    Returns:
        (width, height), px.
    """
    return page.imagewidth, page.imagelength
