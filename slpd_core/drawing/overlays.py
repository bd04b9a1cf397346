"""Pictures to look a slide over: its tissue, its regions, or why it is quarantined."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from shapely import Polygon

OVERLAY_PX = 1024  # longer side of a picture, at most
OUTLINE, KEPT, DROPPED = (0, 140, 60), (20, 60, 200), (200, 90, 0)
LINE_PX = 3
FONT_PX = 26


def outline_tissue(pixels: np.ndarray, polygons: tuple[Polygon, ...], scale: tuple[float, float]) -> Image.Image:
    """The thumbnail with the tissue's outline.

    pixels: uint8 RGB (rows, columns, 3). scale: (x, y) units of the polygons a pixel of the thumbnail.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((OVERLAY_PX, OVERLAY_PX))
    shrink = picture.width / pixels.shape[1], picture.height / pixels.shape[0]
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords) / scale * shrink
            draw.line([tuple(point) for point in points], fill=OUTLINE, width=LINE_PX)
    return picture


def draw_regions(
    outlined: Image.Image, slide_px: tuple[int, int], kept: np.ndarray, dropped: np.ndarray, region_px: int
) -> Image.Image:
    """The picture of a slide's tissue with the squares that were kept, and thinner those with too little tissue.

    kept, dropped: (squares, 2) upper left corners, region_px their side, slide_px (width, height): level-0 px. Grows
    where squares hang over the slide's edge.
    """
    shrink = outlined.width / slide_px[0]
    corners = np.concatenate([kept, dropped])
    low = np.minimum(corners.min(0, initial=0), 0) if len(corners) else np.zeros(2)
    high = np.maximum((corners + region_px).max(0), slide_px) if len(corners) else np.array(slide_px)
    offset = np.ceil(-low * shrink).astype(int)
    size = np.maximum(np.ceil(high * shrink).astype(int) + offset, outlined.size + offset) + LINE_PX
    picture = Image.new("RGB", tuple(size.tolist()), "white")
    picture.paste(outlined, tuple(offset.tolist()))
    draw = ImageDraw.Draw(picture)
    for squares, colour, width in ((dropped, DROPPED, 1), (kept, KEPT, LINE_PX)):
        for x, y in squares * shrink + offset:
            draw.rectangle((x, y, x + region_px * shrink, y + region_px * shrink), outline=colour, width=width)
    return picture


def placeholder_image(slide_id: str, reason: str) -> Image.Image:
    """A picture that says why a slide is quarantined."""
    lines = [f"{slide_id}: quarantined", "", *textwrap.wrap(reason, 44)]
    picture = Image.new("RGB", (640, 40 + len(lines) * (FONT_PX + 8)), "white")
    font = ImageFont.load_default(size=FONT_PX)
    ImageDraw.Draw(picture).multiline_text((20, 20), "\n".join(lines), fill=(160, 20, 20), spacing=6, font=font)
    return picture
