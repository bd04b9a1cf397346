"""Checksums: a file says which bytes it holds, and long arrays say so row by row, so that a slice is checked by itself.

The hash is xxh3 (github.com/Cyan4973/xxHash), at more than 10 GB/s faster than any disk. It is against chance, as a
flipped bit, not against malice.
"""

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from slpd_core.artifacts.files import atomic_write, broken
from slpd_core.artifacts.reading import open_file
from slpd_core.artifacts.schema import Meta

MARK, DIGITS, PIECE = b"xxh3-128:", 32, 1 << 18
UNSEALED = MARK.decode() + "0" * DIGITS  # stands in a file's metadata until it is sealed


def find_name(path: Path) -> str:
    """Return an artifact's path within its cohort's results, as `embed/slpd.parquet`; empty for a file elsewhere."""
    within = re.match(r"(?:.*/)?results/[^/]+/([^/]+/.+)", Path(path).as_posix())
    return within[1] if within else ""


def check_name(path: Path, name: str) -> None:
    """Raise ValueError where a file was written as another artifact than the one in whose place it is.

    Args:
        path: where it is; elsewhere than in results it may have any name.
        name: what `find_name` returned for the path it was written to.
    """
    if name and find_name(path) not in ("", name):
        raise ValueError(broken(path, f"was written as {name}, and is in another's place; put each back where it was"))


def stamp(path: Path) -> Meta:
    """Return what an artifact's metadata says of itself: which one it is, and the place of its checksum."""
    return {"artifact": find_name(path), "checksum": UNSEALED}


def unstamp(path: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Return metadata without what `stamp` added; raises ValueError where the file is in another's place."""
    check_name(path, meta.get("artifact", ""))
    return {key: value for key, value in meta.items() if key not in ("artifact", "checksum")}


def seal(path: Path, data: bytes) -> tuple[int, bytes]:
    """Compute the checksum of a file's bytes, which say UNSEALED once.

    Args:
        path: of the file, for the error.
        data: its bytes.

    Returns:
        Where in the bytes the checksum's 32 hex digits go, and the digits.

    Raises:
        ValueError: Where the mark of a checksum stands there twice, or not at all.
    """
    if data.count(MARK) != 1:
        raise ValueError(f"{path}: holds the text {MARK.decode()!r}, which marks its checksum, twice or not at all")
    start = data.index(MARK) + len(MARK)
    return start, _checksum(io.BytesIO(data), start)


def _checksum(file: io.BufferedIOBase, start: int, out: memoryview | None = None) -> bytes:
    """The checksum of a file's bytes but those where it stands itself, from `start` on; they are read into `out`."""
    digest, view, position = xxhash.xxh3_128(), memoryview(bytearray(PIECE)), 0
    file.seek(0)
    while read := file.readinto(view := view if out is None else out[position : position + PIECE]):
        before, after = (min(max(0, offset - position), read) for offset in (start, start + DIGITS))
        digest.update(view[:before])
        digest.update(view[after:read])
        position += read
    return digest.hexdigest().encode()


def check_seal(path: Path, file: io.BufferedIOBase, out: memoryview | None = None) -> None:
    """Raise ValueError naming the file whose bytes are not those that were sealed; out: where to read them, if kept."""
    damage = find_damage(file, out)
    if damage:
        raise ValueError(broken(path, damage))


def read_sealed(path: Path) -> np.ndarray:
    """Read a file whole, its checksum computed while it is read.

    Args:
        path: of a file that `write_sealed` wrote.

    Returns:
        Its bytes, uint8 (n,).

    Raises:
        ValueError: Where they are not those that were sealed.
    """
    with open_file(path) as file:
        data = np.empty(file.seek(0, os.SEEK_END), np.uint8)
        check_seal(path, file, data.data)
    return data


def find_damage(file: io.BufferedIOBase, out: memoryview | None = None) -> str:
    """Say what is wrong with a file's checksum; empty where its bytes, read into `out`, are those that were sealed."""
    for offset in (0, max(0, file.seek(0, os.SEEK_END) - PIECE)):  # metadata come first or last
        file.seek(offset)
        piece = file.read(PIECE)
        if MARK in piece:
            start = offset + piece.index(MARK) + len(MARK)
            file.seek(start)
            same = file.read(DIGITS) == _checksum(file, start, out)
            return "" if same else "damaged, its bytes are not those that its checksum is of"
    return "damaged, of an earlier version or from elsewhere: it carries no checksum"


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file whole, with its checksum where its bytes say UNSEALED."""
    start, digits = seal(path, data)
    with atomic_write(path) as part:
        part.write_bytes(data[:start] + digits + data[start + DIGITS :])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write values of JSON, with their checksum and the file's name."""
    write_sealed(path, json.dumps(content | stamp(path)).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        ValueError: Where it is damaged, or in another's place.
    """
    return unstamp(path, json.loads(read_sealed(path).tobytes()))


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """Hash each row of an array, C-contiguous (n, ...), by itself: uint64 (n,)."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(rows))


class RowWriter:
    """Rows of an array in a file, written by `writer[i] = row` or `writer[i:j] = rows`; `checksums` are of all rows."""

    def __init__(self, array: Any) -> None:
        self._array = array
        never_written = row_checksums(np.zeros((1, *array.shape[1:]), array.dtype))
        self.checksums = np.repeat(never_written, len(array))

    def __setitem__(self, rows: int | slice, values: Any) -> None:
        wanted = self.checksums[rows]
        block = np.empty((*wanted.shape, *self._array.shape[1:]), self._array.dtype)
        block[...] = values
        self._array[rows] = block
        self.checksums[rows] = row_checksums(block.reshape(-1, *block.shape[wanted.ndim :])).reshape(wanted.shape)


class CheckedRows:
    """Rows of an array in a file, each checked when it is read: `rows[i]`, `rows[i:j]` and `rows[()]` for all.

    array: HDF5 dataset or numpy array (n, ...). checksums: uint64 (n,), as `row_checksums` computes. Reading raises
    ValueError naming the file and the first row that is damaged.
    """

    def __init__(self, path: Path, name: str, array: Any, checksums: np.ndarray) -> None:
        self._path, self._name, self._array, self._checksums = path, name, array, checksums
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.size, self.nbytes = array.size, array.nbytes

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: int | slice | tuple[()]) -> np.ndarray:
        block = np.asarray(self._array[rows])
        self._check(block, rows)
        return block

    def read_direct(self, out: np.ndarray) -> None:
        """Read all rows into a C-contiguous array of the same shape and dtype."""
        self._array.read_direct(out)
        self._check(out, ())

    def _check(self, block: np.ndarray, rows: int | slice | tuple[()]) -> None:
        wanted = np.atleast_1d(self._checksums[rows])
        differs = row_checksums(block.reshape(len(wanted), *self.shape[1:])) != wanted
        if differs.any():
            row = np.atleast_1d(np.arange(len(self))[rows])[differs.argmax()]
            raise ValueError(broken(self._path, f"damaged, {self._name} {row} is not what its checksum is of"))
