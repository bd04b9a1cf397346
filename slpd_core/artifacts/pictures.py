"""Pictures: PNG and JPEG, followed by the file's name and checksum, which viewers ignore."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slpd_core.artifacts.checksums import read_sealed, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import broken

TRAILER = b"\nslpd "
NUMBERED: Mapping[str, str] = MappingProxyType({"slides": "numbers"})  # of a picture that shows no names of slides
FORMATS = {".png": "PNG", ".jpg": "JPEG"}


def write_picture(path: Path, picture: Any, *, meta: Mapping[str, str] = MappingProxyType({}), **options: Any) -> None:
    """Write a picture, with its checksum and the file's name.

    Args:
        path: Of the file; ends in .png or .jpg.
        picture: A PIL image.
        meta: Metadata.
        options: Options of PIL's writer, such as `quality`.
    """
    content = io.BytesIO()
    picture.save(content, FORMATS[path.suffix], **options)
    write_sealed(path, content.getvalue() + TRAILER + json.dumps({**stamp(path), **meta}).encode())


def read_picture(path: Path) -> bytes:
    """Read a picture that `write_picture` wrote.

    Args:
        path: Of the file.

    Returns:
        The bytes of a PNG or JPEG.

    Raises:
        ValueError: The file is damaged or was written as another artifact.
    """
    return _read(path)[0]


def read_picture_meta(path: Path) -> dict[str, Any]:
    """Read the metadata of a picture that `write_picture` wrote.

    Args:
        path: Of the file.

    Returns:
        The metadata.

    Raises:
        ValueError: As `read_picture`.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a picture and its metadata; raises as `read_picture`."""
    content, _, trailer = read_sealed(path).tobytes().rpartition(TRAILER)
    try:
        meta = json.loads(trailer)
    except ValueError as error:
        raise ValueError(broken(path, "not a picture of this pipeline")) from error
    return content, unstamp(path, meta)
