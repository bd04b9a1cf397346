"""Rows of long arrays in files, each with a checksum, so that a slice can be checked without the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from slpd_core.artifacts.files import broken


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """Hash each row of an array.

    Args:
        rows: C-contiguous array (n, ...).

    Returns:
        xxh3 of each row, uint64 (n,).
    """
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(rows))


class RowWriter:
    """Writes rows of an array in a file by `writer[i] = row` or `writer[i:j] = rows`, and computes their checksums.

    Args:
        array: HDF5 dataset (n, ...) of zeros; `checksums`, uint64 (n,), is updated by each write.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        never_written = row_checksums(np.zeros((1, *array.shape[1:]), array.dtype))
        self.checksums = np.repeat(never_written, len(array))

    def __setitem__(self, rows: int | slice, values: Any) -> None:
        old = self.checksums[rows]
        block = np.empty((*old.shape, *self._array.shape[1:]), self._array.dtype)
        block[...] = values
        self._array[rows] = block
        self.checksums[rows] = row_checksums(block.reshape(-1, *block.shape[old.ndim :])).reshape(old.shape)


class CheckedRows:
    """Rows of an array in a file, each checked when it is read: `rows[i]`, `rows[i:j]` and `rows[()]` for all.

    Args:
        path: Of the file, for the error.
        name: Of the array, for the error.
        array: HDF5 dataset or numpy array (n, ...).
        checksums: As `row_checksums` returns, uint64 (n,).

    Raises:
        ValueError: On reading, a row is damaged.
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
        """Read all rows into an array, as h5py's method of this name.

        Args:
            out: C-contiguous array of the same shape and dtype.

        Raises:
            ValueError: A row is damaged.
        """
        self._array.read_direct(out)
        self._check(out, ())

    def _check(self, block: np.ndarray, rows: int | slice | tuple[()]) -> None:
        expected = np.atleast_1d(self._checksums[rows])
        differs = row_checksums(block.reshape(len(expected), *self.shape[1:])) != expected
        if differs.any():
            row = np.atleast_1d(np.arange(len(self))[rows])[differs.argmax()]
            raise ValueError(broken(self._path, f"damaged, {self._name} {row} does not match its checksum"))
