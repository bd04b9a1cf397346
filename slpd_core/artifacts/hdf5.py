"""HDF5: named arrays, contiguous and uncompressed, each file with its checksum.

Files are written beside their name and read through Python: HDF5's locks, which some file systems lack, are not needed.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.checked_rows import RowWriter
from slpd_core.artifacts.checksums import check_seal, seal, stamp, unstamp
from slpd_core.artifacts.files import atomic_write, broken
from slpd_core.artifacts.reading import open_file
from slpd_core.artifacts.schema import Meta

CHECKSUMS = "_xxh3"  # ends the name of the checksums of an array's rows: uint64, one per row
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)  # by h5py


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attrs: Mapping[str, Any], meta: Meta) -> None:
    """Write named arrays; texts as UTF-8.

    Args:
        path: Of the file.
        arrays: The arrays by name, of numbers or str.
        attrs: Further attributes of the file.
        meta: As `provenance` returns.
    """
    import h5py

    with create_h5(path, {**meta, **attrs}) as file:
        for name, array in arrays.items():
            text = array.dtype.kind in "UO"
            file.create_dataset(
                name,
                data=array.astype(object) if text else array,
                dtype=h5py.string_dtype() if text else None,
            )


def read_arrays(
    path: Path, names: Sequence[str], *, optional: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read named arrays and the file's attributes.

    Args:
        path: Of the file.
        names: Names of the arrays to read.
        optional: Further ones, read where the file has them.

    Returns:
        The arrays by name, and the attributes, `meta` among them.

    Raises:
        ValueError: The file is broken or lacks an array.
    """
    with open_h5(path, names, optional=optional) as file:
        arrays = {}
        for name in (*names, *(name for name in optional if name in file)):
            dataset = file[name]
            arrays[name] = dataset.asstr()[()] if dataset.dtype.kind == "O" else dataset[()]
        return arrays, unstamp(path, read_attributes(file))


def list_arrays(path: Path) -> list[str]:
    """List the names of a file's arrays, without those of checksums.

    Args:
        path: Of the file.

    Returns:
        The names, in alphabetical order.

    Raises:
        ValueError: The file is broken.
    """
    with open_h5(path, ()) as file:
        return [name for name in file if not name.endswith(CHECKSUMS)]


@contextmanager
def create_h5(path: Path, attrs: Mapping[str, Any]) -> Iterator[Any]:
    """Create an HDF5 file, which takes its name when the block ends well.

    Args:
        path: Of the file.
        attrs: Its attributes.

    Yields:
        The h5py.File to write to.
    """
    with atomic_write(path) as part:
        with _new_file(part) as file:
            file.attrs.update({**attrs, **stamp(path)})
            yield file
        seal_h5(part)


@contextmanager
def create_foreign_h5(path: Path, attrs: Mapping[str, Any]) -> Iterator[Any]:
    """Create an HDF5 file for another tool, without our metadata and checksum; whole or not at all.

    Args:
        path: Of the file.
        attrs: Its attributes.

    Yields:
        The h5py.File to write to.
    """
    with atomic_write(path) as part, _new_file(part) as file:
        file.attrs.update(attrs)
        yield file


@contextmanager
def open_foreign_h5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file of another tool.

    Args:
        path: Of the file.

    Yields:
        The h5py.File to read from.

    Raises:
        ValueError: The file is broken, or what is read in the block is not there.
    """
    import h5py

    with open_file(path) as raw:
        try:
            with h5py.File(raw, "r") as file:
                yield file
        except UNREADABLE as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise ValueError(f"{path}: cannot be read as HDF5 of that kind ({error})") from error


def create_texts(group: Any, name: str, texts: str | Sequence[str]) -> Any:
    """Create an array of texts, or a single text, in UTF-8.

    Args:
        group: Of an open file.
        name: Of the array.
        texts: The texts; there may be none.

    Returns:
        The h5py.Dataset.
    """
    import h5py

    data = texts if isinstance(texts, str) else np.array([*texts], object)
    return group.create_dataset(name, data=data, dtype=h5py.string_dtype())


def set_texts(element: Any, name: str, texts: Sequence[str]) -> None:
    """Set an attribute that is an array of texts, in UTF-8.

    Args:
        element: Of an open file.
        name: Of the attribute.
        texts: The texts; there may be none.
    """
    import h5py

    element.attrs.create(name, np.array([*texts], object), dtype=h5py.string_dtype())


@contextmanager
def _new_file(part: Path) -> Iterator[Any]:
    """A new HDF5 file, closed at the block's end."""
    import h5py

    file = h5py.File(part, "w", locking=False)
    try:
        yield file
        file.flush()
    except BaseException:
        _discard(file)
        raise
    file.close()


