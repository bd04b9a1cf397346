"""HTML pages: templates, and pictures and scripts inside the page."""

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from slpd_core import artifacts
from slpd_core.drawing.caption import caption_height
from slpd_core.runtime import progress

THUMBNAIL_PX = 200
MAX_THUMBNAIL_BYTES = 18_000_000  # of all in a page, which is then smaller than 25 MB


def render(template: str, **values: Any) -> str:
    """Render a template of the package.

    Args:
        template: Its path below slpd_core.
        values: By the template's names.

    Returns:
        HTML, everything inline.
    """
    loader = jinja2.PackageLoader("slpd_core", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def inline_scripts(*names: str) -> dict[str, Markup]:
    """Prepare scripts of this folder for a page, and the policy that allows them alone.

    Args:
        names: Files, such as "table.js", which makes tables of class "explorable" sortable and searchable.

    Returns:
        Values for `render`: policy, the content of the page's Content-Security-Policy; scripts, its last elements.
    """
    texts = [resources.files(__package__).joinpath(name).read_text("utf-8") for name in names]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    allowed = "".join(f" 'sha256-{digest}'" for digest in hashes)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src{allowed}"
    elements = "\n".join(f"<script>{text}</script>" for text in texts)
    return {"policy": Markup(policy), "scripts": Markup(elements)}


def data_uri(kind: str, content: bytes) -> str:
    """Encode a picture as an address inside the page.

    Args:
        kind: "png" or "jpeg".
        content: Of the file.

    Returns:
        A data URI.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def inline_jpeg(picture: Image.Image) -> str:
    """Encode a small picture as a JPEG inside the page.

    Args:
        picture: RGB.

    Returns:
        A data URI.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return data_uri("jpeg", buffer.getvalue())


def shrink_picture(uri: str, side_px: int) -> str:
    """Shrink a picture inside a page.

    Args:
        uri: A data URI.
        side_px: The longer side that it is shrunk to.

    Returns:
        A data URI of a JPEG.
    """
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((side_px, side_px))
    return inline_jpeg(picture)


def inline_picture(content: bytes, file: str, dpi: float = 96) -> dict[str, Any]:
    """Prepare a PNG or JPEG for the page.

    Args:
        content: Of the file.
        file: Its name beside the page.
        dpi: Pixels per inch of the picture.

    Returns:
        src, a data URI; file; width and height in CSS px, 96 per inch.
    """
    with Image.open(io.BytesIO(content)) as opened:
        kind, (width, height) = str(opened.format).lower(), opened.size
    px = {"width": round(width * 96 / dpi), "height": round(height * 96 / dpi)}
    return {"src": data_uri(kind, content), "file": file} | px


def inline_thumbnails(
    overlays_dir: Path, slide_ids: Sequence[str], max_bytes: int = MAX_THUMBNAIL_BYTES
) -> dict[str, str]:
    """Make small inline JPEGs of slides' overlays, without their captions, until they fill the page.

    Args:
        overlays_dir: Of {slide}.png.
        slide_ids: In the order of the page.
        max_bytes: Of all data URIs.

    Returns:
        Slide to data URI, "" without an overlay; slides from the first that does not fit are missing.
    """
    uris: dict[str, str] = {}
    for slide in progress(slide_ids, len(slide_ids), "thumbnails", "slides"):
        uri, path = "", overlays_dir / f"{slide}.png"
        if path.exists():
            with Image.open(io.BytesIO(artifacts.read_picture(path))) as overlay:
                small = overlay.convert("RGB").crop((0, 0, overlay.width, overlay.height - caption_height(overlay)))
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            uri = inline_jpeg(small)
        max_bytes -= len(uri)
        if max_bytes < 0:
            break
        uris[slide] = uri
    return uris
