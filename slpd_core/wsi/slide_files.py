"""The files that a slide consists of, and where links to them lead."""

import struct
from collections import defaultdict
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

# What is one file by these names is not looked into for others that belong to it.
SINGLE_FILE_SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ndpi", ".scn", ".bif", ".svslide", ".czi")
)
MAX_INDEX_BYTES = 1 << 22  # of a text that names a slide's files, at most
HEADER_BYTES = 1 << 16  # of a DICOM file, within which its series is named
UNDEFINED_LENGTH = 0xFFFFFFFF
# Of DICOM's values, those whose length takes 4 bytes.
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
DICOM_ITEM, DICOM_ITEM_END, DICOM_SEQUENCE_END, DICOM_SERIES_UID = (
    (0xFFFE, 0xE000),
    (0xFFFE, 0xE00D),
    (0xFFFE, 0xE0DD),
    (0x20, 0xE),
)


def locate(path: Path) -> Path:
    """Return the name to open a slide by: where a link leads, unless what belongs to it lies beside the link.

    Raises OSError when the file cannot be read.
    """
    if path.suffix.lower() in SINGLE_FILE_SUFFIXES:
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


def _companions(path: Path) -> list[tuple[str, Path]]:
    """What belongs to a slide beside the file that the sheet names."""
    kind = path.suffix.lower()
    if kind in SINGLE_FILE_SUFFIXES:
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
        text = file.read(MAX_INDEX_BYTES).decode("utf-8-sig", errors="surrogateescape")
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
        if tag in (DICOM_ITEM, DICOM_ITEM_END, DICOM_SEQUENCE_END) or not kind.isalpha():
            head, length = 8, struct.unpack_from("<I", data, at + 4)[0]
        elif kind in LONG_VRS:
            head = 12
        else:
            head, length = 8, short
        if depth == 0 and tag >= DICOM_SERIES_UID:
            value = data[at + head : at + head + length] if tag == DICOM_SERIES_UID else b""
            return value.decode("ascii", errors="replace").strip("\0 ")
        at += head
        if tag in (DICOM_ITEM_END, DICOM_SEQUENCE_END):
            depth -= 1
        elif length == UNDEFINED_LENGTH:
            depth += 1
        else:
            at += length
    return ""
