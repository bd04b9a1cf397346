"""Reading a file so that what its file system fails at is never taken for a broken file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slpd_core.artifacts.files import missing_file


class NamedFile(io.FileIO):
    """A file to read whose errors name it: the system's (a share that is away, no permission) are no fault of the file.

    Raises FileNotFoundError where there is none, with the command that makes it.
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
        """Read some bytes into a buffer."""
        with self._naming():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """Read what is left."""
        with self._naming():
            return super().readall()


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read, so that an OSError with a number is the system's, and one without a broken content's."""
    return io.BufferedReader(NamedFile(path))


def read_bytes(path: Path) -> bytes:
    """Read a file whole; errors of the system name it."""
    with open_file(path) as file:
        return file.read()