@contextmanager
def create_rows(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Iterator[RowWriter]:
    """Create an array whose rows are written one by one; their checksums are written beside it.

    Args:
        file: As `create_h5` yields.
        name: Of the array.
        shape: Of the array, (n, ...).
        dtype: Of the array.

    Yields:
        The writer of its rows.
    """
    writer = RowWriter(file.create_dataset(name, shape, dtype))
    yield writer
    file.create_dataset(name + CHECKSUMS, data=writer.checksums)


@contextmanager
def open_h5(
    path: Path,
    names: Sequence[str],
    *,
    rows: Sequence[str] = (),
    optional: Sequence[str] = (),
    any_name: bool = False,
) -> Iterator[Any]:
    """Open an HDF5 file and check all of it but the arrays that have checksums row by row.

    Args:
        path: Of the file.
        names: Arrays that it must have.
        rows: Arrays that it must have with checksums row by row.
        optional: Arrays that it may have.
        any_name: Whether it may have been written under another name, as the files of a cache are.

    Yields:
        The h5py.File to read from.

    Raises:
        ValueError: The file is broken, lacks an array or was written as another artifact.
    """
    import h5py

    with open_file(path) as raw, ExitStack() as stack:
        blocks: list[tuple[int, int]] = []
        try:
            file = stack.enter_context(h5py.File(raw, "r"))
            by_row = {*rows, *(name.removesuffix(CHECKSUMS) for name in file if name.endswith(CHECKSUMS))}
            required = [
                *names,
                *by_row,
                *(name + CHECKSUMS for name in by_row),
                *(name for name in optional if name in file),
            ]
            problem = _find_problem(file, required, path.stat().st_size)
            blocks = [] if problem else _row_blocks(file, by_row)
        except UNREADABLE as error:
            if getattr(error, "errno", None) is not None:
                raise
            problem = f"not a whole HDF5 file ({error})"
        if problem:
            raise ValueError(broken(path, problem))
        check_seal(path, io.BytesIO(_read_around(raw, blocks)))
        if not any_name:
            unstamp(path, read_attributes(file))
        yield file


def seal_h5(path: Path) -> None:
    """Write an HDF5 file's checksum into it, of all bytes but those of arrays that have checksums row by row.

    Args:
        path: Of a file that `create_h5` began.

    Raises:
        ValueError: The text that marks the checksum is in it twice or not at all.
    """
    import h5py

    with path.open("rb+") as raw:
        with h5py.File(raw, "r") as file:
            blocks = _row_blocks(file, [name for name in file if name + CHECKSUMS in file])
        position, digits = seal(path, _read_around(raw, blocks))
        for start, end in blocks:
            position += end - start if position >= start else 0
        raw.seek(position)
        raw.write(digits)


def _row_blocks(file: Any, names: Iterable[str]) -> list[tuple[int, int]]:
    """Byte ranges [start, end) of the named arrays, in order; raises ValueError where two overlap."""
    offsets = [(file[name].id.get_offset(), file[name].nbytes) for name in names]
    blocks = sorted((start, start + size) for start, size in offsets if start is not None)
    if any(end > start for (_, end), (start, _) in pairwise(blocks)):
        raise ValueError("two of its arrays overlap")
    return blocks


def _read_around(raw: Any, blocks: Sequence[tuple[int, int]]) -> bytes:
    """The bytes of a file outside the blocks."""
    parts, position = [], 0
    for start, end in blocks:
        raw.seek(position)
        parts.append(raw.read(start - position))
        position = end
    raw.seek(position)
    return b"".join([*parts, raw.read()])


def _discard(file: Any) -> None:
    """Close an unfinished file; HDF5 writes the rest into memory, since on a full disk it would end the process."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("unfinished"), "wb") as memory:
            os.dup2(memory.fileno(), file.id.get_vfd_handle())
    with suppress(OSError, RuntimeError):
        file.close()


def _find_problem(file: Any, names: Sequence[str], size: int) -> str:
    """The array that is missing, linked, compressed or larger than the file, in words; "" where there is none."""
    import h5py

    missing = [name for name in names if name not in file]
    if missing:
        return f"an HDF5 file without {sorted(missing)}"
    for name in names:
        inside = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
        if not inside or file[name].id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or file[name].external:
            return f"{name} is no plain array of this file"
        if file[name].nbytes > size:
            return f"{name} {file[name].shape} is larger than the file"
    return ""


def read_attributes(file: Any) -> dict[str, Any]:
    """Read a file's attributes.

    Args:
        file: As `open_h5` yields.

    Returns:
        Their values as plain Python values, by name.
    """
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
