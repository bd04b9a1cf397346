"""The slides in a folder and the folders below it, by the extensions of their files."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from slpd_core.wsi.slide_files import PACKAGES, SINGLE_FILE_SUFFIXES, dicom_series

MIRAX, VSI, DICOM = ".mrxs", ".vsi", ".dcm"
ZARR_SUFFIXES = (".ome.zarr.zip", ".ome.zarr", ".zarr.zip", ".zarr")  # of folders and zips, the longest first
KNOWN_SUFFIXES = SINGLE_FILE_SUFFIXES | {MIRAX, DICOM, ".vms", ".vmu", *ZARR_SUFFIXES, *PACKAGES}


def find_slides(folder: Path) -> tuple[list[tuple[str, Path]], Counter[str]]:
    """List the slides in a folder and all folders below it.

    A slide is a file with an extension of KNOWN_SUFFIXES, in any case; a DICOM slide is a series, in one folder, an
    OME-Zarr may be a folder. Hidden files and folders, and the data folders of MIRAX and VSI slides, are passed over.
    Links are followed.

    Args:
        folder: The folder.

    Returns:
        Pairs of name and file, sorted by name; and by extension, the number of files that are no slides. A name is that
        of the file without extension, or of the folder where a DICOM series is the only slide in it.

    Raises:
        OSError: A folder cannot be read.
    """
    slides: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    for path, names in _walk(folder):
        suffixes = {name: _suffix(name) for name in names}
        others.update(suffix for suffix in suffixes.values() if suffix not in KNOWN_SUFFIXES)
        files = [name for name in names if suffixes[name] in KNOWN_SUFFIXES - {DICOM}]
        series = _first_of_each_series(path, [name for name in names if suffixes[name] == DICOM])
        if len(series) == 1 and not files and path != folder:
            slides.append((path.name, path / series[0]))
        else:
            slides += [(slide_name(Path(name)), path / name) for name in (*files, *series)]
    return sorted(slides), others


def slide_name(path: Path) -> str:
    """Name a slide by its file or folder.

    Args:
        path: Of the slide.

    Returns:
        The last part of the path, without the extension of a slide.
    """
    suffix = _suffix(path.name)
    return path.name[: len(path.name) - len(suffix)] if suffix in KNOWN_SUFFIXES else path.name


def _suffix(name: str) -> str:
    """The extension of a slide, in lower case."""
    zarr = next((suffix for suffix in ZARR_SUFFIXES if name.lower().endswith(suffix)), "")
    return zarr or os.path.splitext(name)[1].lower()


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder once, with the names of its files and OME-Zarrs; OSError where one cannot be read."""
    seen: set[str] = set()  # a link may lead to a folder that is visited anyway, or in a circle

    def fail(error: OSError) -> None:
        raise error

    for path, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        data_folders = {os.path.splitext(name)[0] for name in names if name.lower().endswith(MIRAX)}
        data_folders |= {f"_{os.path.splitext(name)[0]}_" for name in names if name.lower().endswith(VSI)}
        zarrs = {name for name in folders if _suffix(name) in ZARR_SUFFIXES}
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in data_folders | zarrs)
        yield Path(path), sorted(name for name in (*names, *zarrs) if not name.startswith("."))


def _first_of_each_series(folder: Path, names: Sequence[str]) -> list[str]:
    """The first file of each DICOM series; a file that states no series counts as one."""
    uid_of = {name: uid for uid, files in dicom_series(folder).items() for name in files} if names else {}
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(uid_of.get(name, name), name)
    return [*first.values()]
