"""A slide's identity: the files that it consists of, where links lead, and a fingerprint of every byte of them.

A fingerprint reads the whole slide once, as fast as the disk gives it. A memo of sizes, dates and inodes beside the
fingerprint spares every later reading, until one of them is another.
"""

import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from slpd_core import artifacts

# What is one file by these names is not looked into for others that belong to it.
ONE_FILE = frozenset((".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ndpi", ".scn", ".bif", ".svslide", ".czi"))
INDEX_BYTES = 1 << 22  # of a text that names a slide's files, at most
HEADER_BYTES = 1 << 16  # of a DICOM file, within which its series is named
UNDEFINED = 0xFFFFFFFF
# Of DICOM's values, those whose length takes 4 bytes.
LONG_KINDS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
ITEM, ITEM_END, SEQUENCE_END, SERIES = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD), (0x20, 0xE)
SAMPLES, SAMPLE_BYTES = 64, 65_536
Stamp = list[tuple[str, int, int, int, int]]


def locate(path: Path) -> Path:
    """Return the name to open a slide by: where a link leads, unless what belongs to it lies beside the link.

    Raises OSError when the file cannot be read.
    """
    if path.suffix.lower() in ONE_FILE:
        return path
    real = path.resolve()
    return real if real != path and not _companions(path) and _companions(real) else path


def slide_files(path: Path) -> list[tuple[str, Path]]:
    """List the files that a slide consists of, each after the name that the slide's index has for it.

    Args:
        path: The file that the sheet names. A MIRAX slide has a folder beside it, a VMS slide its pictures, a DICOM
            slide the other files of its series.

    Returns:
        Pairs of a name, "" where any other would do as well, and a file; the file that the sheet names first.

    Raises:
        OSError: A file cannot be read.
    """
    path = locate(path)
    return [("", path), *_companions(path)]


def stamp(path: Path) -> Stamp:
    """Return name, bytes, dates of content and of inode (ns), and inode of each of a slide's files.

    Raises:
        OSError: A file is not there, or cannot be read.
    """
    stats = [(file.name, file.stat()) for _, file in slide_files(path)]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in stats]


def fingerprint(path: Path, memo_path: Path | None = None) -> str:
    """Hash every byte of a slide's files: 32 hex digits, whatever the slide is called and wherever it lies.

    Args:
        path: The file that the sheet names.
        memo_path: A JSON file of the last fingerprint, which holds while `stamp` is what it was; it is written anew
            where it is another.

    Raises:
        OSError: A file cannot be read, or changed meanwhile.
    """
    now = stamp(path)
    known = _read_memo(memo_path, now)
    if known:
        return known
    found = artifacts.fingerprint(
        *sorted(f"{name} {artifacts.file_fingerprint(file)}" for name, file in slide_files(path))
    )
    if stamp(path) != now:
        raise OSError(f"{path}: changed while it was read; run snakemake again once it is whole")
    if memo_path:
        artifacts.write_json(memo_path, {"fingerprint": found, "stamp": now})
    return found


