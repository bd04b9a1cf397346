"""Overlays on a slide's thumbnail: its tissue, its regions; or why it is quarantined."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from shapely import Polygon

from slpd_core import artifacts, config
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide

OVERLAY_PX = 1024  # longer side of a thumbnail, at most
TISSUE_COLOR, KEPT_COLOR, DROPPED_COLOR = (0, 140, 60), (20, 60, 200), (200, 90, 0)
LINE_PX = 3
PLACEHOLDER_FONT_PX = 26


@config.check_arguments(config.TissueSegmentationConfig)
def draw_overlay(
    slide: Slide, tissue: artifacts.Tissue, regions: artifacts.Regions | None = None, *, thumbnail_mpp: float = 8.0
) -> np.ndarray:
    """Draw a slide's tissue and regions on its thumbnail.

    Args:
        slide: An open slide.
        tissue: Its tissue, outlined in green.
        regions: Its regions, outlined in blue; None: none.
        thumbnail_mpp: um/px of the thumbnail.

    Returns:
        The picture, uint8 RGB (rows, columns, 3): at most 1024 px wide and high, plus the regions' overhang.
    """
    scale = (downsample_factor(slide.mpp, max(slide.mpp, thumbnail_mpp)),) * 2
    picture = outline_tissue(slide.thumbnail(thumbnail_mpp), tissue.polygons, scale)
    if regions is not None:
        picture = draw_regions(picture, slide.size, regions.coords, regions.coords[:0], regions.size_level0_px)
    return np.asarray(picture)


def outline_tissue(pixels: np.ndarray, polygons: tuple[Polygon, ...], scale: tuple[float, float]) -> Image.Image:
    """Outline the tissue on a thumbnail.

    Args:
        pixels: The thumbnail, uint8 RGB (rows, columns, 3).
        polygons: The tissue.
        scale: (x, y), units of the polygons per pixel of the thumbnail.

    Returns:
        The picture, its longer side at most OVERLAY_PX.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((OVERLAY_PX, OVERLAY_PX))
    shrink = picture.width / pixels.shape[1], picture.height / pixels.shape[0]
    pen = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords) / scale * shrink
            pen.line([tuple(point) for point in points], fill=TISSUE_COLOR, width=LINE_PX)
    return picture


def draw_regions(
    outlined: Image.Image, slide_px: tuple[int, int], kept: np.ndarray, dropped: np.ndarray, region_px: int
) -> Image.Image:
    """Draw a slide's regions, and thinner the squares with too little tissue.

    Args:
        outlined: The thumbnail with its tissue.
        slide_px: Width and height of the slide, level-0 px.
        kept, dropped: Upper left corners of the squares, (squares, 2), level-0 px.
        region_px: Side of a square, level-0 px.

    Returns:
        The picture, larger than the thumbnail where squares hang over the slide's edge.
    """
    shrink = outlined.width / slide_px[0]
    corners = np.concatenate([kept, dropped])
    low = np.minimum(corners.min(0, initial=0), 0) if len(corners) else np.zeros(2)
    high = np.maximum((corners + region_px).max(0), slide_px) if len(corners) else np.array(slide_px)
    offset = np.ceil(-low * shrink).astype(int)
    size = np.maximum(np.ceil(high * shrink).astype(int) + offset, outlined.size + offset) + LINE_PX
    picture = Image.new("RGB", tuple(size.tolist()), "white")
    picture.paste(outlined, tuple(offset.tolist()))
    pen = ImageDraw.Draw(picture)
    for squares, color, width in ((dropped, DROPPED_COLOR, 1), (kept, KEPT_COLOR, LINE_PX)):
        for x, y in squares * shrink + offset:
            pen.rectangle((x, y, x + region_px * shrink, y + region_px * shrink), outline=color, width=width)
    return picture


def frame_regions(
    thumbnail: Image.Image, slide_px: tuple[int, int], coords: np.ndarray, region_px: int, colors: Sequence[str]
) -> Image.Image:
    """Frame some regions of a slide on its thumbnail, each in its color; where frames meet, the first is on top.

    Args:
        thumbnail: Of the whole slide, RGB.
        slide_px: Width and height of the slide, level-0 px.
        coords: Upper left corners of the regions, (n, 2), level-0 px.
        region_px: Side of a region, level-0 px.
        colors: Of the regions, as Pillow takes them; repeated if there are fewer.

    Returns:
        The picture, as large as the thumbnail.
    """
    picture = thumbnail.copy()
    pen, scale = ImageDraw.Draw(picture), (picture.width / slide_px[0], picture.height / slide_px[1])
    for i in reversed(range(len(coords))):
        low, high = coords[i] * scale, np.maximum((coords[i] + region_px) * scale, coords[i] * scale + 2 * LINE_PX)
        pen.rectangle((*low, *high), outline=colors[i % len(colors)], width=LINE_PX)
    return picture


def draw_placeholder(slide_id: str, reason: str) -> Image.Image:
    """Draw the picture of a quarantined slide: the reason as text.

    Args:
        slide_id: Id of the slide.
        reason: Why it is quarantined.

    Returns:
        The picture.
    """
    lines = [f"{slide_id}: quarantined", "", *textwrap.wrap(reason, 44)]
    picture = Image.new("RGB", (640, 40 + len(lines) * (PLACEHOLDER_FONT_PX + 8)), "white")
    font = ImageFont.load_default(size=PLACEHOLDER_FONT_PX)
    ImageDraw.Draw(picture).multiline_text((20, 20), "\n".join(lines), fill=(160, 20, 20), spacing=6, font=font)
    return picture
