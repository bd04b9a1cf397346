"""A folder of slides in place of a sheet: ids are the names of the files."""

from collections import Counter
from pathlib import Path

import pandas as pd

from slpd_core.artifacts.ids import fold_id, is_safe_id, normalize_id
from slpd_core.runtime import log, name_some
from slpd_core.wsi.slide_folder import KNOWN_SUFFIXES, find_slides


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
    rows = sorted((normalize_id(name), path) for name, path in slides)
    problems: list[str] = []
    first_of: dict[str, Path] = {}
    for slide_id, path in rows:
        where = f"{path.relative_to(folder)}, slide {slide_id!r}"
        if not is_safe_id(slide_id):
            problems.append(f"{where}: rename the file; use letters, digits, inner spaces, . _ - ( ) and +")
        first = first_of.setdefault(fold_id(slide_id), path)
        if first != path:
            problems.append(f"{where}: has the name of {first.relative_to(folder)}; rename one, or write a sheet")
    if problems:
        raise ValueError(f"{folder}: {len(problems)} problem(s)\n  " + "\n  ".join(problems))
    log.info("%s: %d slides%s", folder, len(rows), left_out)
    return pd.DataFrame([(slide_id, str(path)) for slide_id, path in rows], columns=["slide_id", "path"])


def _count(extensions: Counter[str]) -> str:
    """Extensions and their numbers of files, the most frequent first."""
    counts = sorted(extensions.items(), key=lambda item: (-item[1], item[0]))
    return name_some([f"{suffix or 'no extension'} ({count:,})" for suffix, count in counts])
