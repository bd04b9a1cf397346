"""Decoding of Zarr's chunks, into no more memory than their array states. The home of imagecodecs for Zarr."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

BLOSC_HEADER_BYTES, CHECKSUM_BYTES = 16, 4
CRC32C_POLYNOMIAL = 0x82F63B78  # reversed
COMPRESSORS = ("blosc", "gzip", "lz4", "zlib", "zstd")


@dataclass(frozen=True)
class Codec:
    """How a chunk is stored.

    Attributes:
        shape: Of a chunk, by the array's axes.
        order: The array's axes in the order in which a chunk stores them, the slowest first.
        compressor: One of COMPRESSORS; "" for none.
        has_checksum: Whether the CRC-32C of a chunk's bytes stands behind them.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    compressor: str = ""
    has_checksum: bool = False

    def decode(self, data: bytes) -> np.ndarray:
        """Decode a chunk.

        Args:
            data: Its bytes.

        Returns:
            uint8, of `shape`.

        Raises:
            ValueError, RuntimeError: The bytes are no chunk of this kind.
        """
        if self.has_checksum:
            data = check_crc32c(data)
        stored = tuple(self.shape[axis] for axis in self.order)
        pixels = np.empty(int(np.prod(stored)), np.uint8)
        if self.compressor == "blosc":
            _check_blosc(data, pixels.size)
        if not self.compressor:
            pixels, size = np.frombuffer(data, np.uint8), len(data)
        else:
            size = len(_decoder(self.compressor)(data, out=pixels))
        if size != int(np.prod(stored)):
            raise ValueError(f"{size} bytes for its {int(np.prod(stored))}")
        return pixels.reshape(stored).transpose(np.argsort(self.order))


def find_order(names: Sequence[Any] | str, n_axes: int) -> tuple[int, ...]:
    """Find the order of axes that a chunk's metadata state.

    Args:
        names: "C" (rows), "F" (columns), or the axes in the order of storage.
        n_axes: Axes of the array.

    Returns:
        The axes in the order of storage.

    Raises:
        ValueError: It is no order of the axes.
    """
    order = tuple({"C": range(n_axes), "F": range(n_axes)[::-1]}[names] if isinstance(names, str) else names)
    if sorted(order) != [*range(n_axes)]:
        raise ValueError(f"axes in the order {order}")
    return order


def check_crc32c(data: bytes) -> bytes:
    """Check the CRC-32C that ends a chunk.

    Args:
        data: The chunk's bytes, checksum included.

    Returns:
        The bytes before it.

    Raises:
        ValueError: They differ from it.
    """
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data[:-CHECKSUM_BYTES]:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    if data[-CHECKSUM_BYTES:] != struct.pack("<I", crc ^ 0xFFFFFFFF):
        raise ValueError("it differs from its checksum")
    return data[:-CHECKSUM_BYTES]


@cache
def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


def _check_blosc(data: bytes, size: int) -> None:
    """Check the sizes that a Blosc header states, by which the codec works."""
    if len(data) < BLOSC_HEADER_BYTES or struct.unpack_from("<I4xI", data, 4) != (size, len(data)):
        raise ValueError(f"no Blosc of {size} bytes")


def _decoder(compressor: str) -> Callable[..., Any]:
    import imagecodecs

    if compressor == "lz4":
        return partial(imagecodecs.lz4_decode, header=True)
    decoder: Callable[..., Any] = getattr(imagecodecs, f"{compressor}_decode")
    return decoder
