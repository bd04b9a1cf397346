"""What pages are made of: a template filled in, pictures inline."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from slpd_core import artifacts
from slpd_core.runtime import progress

THUMBNAIL_PX = 200


def render(template: str, **values: Any) -> str:
    """The page of a template of this folder, everything inline."""
    loader = jinja2.PackageLoader("slpd_core.report", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def data_uri(kind: str, content: bytes) -> str:
    """The address of an inline picture."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture(content: bytes, file: str, dpi: float = 96) -> dict[str, Any]:
    """A PNG or JPEG for the page: inline address, width and height in CSS px, of which 96 are an inch.

    file: what it is called beside the page.
    """
    with Image.open(io.BytesIO(content)) as opened:
        kind, (width, height) = str(opened.format).lower(), opened.size
    px = {"width": round(width * 96 / dpi), "height": round(height * 96 / dpi)}
    return {"src": data_uri(kind, content), "file": file} | px


def thumbnails(overlays_dir: Path, slide_ids: Sequence[str], room: int) -> dict[str, str]:
    """Small inline JPEGs of the slides' overlays, {slide}.png: slide → address, as long as they take `room` bytes.

    "" where a slide has no overlay; slides from the first that does not fit are left out.
    """
    found: dict[str, str] = {}
    for slide in progress(slide_ids, len(slide_ids), "thumbnails", "slides"):
        uri, path = "", overlays_dir / f"{slide}.png"
        if path.exists():
            with Image.open(io.BytesIO(artifacts.read_picture(path))) as overlay:
                small = overlay.convert("RGB")
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            buffer = io.BytesIO()
            small.save(buffer, format="JPEG", quality=80)
            uri = data_uri("jpeg", buffer.getvalue())
        room -= len(uri)
        if room < 0:
            break
        found[slide] = uri
    return found
