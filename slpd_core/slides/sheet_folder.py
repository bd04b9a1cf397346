"""A folder of slides, or slides' files, in place of a sheet: ids are the names of the files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slpd_core.artifacts.ids import fold_id, is_safe_id, normalize_id
from slpd_core.runtime import log, name_some
from slpd_core.wsi.slide_folder import KNOWN_SUFFIXES, find_slides, slide_name


def read_sheet_folder(folder: Path) -> pd.DataFrame:
    """List the slides in a folder and the folders below it, as rows of a sheet.

    Args:
        folder: The folder.

    Returns:
        Columns slide_id and path, sorted by slide_id.

    Raises:
        ValueError: There is no slide, or files cannot name slides: two have one name, or one has an unsafe name.
        OSError: A folder cannot be read.
    """
    slides, others = find_slides(folder)
    left_out = f"; left out by extension: {_count(others)}" if others else ""
    if not slides:
        looked_for = f"looked for {' '.join(sorted(KNOWN_SUFFIXES))}{left_out}"
        raise ValueError(f"{folder}: no slide in it or below it; {looked_for}. Correct the path, or write a sheet")
    log.info("%s: %d slides%s", folder, len(slides), left_out)
    return _name_slides(str(folder), [(name, path, str(path.relative_to(folder))) for name, path in slides])


def read_slide_files(paths: Sequence[str]) -> pd.DataFrame:
    """List slides' files, or folders that are slides, as rows of a sheet.

    Args:
        paths: Of the slides.

    Returns:
        Columns slide_id and path, sorted by slide_id.

    Raises:
        ValueError: As `read_sheet_folder`.
    """
    return _name_slides("files of slides", [(slide_name(Path(path)), Path(path), path) for path in paths])


def _name_slides(source: str, slides: Sequence[tuple[str, Path, str]]) -> pd.DataFrame:
    """The rows of slides (name, path, and the path for errors); raises ValueError where names are no ids, or alike."""
    rows = sorted((normalize_id(name), path, shown) for name, path, shown in slides)
    problems: list[str] = []
    first_of: dict[str, str] = {}
    for slide_id, _, shown in rows:
        if not is_safe_id(slide_id):
            problems.append(
                f"{shown}, slide {slide_id!r}: rename the file; use letters, digits, inner spaces, . _ - ( ) and +"
            )
        first = first_of.setdefault(fold_id(slide_id), shown)
        if first != shown:
            problems.append(f"{shown}, slide {slide_id!r}: has the name of {first}; rename one, or write a sheet")
    if problems:
        raise ValueError(f"{source}: {len(problems)} problem(s)\n  " + "\n  ".join(problems))
    return pd.DataFrame([(slide_id, str(path)) for slide_id, path, _ in rows], columns=["slide_id", "path"])


def _count(extensions: Counter[str]) -> str:
    """Extensions and their numbers of files, the most frequent first."""
    counts = sorted(extensions.items(), key=lambda item: (-item[1], item[0]))
    return name_some([f"{suffix or 'no extension'} ({count:,})" for suffix, count in counts])
