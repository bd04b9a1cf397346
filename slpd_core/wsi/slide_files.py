"""The files that a slide consists of, and the targets of links to them."""

import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from slpd_core.wsi.errors import SlideError

# Formats of a single file: other files are not looked for.
SINGLE_FILE_SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ndpi", ".scn", ".bif", ".svslide", ".czi", ".ozx")
)
# Formats that optional packages read: by extension, the package.
PACKAGES = {
    ".i2syntax": "fastslide",
    ".isyntax": "fastslide",
    ".kfb": "kfbslide",
    ".qptiff": "fastslide",
    ".tmap": "tmapslide",
    ".vsi": "fastslide",
}
ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")  # one of them lies in the folder of an OME-Zarr
ZIP_SUFFIXES = (".ozx", ".zip")
MAX_INDEX_BYTES = 1 << 22  # of a text that names a slide's files
MAX_DICOM_HEADER_BYTES = 1 << 16  # a DICOM file names its series within them
UNDEFINED_LENGTH = 0xFFFFFFFF
# DICOM's value representations with a length of 4 bytes.
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
DICOM_ITEM, DICOM_ITEM_END, DICOM_SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
DICOM_SERIES_UID = (0x20, 0xE)


def is_ome_zarr(path: Path) -> bool:
    """Return whether a path is that of an OME-Zarr: a folder with its metadata, or a zip.

    Args:
        path: The path that the sheet names.

    Returns:
        Whether it is.
    """
    return path.suffix.lower() in ZIP_SUFFIXES or any((path / name).is_file() for name in ZARR_METADATA)


def locate(path: Path) -> Path:
    """Choose the path to open: the target of a link, unless the slide's other files lie beside the link.

    Args:
        path: The file or folder that the sheet names.

    Returns:
        The path; of a folder of one DICOM series its first file.

    Raises:
        SlideError: A folder is no slide; names the remedy.
        OSError: The file or folder cannot be read.
    """
    if path.is_dir():
        return path if is_ome_zarr(path) else _dicom_file(path)
    if path.suffix.lower() in SINGLE_FILE_SUFFIXES:
        return path
    real = path.resolve()
    return real if real != path and not _companions(path) and _companions(real) else path


def slide_files(path: Path) -> list[tuple[str, Path]]:
    """List the files that a slide consists of.

    A MIRAX slide has a folder beside it, a VMS slide its pictures, a DICOM slide the other files of its series. A
    VSI slide has a folder, a TMAP slide may have files .DT1, .DT2 ... An OME-Zarr folder is all files below it.

    Args:
        path: The file or folder that the sheet names.

    Returns:
        Pairs of the name that the slide's index has for a file, "" if any name would do, and the file. The file that
        the sheet names is the first.

    Raises:
        SlideError: A folder is no slide.
        OSError: A file cannot be read.
    """
    path = locate(path)
    if path.is_dir():
        return sorted((file.relative_to(path).as_posix(), file) for file in _files_below(path))
    return [("", path), *_companions(path)]


def _companions(path: Path) -> list[tuple[str, Path]]:
    """List the files of a slide other than the one that the sheet names."""
    kind = path.suffix.lower()
    if kind in SINGLE_FILE_SUFFIXES:
        return []
    if kind == ".mrxs":
        index = path.with_suffix("") / "Slidedat.ini"
        return [(index.name, index), *_named_files(index)] if index.is_file() else []
    if kind == ".vsi":
        folder = path.with_name(f"_{path.stem}_")
        return sorted((file.relative_to(folder).as_posix(), file) for file in _files_below(folder))
    if kind == ".tmap":
        return [(file.suffix, file) for file in sorted(path.parent.iterdir()) if _is_tmap_part(file, path)]
    with path.open("rb") as file:
        head = file.read(256)
    if b"Virtual Microscope Specimen]" in head:
        return _named_files(path)
    return _series_files(path) if head[128:132] == b"DICM" else []


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, none if it is missing; OSError where a folder cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    for path, _, names in os.walk(folder, onerror=fail) if folder.exists() else ():
        yield from (file for name in names if (file := Path(path, name)).is_file())


def _dicom_file(folder: Path) -> Path:
    """Choose the first file of the only DICOM series of a folder."""
    series = dicom_series(folder)
    if len(series) == 1:
        return folder / next(iter(series.values()))[0]
    if series:
        raise SlideError(f"{folder}: {len(series)} DICOM series in one folder; name a file of one in the sheet")
    mirax = folder.with_name(f"{folder.name}.mrxs")
    remedy = f"name {mirax.name} beside it in the sheet" if mirax.is_file() else "correct its path in the sheet"
    raise SlideError(f"{folder}: a folder that is neither OME-Zarr nor DICOM; {remedy}")


def _is_tmap_part(file: Path, path: Path) -> bool:
    return file.stem == path.stem and file.suffix.upper().startswith(".DT") and file.is_file()


def _named_files(index: Path) -> list[tuple[str, Path]]:
    """List the files beside an index that it names by lines `key = name`, sorted by name."""
    with index.open("rb") as file:
        text = file.read(MAX_INDEX_BYTES).decode("utf-8-sig", errors="surrogateescape")
    named = {line.partition("=")[2].strip() for line in text.splitlines()} - {index.name}
    return [(file.name, file) for file in sorted(index.parent.iterdir()) if file.name in named and file.is_file()]


def _series_files(path: Path) -> list[tuple[str, Path]]:
    """List the other DICOM files of a folder that are of the same series, whatever their names."""
    series = dicom_series(path.parent)
    return [("", path.parent / name) for name in series.get(_series_of_file(path), ()) if name != path.name]


def dicom_series(folder: Path) -> dict[str, tuple[str, ...]]:
    """List the DICOM files of a folder by their series.

    Args:
        folder: The folder.

    Returns:
        By SeriesInstanceUID, the names of its files, sorted.

    Raises:
        OSError: The folder or a file cannot be read.
    """
    return _series_of_folder(folder, folder.stat().st_mtime_ns)


@lru_cache(64)
def _series_of_folder(folder: Path, changed_ns: int) -> dict[str, tuple[str, ...]]:
    """File names of a folder by DICOM series; cached, since a folder may hold many slides."""
    series: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for file in sorted(folder.iterdir()):
        with suppress(PermissionError):  # OpenSlide may not read it either
            if file.is_file() and (uid := _series_of_file(file)):
                series[uid] += (file.name,)
    return dict(series)


def _series_of_file(path: Path) -> str:
    """Read the SeriesInstanceUID of a DICOM file; "" if it has none, or is no DICOM file."""
    with path.open("rb") as file:
        data = file.read(132)
        if data[128:] != b"DICM":
            return ""
        data += file.read(MAX_DICOM_HEADER_BYTES)
    at, depth = 132, 0  # depth: of sequences and items of undefined length
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
