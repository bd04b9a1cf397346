"""Whole files or none: written beside their name and renamed; fingerprints, and what a broken file is answered with."""

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
from typing import Any

import pandas as pd
import xxhash

from slpd_core import __version__
from slpd_core.artifacts.schema import Meta

# Where a spreadsheet would begin a formula: at a cell's start, or behind what another country's separates cells by.
FORMULA = re.compile(r"(^|[;\t|])(?=[\s\"]*[=+\-@＝＋－＠])")
SECONDS_OF_A_DAY = 86_400


def fingerprint(*parts: str) -> str:
    """Hash texts into 32 hex digits; names of files in them need not be UTF-8."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Hash every byte of a file into 32 hex digits (xxh3_128, as fast as the file is read).

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def provenance(stage: str, version: int, section: Mapping[str, Any], *inputs: str) -> Meta:
    """The metadata every artifact carries.

    inputs: fingerprints of what the stage read. The artifact's own fingerprint covers the stage, its version, its
    section and those.
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
    """Raise ValueError where an artifact was made from another ledger, as that of another cohort.

    Args:
        path: of the artifact, for the error.
        meta: its metadata; `ledger` is the fingerprint of the ledger that it was made from.
        ledger: the fingerprint of the ledger that it is used with; "" where it is not known.
    """
    made_from = meta.get("ledger", "")
    if made_from and ledger and made_from != ledger:
        raise ValueError(broken(path, "was made from another ledger: of another cohort, or an earlier one of this"))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the name `path` when the block ends well and is removed otherwise.

    Other processes may write the same artifact meanwhile; whatever killed ones left of it is removed. Raises OSError
    naming the artifact when the disk or a quota is full, whatever the library that writes says of it.
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
    """What process ids belong to: the machine since it started, and the container on it; 8 hex digits."""
    parts = [os.uname().nodename]
    with suppress(OSError):  # elsewhere than on Linux
        parts += [os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text()]
    return fingerprint(*parts)[:8]


def _is_left(part: Path) -> bool:
    """Whether no process writes a temporary file any more: its own has ended; of another machine's, for a day."""
    _, machine, number, *_ = ("", "", *part.name.split("."))[-5:]
    try:
        if machine != _machine():
            return time.time() - part.stat().st_mtime > SECONDS_OF_A_DAY
        os.kill(int(number), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (PermissionError, ValueError, OverflowError):
        return False
    return False


def write_text(path: Path, text: str) -> None:
    """Write a text file whole (CSV, Markdown, LaTeX, HTML)."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, frame: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table for people's spreadsheets, which would run a text that begins as a formula: a ' goes before it."""
    plain = frame.rename(columns=_as_text).map(_as_text)
    write_text(path, plain.to_csv(index=False, float_format=float_format))


def _as_text(cell: Any) -> Any:
    """A cell as one text of one line, to the spreadsheets of every country."""
    return FORMULA.sub(r"\1'", re.sub(r"[\r\n]", " ", cell)) if isinstance(cell, str) else cell


def rebuild_hint(path: Path) -> str:
    """The remedy for a broken or missing artifact: its file by name, as a finished run misses none that it has used."""
    return f"delete the file and make it anew: snakemake --cores all {shlex.quote(str(path))}"


def broken(path: Path, found: str) -> str:
    return f"{path}: {found}; {rebuild_hint(path)}"


def missing_file(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path}: no such file; make it: snakemake --cores all {shlex.quote(str(path))}")
