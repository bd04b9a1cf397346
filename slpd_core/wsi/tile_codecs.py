"""Decoding of TIFF tiles other than JPEG, into no more memory than their level states. The home of imagecodecs."""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from slpd_core.wsi import tiff_levels as tiff
from slpd_core.wsi.levels import Size
from slpd_core.wsi.tiff_levels import Level

JPEG_2000_START = b"\xff\x4f\xff\x51"  # of a codestream


def decode_tile(data: bytes, level: Level) -> np.ndarray:
    """Decode a tile, over white where it is transparent.

    Args:
        data: The tile's bytes.
        level: Its level.

    Returns:
        uint8 RGB (rows, columns, 3).

    Raises:
        ValueError, RuntimeError: The bytes are no tile of the level.
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
    return _over_white(pixels, is_premultiplied=level.is_premultiplied) if level.samples == 4 else pixels


def check_jpeg_2000(data: bytes, size_px: Size) -> None:
    """Check the size that a JPEG 2000 tile states, by which its codec allocates memory.

    Args:
        data: A codestream, or a file of boxes around one.
        size_px: (width, height) of the tile.

    Raises:
        ValueError: It states another size, or is no JPEG 2000.
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
    """Decoder of a compression whose streams state a size; it refuses a size other than that of `out`."""
    import imagecodecs

    if compression in tiff.JPEG_2000:
        return imagecodecs.jpeg2k_decode
    if compression in tiff.WEBP:
        return partial(imagecodecs.webp_decode, hasalpha=samples == 4)  # opaque tiles of four samples hold three
    return imagecodecs.jpegxl_decode if compression in tiff.JPEG_XL else None


def _stream_codec(compression: int) -> Callable[..., Any]:
    """Decoder of a compression of plain bytes; it returns as much of `out` as it fills."""
    import imagecodecs

    if compression in tiff.DEFLATE:
        return imagecodecs.zlib_decode
    if compression in tiff.ZSTD:
        return imagecodecs.zstd_decode
    return imagecodecs.packbits_decode if compression in tiff.PACKBITS else imagecodecs.lzw_decode


def _over_white(pixels: np.ndarray, *, is_premultiplied: bool) -> np.ndarray:
    """Composite RGBA, uint8 (rows, columns, 4), over white."""
    colors, opacity = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    if not is_premultiplied:
        colors = (colors * opacity + 127) // 255
    composite: np.ndarray = np.minimum(colors + 255 - opacity, 255)
    return composite.astype(np.uint8)
