"""Pictures: PNG and JPEG, and behind them what the file says of itself, which viewers pass over."""

import io
import json
from pathlib import Path
from typing import Any

from slpd_core.artifacts.checksums import read_sealed, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import broken

TRAILER = b"\nslpd "
FORMATS = {".png": "PNG", ".jpg": "JPEG"}


def write_picture(path: Path, picture: Any, **options: Any) -> None:
    """Write a picture, with its checksum and the file's name.

    Args:
        path: ends in .png or .jpg.
        picture: a PIL image.
        options: of PIL's writer, as `quality`.
    """
    content = io.BytesIO()
    picture.save(content, FORMATS[path.suffix], **options)
    write_sealed(path, content.getvalue() + TRAILER + json.dumps(stamp(path)).encode())


def read_picture(path: Path) -> bytes:
    """Read a picture that `write_picture` wrote.

    Args:
        path: of the file.

    Returns:
        The bytes of a PNG or JPEG.

    Raises:
        ValueError: Where they are damaged, or another picture's.
    """
    content, _, trailer = read_sealed(path).tobytes().rpartition(TRAILER)
    try:
        meta = json.loads(trailer)
    except ValueError as error:
        raise ValueError(broken(path, "no picture")) from error
    unstamp(path, meta)
    return content