def sample(path: Path) -> str:
    """Hash some of a slide: evenly spaced blocks of each file, first and last included (whole when it is small).

    Slides that differ in it are different; equal ones need not be the same.

    Raises:
        OSError: A file cannot be read.
    """
    parts = []
    for name, file in slide_files(path):
        size, digest = file.stat().st_size, hashlib.blake2b(digest_size=16)
        last = max(0, size - SAMPLE_BYTES)
        with file.open("rb") as opened:
            for offset in np.unique(np.linspace(0, last, min(SAMPLES, last // SAMPLE_BYTES + 2)).astype(np.int64)):
                opened.seek(int(offset))
                digest.update(opened.read(SAMPLE_BYTES))
        parts.append(f"{name} {size} {digest.hexdigest()}")
    return artifacts.fingerprint(*sorted(parts))


def describe(paths: Mapping[str, Path]) -> dict[str, tuple[str, int]]:
    """Return what tells each slide from what it was before, without reading it: names, sizes and dates of its files.

    Where those are the same of several slides, some of their bytes are read. Folders are left out: slides may move.

    Args:
        paths: The file that the sheet names, by slide id.

    Returns:
        A text, and the bytes of its files in all, by slide id; of a slide that is not there why, and 0.
    """
    found = {slide_id: _describe(path) for slide_id, path in paths.items()}
    counts = Counter(found.values())
    for slide_id, (text, size) in found.items():
        if size and counts[text, size] > 1:
            try:
                found[slide_id] = f"{text}; {sample(paths[slide_id])}", size
            except OSError as error:
                found[slide_id] = _describe_unread(error)
    return found


def _describe_unread(error: OSError) -> tuple[str, int]:
    return f"not read: {error.strerror}", 0  # its jobs say so, after they tried again


def _describe(path: Path) -> tuple[str, int]:
    try:
        (_, size, date, *_), *others = stamp(path)
    except OSError as error:
        return _describe_unread(error)
    text = f"{path.resolve().name}: {size} bytes of {date}"
    if others:
        text += f", {len(others)} more {artifacts.fingerprint(*(str(part[:3]) for part in others))}"
    return text, size + sum(part[1] for part in others)


def find_copies(paths: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Group the slides of equal content.

    Only files of equal sizes are sampled, and only those of equal samples read whole.

    Args:
        paths: The file of each slide by its id. What cannot be read is left aside.

    Returns:
        The ids of each group of two or more, in the order of `paths`.
    """
    groups: list[list[str]] = [[*paths]]
    for key in (lambda path: str(sorted(part[1] for part in stamp(path))), sample, fingerprint):
        finer: dict[tuple[int, str], list[str]] = defaultdict(list)
        for number, group in enumerate(groups):
            for slide_id in group:
                try:
                    finer[number, key(paths[slide_id])].append(slide_id)
                except OSError:
                    continue
        groups = [group for group in finer.values() if len(group) > 1]
    return [tuple(group) for group in groups]


def _read_memo(memo_path: Path | None, now: Stamp) -> str:
    """The fingerprint of a memo, "" where it is of other files, damaged or no memo."""
    try:
        memo = artifacts.read_json(memo_path) if memo_path else None
        return str(memo["fingerprint"]) if memo and [tuple(part) for part in memo["stamp"]] == now else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _companions(path: Path) -> list[tuple[str, Path]]:
    """What belongs to a slide beside the file that the sheet names."""
    kind = path.suffix.lower()
    if kind in ONE_FILE:
        return []
    if kind == ".mrxs":
        index = path.with_suffix("") / "Slidedat.ini"
        return [(index.name, index), *_named_files(index)] if index.is_file() else []
    with path.open("rb") as file:
        head = file.read(256)
    if b"Virtual Microscope Specimen]" in head:
        return _named_files(path)
    return _series_files(path) if head[128:132] == b"DICM" else []


def _named_files(index: Path) -> list[tuple[str, Path]]:
    """The files beside an index, a text of lines `key = name`, that it names; by name."""
    with index.open("rb") as file:
        text = file.read(INDEX_BYTES).decode("utf-8-sig", errors="surrogateescape")
    named = {line.partition("=")[2].strip() for line in text.splitlines()} - {index.name}
    return [(file.name, file) for file in sorted(index.parent.iterdir()) if file.name in named and file.is_file()]


def _series_files(path: Path) -> list[tuple[str, Path]]:
    """The other DICOM files of a folder that are of the same series; their names say nothing."""
    series = _series_of_folder(path.parent, path.parent.stat().st_mtime_ns)
    return [("", path.parent / name) for name in series.get(_series_of_file(path), ()) if name != path.name]


@lru_cache(64)
def _series_of_folder(folder: Path, changed_ns: int) -> dict[str, tuple[str, ...]]:
    """The names of each series' files in a folder: read once, for a folder may hold the files of many slides."""
    series: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for file in sorted(folder.iterdir()):
        with suppress(PermissionError):  # what we may not read OpenSlide may not either
            if file.is_file() and (uid := _series_of_file(file)):
                series[uid] += (file.name,)
    return dict(series)


def _series_of_file(path: Path) -> str:
    """The SeriesInstanceUID of a DICOM file; "" where it names none, or is no DICOM file."""
    with path.open("rb") as file:
        data = file.read(132)
        if data[128:] != b"DICM":
            return ""
        data += file.read(HEADER_BYTES)
    at, depth = 132, 0  # depth: within how many sequences and items of no stated length
    while at + 12 <= len(data):
        tag, (kind, short, length) = struct.unpack_from("<HH", data, at), struct.unpack_from("<2sHI", data, at + 4)
        if tag in (ITEM, ITEM_END, SEQUENCE_END) or not kind.isalpha():
            head, length = 8, struct.unpack_from("<I", data, at + 4)[0]
        elif kind in LONG_KINDS:
            head = 12
        else:
            head, length = 8, short
        if depth == 0 and tag >= SERIES:
            value = data[at + head : at + head + length] if tag == SERIES else b""
            return value.decode("ascii", errors="replace").strip("\0 ")
        at += head
        if tag in (ITEM_END, SEQUENCE_END):
            depth -= 1
        elif length == UNDEFINED:
            depth += 1
        else:
            at += length
    return ""
