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
from slpd_core.wsi.slide_files import slide_files

N_SAMPLES, SAMPLE_BYTES = 64, 65_536
Stamp = list[tuple[str, int, int, int, int]]


def file_stamps(path: Path) -> Stamp:
    """Return name, bytes, dates of content and of inode (ns), and inode of each of a slide's files.

    Raises:
        OSError: A file is not there, or cannot be read.
    """
    stats = [(file.name, file.stat()) for _, file in slide_files(path)]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in stats]


def slide_fingerprint(path: Path, memo_path: Path | None = None) -> str:
    """Hash every byte of a slide's files: 32 hex digits, whatever the slide is called and wherever it lies.

    Args:
        path: The file that the sheet names.
        memo_path: A JSON file of the last fingerprint, which holds while `stamp` is what it was; it is written anew
            where it is another.

    Raises:
        OSError: A file cannot be read, or changed meanwhile.
    """
    now = file_stamps(path)
    known = _read_memo(memo_path, now)
    if known:
        return known
    found = artifacts.fingerprint(
        *sorted(f"{name} {artifacts.file_fingerprint(file)}" for name, file in slide_files(path))
    )
    if file_stamps(path) != now:
        raise OSError(f"{path}: changed while it was read; run snakemake again once it is whole")
    if memo_path:
        artifacts.write_json(memo_path, {"fingerprint": found, "stamp": now})
    return found


def sample_fingerprint(path: Path) -> str:
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
            for offset in np.unique(np.linspace(0, last, min(N_SAMPLES, last // SAMPLE_BYTES + 2)).astype(np.int64)):
                opened.seek(int(offset))
                digest.update(opened.read(SAMPLE_BYTES))
        parts.append(f"{name} {size} {digest.hexdigest()}")
    return artifacts.fingerprint(*sorted(parts))


def describe_files(paths: Mapping[str, Path]) -> dict[str, tuple[str, int]]:
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
                found[slide_id] = f"{text}; {sample_fingerprint(paths[slide_id])}", size
            except OSError as error:
                found[slide_id] = _describe_unread(error)
    return found


def _describe_unread(error: OSError) -> tuple[str, int]:
    return f"not read: {error.strerror}", 0  # its jobs say so, after they tried again


def _describe(path: Path) -> tuple[str, int]:
    try:
        (_, size, date, *_), *others = file_stamps(path)
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
    for key in (lambda path: str(sorted(part[1] for part in file_stamps(path))), sample_fingerprint, slide_fingerprint):
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
