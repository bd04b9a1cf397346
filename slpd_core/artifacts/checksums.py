"""Checksums of the bytes of files; those of long arrays' rows are in `checked_rows`.

The hash is xxh3 (github.com/Cyan4973/xxHash): more than 10 GB/s, faster than any disk. It finds accidents such as a
flipped bit. It is no protection against an attacker.
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
UNSEALED = MARK.decode() + "0" * DIGITS  # in a file's metadata until it is sealed


def find_name(path: Path) -> str:
    """Find an artifact's name: its path within the cohort's results.

    Args:
        path: Of the file.

    Returns:
        The name, such as `embed/slpd.parquet`; "" for a file outside results.
    """
    within = re.match(r"(?:.*/)?results/[^/]+/([^/]+/.+)", Path(path).as_posix())
    return within[1] if within else ""


def _check_name(path: Path, name: str) -> None:
    """Raise ValueError where a file in results was written as another artifact, `name` of `find_name`."""
    if name and find_name(path) not in ("", name):
        raise ValueError(
            broken(path, f"was written as {name}, but is in the place of {find_name(path)}; move each back")
        )


def stamp(path: Path) -> Meta:
    """Make the entries of an artifact's metadata that name it and hold its checksum.

    Args:
        path: Of the file to write.

    Returns:
        `artifact`, its name, and `checksum`, which `write_sealed` fills in.
    """
    return {"artifact": find_name(path), "checksum": UNSEALED}


def unstamp(path: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Remove the entries of `stamp` from metadata.

    Args:
        path: Of the file that was read.
        meta: Its metadata.

    Returns:
        The other entries.

    Raises:
        ValueError: The file was written as another artifact.
    """
    _check_name(path, meta.get("artifact", ""))
    return {key: value for key, value in meta.items() if key not in ("artifact", "checksum")}


def seal(path: Path, data: bytes) -> tuple[int, bytes]:
    """Compute the checksum of a file's bytes, which contain UNSEALED once.

    Args:
        path: Of the file, for the error.
        data: Its bytes.

    Returns:
        Offset of the checksum's 32 hex digits in the bytes, and the digits.

    Raises:
        ValueError: The text that marks the checksum is in the bytes twice or not at all.
    """
    if data.count(MARK) != 1:
        raise ValueError(f"{path}: contains the text {MARK.decode()!r}, which marks its checksum, twice or not at all")
    start = data.index(MARK) + len(MARK)
    return start, _checksum(io.BytesIO(data), start)


def _checksum(file: io.BufferedIOBase, start: int, out: memoryview | None = None) -> bytes:
    """The checksum of a file's bytes but its own digits from `start` on; the bytes are read into `out`."""
    digest, view, position = xxhash.xxh3_128(), memoryview(bytearray(PIECE)), 0
    file.seek(0)
    while read := file.readinto(view := view if out is None else out[position : position + PIECE]):
        before, after = (min(max(0, offset - position), read) for offset in (start, start + DIGITS))
        digest.update(view[:before])
        digest.update(view[after:read])
        position += read
    return digest.hexdigest().encode()


def check_seal(path: Path, file: io.BufferedIOBase, out: memoryview | None = None) -> None:
    """Check a file's bytes against its checksum.

    Args:
        path: Of the file, for the error.
        file: The open file.
        out: Buffer of the file's size to read its bytes into; without it they are not kept.

    Raises:
        ValueError: The file is damaged or has no checksum.
    """
    damage = find_damage(file, out)
    if damage:
        raise ValueError(broken(path, damage))


def read_sealed(path: Path) -> np.ndarray:
    """Read a file and check it on the way.

    Args:
        path: Of a file that `write_sealed` wrote.

    Returns:
        Its bytes, uint8 (n,).

    Raises:
        ValueError: The file is damaged or has no checksum.
    """
    with open_file(path) as file:
        data = np.empty(file.seek(0, os.SEEK_END), np.uint8)
        check_seal(path, file, data.data)
    return data


def find_damage(file: io.BufferedIOBase, out: memoryview | None = None) -> str:
    """Compare a file's bytes with its checksum.

    Args:
        file: The open file.
        out: Buffer of the file's size to read its bytes into; without it they are not kept.

    Returns:
        The damage in words; "" for a whole file.
    """
    for offset in (0, max(0, file.seek(0, os.SEEK_END) - PIECE)):  # metadata come first or last
        file.seek(offset)
        piece = file.read(PIECE)
        if MARK in piece:
            start = offset + piece.index(MARK) + len(MARK)
            file.seek(start)
            same = file.read(DIGITS) == _checksum(file, start, out)
            return "" if same else "damaged, its checksum does not match"
    return "damaged, of an earlier version or from elsewhere: it carries no checksum"


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file with its checksum.

    Args:
        path: Of the file.
        data: Its bytes; the checksum replaces UNSEALED in them.

    Raises:
        ValueError: The text that marks the checksum is in the bytes twice or not at all.
    """
    start, digits = seal(path, data)
    with atomic_write(path) as part:
        part.write_bytes(data[:start] + digits + data[start + DIGITS :])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with its checksum.

    Args:
        path: Of the file.
        content: The object's members.
    """
    write_sealed(path, json.dumps(content | stamp(path)).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that `write_json` wrote.

    Args:
        path: Of the file.

    Returns:
        The object's members.

    Raises:
        ValueError: The file is damaged or was written as another artifact.
    """
    return unstamp(path, json.loads(read_sealed(path).tobytes()))
