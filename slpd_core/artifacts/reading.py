"""Reading files so that a failure of the file system is never taken for a broken file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slpd_core.artifacts.files import missing_file


class NamedFile(io.FileIO):
    """A file opened to read; errors of the system (a share that is offline, no permission) name it.

    Args:
        path: Of the file.

    Raises:
        FileNotFoundError: There is no such file; the error has the command that builds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        with self._naming():
            super().__init__(path)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the file in errors of the system."""
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file(self._path) from error
        except OSError as error:
            remedy = "the file itself may be whole: solve this and run snakemake again"
            raise OSError(error.errno, f"{error.strerror}; {remedy}", str(self._path)) from error

    def readinto(self, buffer: Any) -> Any:
        """Read some bytes, as io.FileIO.

        Args:
            buffer: Bytes-like object to read into.

        Returns:
            The number of bytes read.
        """
        with self._naming():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """Read the rest of the file, as io.FileIO.

        Returns:
            Its bytes.
        """
        with self._naming():
            return super().readall()


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read. An OSError with an errno is then the system's; one without comes from broken content.

    Args:
        path: Of the file.

    Returns:
        The open file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return io.BufferedReader(NamedFile(path))


def read_bytes(path: Path) -> bytes:
    """Read all bytes of a file; errors of the system name it.

    Args:
        path: Of the file.

    Returns:
        Its bytes.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with open_file(path) as file:
        return file.read()
