"""A slide's identity: a fingerprint of every byte of its files.

A fingerprint reads the whole slide once. A memo of the files' sizes, dates and inodes beside the fingerprint spares
every later reading, until one of them changes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.slide_files import slide_files

N_SAMPLES, SAMPLE_BYTES = 64, 65_536
FileStamps = list[tuple[str, int, int, int, int]]


def file_stamps(path: Path) -> FileStamps:
    """Read the stamps of a slide's files: they change when a file does.

    Args:
        path: The file that the sheet names.

    Returns:
        Name, bytes, modification and change time (ns), and inode of each file.

    Raises:
        OSError: A file is missing or cannot be read.
    """
    stats = [(name or file.name, file.stat()) for name, file in slide_files(path)]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in stats]


def slide_fingerprint(path: Path, memo_path: Path | None = None) -> str:
    """Hash every byte of a slide's files, whatever the slide's name and folder.

    Args:
        path: The file that the sheet names.
        memo_path: JSON file of the last fingerprint. It is used while `file_stamps` are the same, and rewritten when
            they are not.

    Returns:
        32 hex digits.

    Raises:
        OSError: A file cannot be read, or changed meanwhile.
    """
    now = file_stamps(path)
    known = _read_memo(memo_path, now)
    if known:
        return known
    digest = artifacts.fingerprint(
        *sorted(f"{name} {artifacts.file_fingerprint(file)}" for name, file in slide_files(path))
    )
    if file_stamps(path) != now:
        raise OSError(f"{path}: changed while it was read; run snakemake again once it is whole")
    if memo_path:
        artifacts.write_json(memo_path, {"fingerprint": digest, "stamp": now})
    return digest


def sample_fingerprint(path: Path) -> str:
    """Hash a sample of a slide: evenly spaced blocks of each file, the first and last included.

    Slides that differ in it are different; equal ones need not be the same. Small files are read whole.

    Args:
        path: The file that the sheet names.

    Returns:
        32 hex digits.

    Raises:
        OSError: A file cannot be read.
    """
    parts = []
    for name, file in slide_files(path):
        size, digest = file.stat().st_size, hashlib.blake2b(digest_size=16)
        last = max(0, size - SAMPLE_BYTES)
        with file.open("rb") as opened:
            for offset in np.unique(np.linspace(0, last, min(N_SAMPLES, last // SAMPLE_BYTES + 2)).astype(np.int64)):
                opened.seek(int(offset))
                digest.update(opened.read(SAMPLE_BYTES))
        parts.append(f"{name} {size} {digest.hexdigest()}")
    return artifacts.fingerprint(*sorted(parts))


def describe_files(paths: Mapping[str, Path]) -> dict[str, tuple[str, int]]:
    """Describe the files of each slide by names, sizes and dates, without reading them: to tell when a slide changes.

    Some bytes are read only of slides whose files would be described alike. Folders are left out, as slides may move.

    Args:
        paths: The file that the sheet names, by slide id.

    Returns:
        A description and the bytes of all its files, by slide id; of a slide that cannot be read the error and 0.
    """
    descriptions = {slide_id: _describe(path) for slide_id, path in paths.items()}
    counts = Counter(descriptions.values())
    for slide_id, (text, size) in descriptions.items():
        if size and counts[text, size] > 1:
            try:
                descriptions[slide_id] = f"{text}; {sample_fingerprint(paths[slide_id])}", size
            except OSError as error:
                descriptions[slide_id] = _describe_unread(error)
    return descriptions


def _describe_unread(error: OSError) -> tuple[str, int]:
    return f"not read: {error.strerror}", 0  # its jobs report it, after a retry


def _describe(path: Path) -> tuple[str, int]:
    try:
        (_, size, date, *_), *others = file_stamps(path)
    except SlideError:  # a folder; its jobs report it
        return "no slide", 0
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
        paths: The file of each slide by its id. Slides that cannot be read are skipped.

    Returns:
        The ids of each group of two or more, in the order of `paths`.
    """
    groups: list[list[str]] = [[*paths]]
    for key in (lambda path: str(sorted(part[1] for part in file_stamps(path))), sample_fingerprint, slide_fingerprint):
        finer: dict[tuple[int, str], list[str]] = defaultdict(list)
        for i, group in enumerate(groups):
            for slide_id in group:
                try:
                    finer[i, key(paths[slide_id])].append(slide_id)
                except (OSError, SlideError):
                    continue
        groups = [group for group in finer.values() if len(group) > 1]
    return [tuple(group) for group in groups]


def _read_memo(memo_path: Path | None, now: FileStamps) -> str:
    """Fingerprint of a memo; "" if it is of other files, damaged or missing."""
    try:
        memo = artifacts.read_json(memo_path) if memo_path else None
        return str(memo["fingerprint"]) if memo and [tuple(stamp) for stamp in memo["stamp"]] == now else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
