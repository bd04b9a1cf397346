"""Whole files or none: written beside their name and renamed; fingerprints; errors of broken and missing files."""

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from slpd_core import __version__
from slpd_core.artifacts.schema import Meta

if TYPE_CHECKING:  # as in `tables`
    import pandas as pd

# A spreadsheet begins a formula at a cell's start, or behind the separator that another country's uses.
FORMULA = re.compile(r"(^|[;\t|])(?=[\s\"]*[=+\-@＝＋－＠])")
SECONDS_OF_A_DAY = 86_400


def fingerprint(*parts: str) -> str:
    """Hash texts; names of files in them need not be UTF-8.

    Args:
        parts: The texts, in order.

    Returns:
        32 hex digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Hash every byte of a file (xxh3_128, as fast as the file is read).

    Args:
        path: Of the file.

    Returns:
        32 hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def provenance(stage: str, version: int, section: Mapping[str, Any], *inputs: str) -> Meta:
    """Make the metadata that every artifact carries.

    Args:
        stage: The stage's word.
        version: The stage's VERSION.
        section: The stage's settings, as JSON holds them.
        inputs: Fingerprints of the stage's inputs.

    Returns:
        These, the package's version and `fingerprint`, a hash of all but that version.
    """
    text = json.dumps(section, sort_keys=True)
    return {
        "slpd_version": __version__,
        "stage": stage,
        "stage_version": str(version),
        "section": text,
        "fingerprint": fingerprint(stage, str(version), text, *inputs),
    }


def check_ledger(path: Path, meta: Meta, ledger: str) -> None:
    """Check that an artifact was made from the ledger that it is used with.

    Args:
        path: Of the artifact, for the error.
        meta: Its metadata; `ledger` is the fingerprint of the ledger that it was made from.
        ledger: Fingerprint of the ledger that it is used with; "" if unknown.

    Raises:
        ValueError: It was made from another ledger, for example another cohort's.
    """
    made_from = meta.get("ledger", "")
    if made_from and ledger and made_from != ledger:
        raise ValueError(broken(path, "was made from another ledger: of another cohort, or an earlier one of this"))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: it is renamed to `path` when the block ends well, else removed.

    Other processes may write the same file meanwhile. Temporary files of killed processes are removed.

    Args:
        path: Of the file; its folder is created.

    Yields:
        A temporary path in the same folder, to write to.

    Raises:
        OSError: The disk or a quota is full; the error names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if _is_left(left):
            left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        full = [code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code) in str(error)]
        if not full:
            raise
        remedy = f"{os.strerror(full[0])}; make room and run snakemake again"
        raise OSError(full[0], remedy, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """The scope of process ids, in 8 hex digits: the machine since it started, and the container on it."""
    parts = [os.uname().nodename]
    with suppress(OSError):  # elsewhere than on Linux
        parts += [os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text()]
    return fingerprint(*parts)[:8]


def _is_left(part: Path) -> bool:
    """Whether a temporary file is abandoned: its process has ended; another machine's file is a day old."""
    _, machine, pid, *_ = ("", "", *part.name.split("."))[-5:]
    try:
        if machine != _machine():
            return time.time() - part.stat().st_mtime > SECONDS_OF_A_DAY
        os.kill(int(pid), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (PermissionError, ValueError, OverflowError):
        return False
    return False


def write_text(path: Path, text: str) -> None:
    """Write a text file whole (CSV, Markdown, LaTeX, HTML).

    Args:
        path: Of the file.
        text: Its content.
    """
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, frame: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a CSV that a spreadsheet opens safely: a ' precedes a text that begins as a formula.

    Args:
        path: Of the file.
        frame: The table.
        float_format: Format of floats, such as "%.4f"; without it as pandas writes them.
    """
    plain = frame.rename(columns=_as_text).map(_as_text)
    write_text(path, plain.to_csv(index=False, float_format=float_format))


def _as_text(cell: Any) -> Any:
    """A text as one line that no country's spreadsheet reads as a formula; any other value as it is."""
    return FORMULA.sub(r"\1'", re.sub(r"[\r\n]", " ", cell)) if isinstance(cell, str) else cell


def rebuild_hint(path: Path) -> str:
    """Word the remedy for a broken artifact: delete it, and rebuild it by its name.

    Args:
        path: Of the file.

    Returns:
        The remedy, with the command.
    """
    # The command names the file: a finished run does not miss a file that it has used.
    return f"delete the file and rebuild it: snakemake --cores all {shlex.quote(str(path))}"


def broken(path: Path, problem: str) -> str:
    """Word the error of a broken artifact.

    Args:
        path: Of the file.
        problem: The problem in words.

    Returns:
        The file, the problem and the remedy.
    """
    return f"{path}: {problem}; {rebuild_hint(path)}"


def missing_file(path: Path) -> FileNotFoundError:
    """Make the error of a missing artifact.

    Args:
        path: Of the file.

    Returns:
        The error, with the command that builds the file.
    """
    return FileNotFoundError(f"{path}: no such file; build it: snakemake --cores all {shlex.quote(str(path))}")
