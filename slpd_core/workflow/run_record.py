"""The record of a run beside its page: when, by which command and code, and which settings were changed."""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slpd_core import artifacts, config
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.report.provenance import read_versions
from slpd_core.report.pseudonyms import hide_texts

NAMING = ("sheet", "labels", "predict", "search")  # sections that name slides, or files of them


def write_run_record(
    paths: CohortPaths, settings: config.Config, repository: Path, *, command: Sequence[str] | None = None
) -> None:
    """Write the record beside a page that was made since the last record; without such a page nothing is written.

    With report.pseudonyms it names no slide, file or folder.

    Args:
        paths: The files of the cohort.
        settings: The whole config.
        repository: Folder of the workflow.
        command: The command line; None: that of this process.
    """
    page, record = paths.page(), paths.run_record()
    if not page.exists() or (record.exists() and record.stat().st_mtime_ns >= page.stat().st_mtime_ns):
        return
    commit, is_changed = find_commit(repository)
    here, paper = (one.model_dump(mode="json") for one in (settings, config.default_config()))
    changes = {key: {"here": ours, "paper": theirs} for key, ours, theirs in list_changes(here, paper)}
    started = {"command": shlex.join(sys.argv if command is None else command), "folder": str(Path.cwd())}
    if settings.report.pseudonyms:
        started = {}
        changes = {key: hide_texts(change) for key, change in changes.items() if key.split(".")[0] not in NAMING}
    content = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **started,
        "commit": commit,
        "code_changed": is_changed,
        "versions": read_versions(),
        "changed_settings": changes,
    }
    artifacts.write_plain_json(record, content)


def list_changes(here: Mapping[str, Any], default: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """List the settings that differ from those of config.yaml, which are the paper's where the paper has any.

    Args:
        here: The settings, by section.
        default: Those of config.yaml.
        key: Of the section, with a dot at its end; "" at the top.

    Yields:
        Key, value here and value there, None where there is none.
    """
    for name in sorted({**default, **here}):
        ours, theirs = here.get(name), default.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and theirs:
            yield from list_changes(ours, theirs, f"{key}{name}.")
        elif ours != theirs:
            yield f"{key}{name}", ours, theirs


def find_commit(repository: Path) -> tuple[str | None, bool | None]:
    """Find the commit of a checkout, and whether files that it tracks were changed since.

    Args:
        repository: Folder of the workflow.

    Returns:
        The commit and whether there are changes; None and None where there is no checkout, or no git.
    """
    git = ["git", "-C", str(repository)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return head, bool(changes.stdout.strip())
