"""Open files so that a failure of the file system is never taken for a broken file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slpd_core.artifacts.files import missing_file


class NamedFile(io.FileIO):
    """A file whose errors name it: a share that is away or a missing permission is no fault of the file.

    Raises:
        FileNotFoundError: There is no file; names the command that builds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        with self._naming():
            super().__init__(path)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file(self._path) from error
        except OSError as error:
            remedy = "the file itself may be whole: mend this and run snakemake again"
            raise OSError(error.errno, f"{error.strerror}; {remedy}", str(self._path)) from error

    def readinto(self, buffer: Any) -> Any:
        """Read bytes into a buffer, as io.FileIO does."""
        with self._naming():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """Read the remaining bytes, as io.FileIO does."""
        with self._naming():
            return super().readall()


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Args:
        path: Of the file.

    Returns:
        The file. Its OSError has an errno if the system failed, and none if the content is broken.

    Raises:
        FileNotFoundError: There is no file.
    """
    return io.BufferedReader(NamedFile(path))


def read_bytes(path: Path) -> bytes:
    """Read a file; errors of the system name it.

    Args:
        path: Of the file.

    Returns:
        Its bytes.

    Raises:
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        return file.read()
