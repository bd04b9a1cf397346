"""Heat maps: a slide's thumbnail, its regions colored by a classifier's attention to each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slpd_core import artifacts
from slpd_core.drawing.text import FONT_PX, INK, LINE_PX, MUTED, wrap_text

TILE_PX, SHEET_COLUMNS = 360, 3  # of a contact sheet: longer side of a slide, slides side by side
GAP_PX, BAR_PX, JPEG_QUALITY = 16, 14, 88
OPACITY = (0.1, 0.7)  # of the average region, so that its tissue shows, and of the regions at both ends of the scale
# log2 of attention over that of the average region -> color: blue below, white at, red above it (ColorBrewer's RdBu,
# which is safe for the color blind).
MAX_LOG2 = 2.0
RDBU = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
OUTLINE, OUTLINED_PX = (60, 60, 60, 170), 5  # of a region, if its side on the picture is at least this
ALIKE = 1.1  # the most attention to a region over the least: below it the colors cannot be told apart
TICKS = ("1/4", "1/2", "1", "2", "4 x the average")


def attention_colors(ratio: np.ndarray) -> np.ndarray:
    """Map attention to colors.

    Args:
        ratio: Attention over that of the average region, (L,); below 1/4 and above 4 the colors do not change.

    Returns:
        uint8 RGBA (L, 4).
    """
    with np.errstate(divide="ignore"):
        level = np.clip(np.log2(ratio), -MAX_LOG2, MAX_LOG2)
    stops = np.linspace(-MAX_LOG2, MAX_LOG2, len(RDBU))
    channels = [np.interp(level, stops, channel) for channel in zip(*RDBU, strict=True)]
    opacity = np.interp(abs(level), (0, MAX_LOG2), OPACITY) * 255
    return np.stack([*channels, opacity], 1).round().astype(np.uint8)


def describe_evenness(attention: np.ndarray) -> str:
    """Say whether attention tells the regions of a slide apart.

    Args:
        attention: To each region, (L,).

    Returns:
        A phrase where all regions count alike, else "".
    """
    return "all regions count alike" if len(attention) > 1 and np.ptp(np.log(attention + 1e-12)) < np.log(ALIKE) else ""


def draw_heatmap(
    thumbnail: Image.Image, slide_px: tuple[int, int], coords: np.ndarray, side_px: int, attention: np.ndarray
) -> Image.Image:
    """Color and outline a slide's regions on its thumbnail.

    Args:
        thumbnail: Of the whole slide.
        slide_px: Width and height of the slide, level-0 px.
        coords: Upper left corners of the regions, (L, 2), level-0 px; the part beyond the slide's edge is cut.
        side_px: Side of a region, level-0 px.
        attention: (L,), sums to 1.

    Returns:
        The picture, as large as the thumbnail.
    """
    picture = thumbnail.convert("RGB")
    scale = picture.width / slide_px[0], picture.height / slide_px[1]
    layer = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(layer)
    corners = np.concatenate([coords * scale, (coords + side_px) * scale], 1).round().astype(int)
    fills = attention_colors(attention * len(attention)).tolist()
    for (left, top, right, bottom), fill in zip(corners.tolist(), fills, strict=True):
        line = OUTLINE if min(right - left, bottom - top) >= OUTLINED_PX else None
        pen.rectangle((left, top, right - 1, bottom - 1), fill=tuple(fill), outline=line)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def draw_contact_sheet(panels: Sequence[tuple[str, str, Image.Image]], tile_px: int = TILE_PX) -> Image.Image:
    """Draw pictures side by side, each under its title and gray text, above the scale of the colors.

    Args:
        panels: Title, text and picture of each; neither is cut.
        tile_px: Longer side of a picture.

    Returns:
        The contact sheet.
    """
    columns = min(SHEET_COLUMNS, max(1, len(panels)))
    pictures = [picture.copy() for _, _, picture in panels]
    for picture in pictures:
        picture.thumbnail((tile_px, tile_px))
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    texts = [[wrap_text(text, tile_px) for text in panel[:2]] for panel in panels]
    n_lines = [max(len(title) + len(text) for title, text in (texts[i] for i in row)) for row in rows]
    heights = [
        n * LINE_PX + max(pictures[i].height for i in row) + GAP_PX for n, row in zip(n_lines, rows, strict=True)
    ]
    width = GAP_PX + columns * (tile_px + GAP_PX)
    sheet = Image.new("RGB", (width, GAP_PX + sum(heights) + BAR_PX + LINE_PX + GAP_PX), "white")
    pen, top = ImageDraw.Draw(sheet), GAP_PX
    font = ImageFont.load_default(size=FONT_PX)
    for row, n, height in zip(rows, n_lines, heights, strict=True):
        for column, i in enumerate(row):
            left = GAP_PX + column * (tile_px + GAP_PX)
            title, text = texts[i]
            for number, line in enumerate([*title, *text]):
                color = INK if number < len(title) else MUTED
                pen.text((left, top + number * LINE_PX), line, fill=color, font=font)
            sheet.paste(pictures[i], (left, top + n * LINE_PX))
        top += height
    _draw_color_bar(sheet, (GAP_PX, top), min(tile_px, width - 2 * GAP_PX))
    return sheet


def save_jpeg(picture: Image.Image, path: Path, *, meta: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write a picture as JPEG: a tenth of the bytes that stained tissue takes as PNG.

    Args:
        picture: The picture.
        path: Of the file.
        meta: Metadata.
    """
    artifacts.write_picture(path, picture, meta=meta, quality=JPEG_QUALITY)


def _draw_color_bar(sheet: Image.Image, corner: tuple[int, int], width: int) -> None:
    """Draw the scale of the colors, `width` px wide with room for its last label; corner: upper left, px."""
    bar = round(width * 0.6)
    ramp = attention_colors(2 ** np.linspace(-MAX_LOG2, MAX_LOG2, bar))[:, :3]
    sheet.paste(Image.fromarray(np.repeat(ramp[None], BAR_PX, 0)), corner)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_PX)
    for x, text in zip(np.linspace(0, bar, len(TICKS)).tolist(), TICKS, strict=True):
        left = corner[0] + x - (0 if x in (0, bar) else font.getlength(text) / 2)
        pen.text((left, corner[1] + BAR_PX + 2), text, fill=MUTED, font=font)
