"""Stores of Zarr: the files of a folder or of a zip by key. No key leads out of them."""

import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from slpd_core.wsi.slide_files import ZARR_METADATA

MAX_KEY_CHARS = 200
MAX_ZIP_ENTRIES, MAX_ZIP_DIRECTORY_BYTES = 1 << 20, 1 << 27
MAX_ZIP_COMMENT_BYTES = 1 << 16
ZIP_END, ZIP64_END = b"PK\5\6", b"PK\6\6"
ZIP_END_BYTES, ZIP64_END_BYTES, ZIP_HEADER_BYTES = 22, 76, 30  # of ZIP64 with its locator
ENCRYPTED = 1  # a flag of a zip's entry


class Store(ABC):
    """Files by key, a relative path with slashes; may be read from several threads at once."""

    @abstractmethod
    def close(self) -> None:
        """Close the store."""

    @abstractmethod
    def keys(self, prefix: str) -> set[str]:
        """List the keys below a folder.

        Args:
            prefix: The folder's key; "" for all.

        Returns:
            The keys.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the size of a file.

        Args:
            key: Its key.

        Returns:
            Bytes; None if there is no such file.

        Raises:
            ValueError: The key leads out of the store.
        """

    @abstractmethod
    def read(self, key: str, offset: int, length: int) -> bytes:
        """Read a part of a file that is there.

        Args:
            key: Its key.
            offset, length: Of the part, bytes.

        Returns:
            The bytes.

        Raises:
            ValueError: The file ends before, or is broken.
            OSError: It cannot be read.
        """

    def read_whole(self, key: str, max_bytes: int) -> bytes | None:
        """Read a file.

        Args:
            key: Its key.
            max_bytes: Most bytes that it may have.

        Returns:
            The bytes; None if there is no such file.

        Raises:
            ValueError: It is larger or broken, or the key leads out of the store.
            OSError: It cannot be read.
        """
        size = self.size(key)
        if size is not None and size > max_bytes:
            raise ValueError(f"{key} has {size} bytes, more than {max_bytes}")
        return None if size is None else self.read(key, 0, size)


def open_store(path: Path) -> Store:
    """Open a folder or a zip.

    Args:
        path: The folder or file.

    Returns:
        The store; the caller's to close.

    Raises:
        ValueError: The file is no zip, or a broken one.
        OSError: It cannot be read.
    """
    return _Folder(path) if path.is_dir() else _Zip(path)


def check_key(key: str) -> str:
    """Check that a key names a file or folder below the store.

    Args:
        key: The key, as a file states it.

    Returns:
        The key, without empty parts and dots.

    Raises:
        ValueError: It does not.
    """
    path = PurePosixPath(key)
    if len(key) > MAX_KEY_CHARS or path.is_absolute() or {"..", ""} & {*path.parts} or not {"\0", "\\"}.isdisjoint(key):
        raise ValueError(f"the path {key[:MAX_KEY_CHARS]!r} leads out of the slide")
    return "" if key in ("", ".") else path.as_posix()


class _Folder(Store):
    """A folder; links may lead to other places within it only."""

    def __init__(self, path: Path) -> None:
        self._root = path.resolve()

    def close(self) -> None:
        """Nothing is open between reads."""

    def keys(self, prefix: str) -> set[str]:
        top = self._path(prefix)
        return {
            Path(folder, name).relative_to(self._root).as_posix() for folder, _, names in os.walk(top) for name in names
        }

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._path(key).open("rb") as file:
            file.seek(offset)
            return _checked(file.read(length), length)

    def _path(self, key: str) -> Path:
        path = (self._root / check_key(key)).resolve()
        if not path.is_relative_to(self._root):
            raise ValueError(f"a link leads out of the slide at {key!r}")
        return path


class _Zip(Store):
    """A zip; its root is the folder that holds the metadata."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        try:
            _check_zip(self._file)
            with zipfile.ZipFile(path) as opened:
                entries = {info.filename: info for info in opened.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            os.close(self._file)
            raise ValueError(str(error)) from error
        except BaseException:
            os.close(self._file)
            raise
        root = _find_root(entries)
        self._entries = {name.removeprefix(root): info for name, info in entries.items() if name.startswith(root)}

    def close(self) -> None:
        os.close(self._file)

    def keys(self, prefix: str) -> set[str]:
        return {key for key in self._entries if not prefix or key.startswith(prefix + "/")}

    def size(self, key: str) -> int | None:
        entry = self._entries.get(check_key(key))
        return entry.file_size if entry else None

    def read(self, key: str, offset: int, length: int) -> bytes:
        entry = self._entries[check_key(key)]
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{key} is encrypted, or compressed by a method that is not read")
        header = _pread(self._file, ZIP_HEADER_BYTES, entry.header_offset)
        start = entry.header_offset + ZIP_HEADER_BYTES + sum(struct.unpack_from("<HH", header, 26))
        if entry.compress_type == zipfile.ZIP_STORED:
            data = _pread(self._file, length, start + offset) if offset + length <= entry.file_size else b""
        elif length < entry.file_size:
            raise ValueError(f"{key} is compressed by the zip, of which only a part is read")
        else:
            packed = _pread(self._file, min(entry.compress_size, 2 * entry.file_size + MAX_ZIP_COMMENT_BYTES), start)
            data = _inflate(packed, length)
        if length == entry.file_size and zlib.crc32(data) != entry.CRC:
            raise ValueError(f"{key} differs from its checksum")
        return _checked(data, length)


def _check_zip(file: int) -> None:
    """Check how many entries a zip states, before its directory is read."""
    size = os.fstat(file).st_size
    start = max(0, size - ZIP64_END_BYTES - ZIP_END_BYTES - MAX_ZIP_COMMENT_BYTES)
    tail = os.pread(file, size - start, start)
    at = tail.rfind(ZIP_END)
    if at < 0 or len(tail) < at + ZIP_END_BYTES:
        raise ValueError("no zip, or its end is missing")
    counts = struct.unpack_from("<HI", tail, at + 10)
    if at >= ZIP64_END_BYTES and tail.startswith(ZIP64_END, at - ZIP64_END_BYTES):
        counts = struct.unpack_from("<QQ", tail, at - ZIP64_END_BYTES + 32)
    if counts[0] > MAX_ZIP_ENTRIES or counts[1] > MAX_ZIP_DIRECTORY_BYTES:
        raise ValueError(f"it states {counts[0]} files in {counts[1]} bytes, more than {MAX_ZIP_ENTRIES}")


def _find_root(names: Iterable[str]) -> str:
    """Find the folder of a zip that holds the metadata: the zip itself, or the only folder with some."""
    parts = [name.rpartition("/") for name in names]
    roots = {folder + slash for folder, slash, name in parts if name in ZARR_METADATA and "/" not in folder}
    if "" not in roots and len(roots) > 1:
        raise ValueError(f"several slides in one zip: {', '.join(sorted(roots))}")
    return "" if "" in roots else next(iter(roots), "")


def _inflate(packed: bytes, size: int) -> bytes:
    """Inflate no more than `size` bytes."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size) if size else b""
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _pread(file: int, length: int, offset: int) -> bytes:
    size = os.fstat(file).st_size
    return _checked(os.pread(file, max(0, min(length, size - offset)), offset), length)


def _checked(data: bytes, length: int) -> bytes:
    if len(data) < length:
        raise ValueError(f"{len(data)} of its {length} bytes are there")
    return data
