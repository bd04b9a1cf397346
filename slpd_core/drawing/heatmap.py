"""Heat maps as pictures: a slide's thumbnail, its regions coloured by how much a classifier attended to each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slpd_core import artifacts
from slpd_core.drawing.text import FONT_PX, INK, LINE_PX, SOFT, write

TILE_PX, COLUMNS = 360, 3  # of a contact sheet: the longer side of a slide, slides side by side
GAP_PX, BAR_PX, QUALITY = 16, 14, 88
OPACITY = (0.1, 0.7)  # of the average region, so that its tissue shows, and of those that count most or least
# log2 of attention over that of the average region -> colour: blue below, white at, red above it (ColorBrewer's RdBu,
# which the colour blind tell apart too).
MOST = 2.0
SCALE = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
TICKS = ("1/4", "1/2", "1", "2", "4 x the average")


def colours(times: np.ndarray) -> np.ndarray:
    """Attention as a multiple of the average region's, (L,) → uint8 RGBA (L, 4); below 1/4 and above 4 as there."""
    with np.errstate(divide="ignore"):
        place = np.clip(np.log2(times), -MOST, MOST)
    stops = np.linspace(-MOST, MOST, len(SCALE))
    channels = [np.interp(place, stops, channel) for channel in zip(*SCALE, strict=True)]
    opacity = np.interp(abs(place), (0, MOST), OPACITY) * 255
    return np.stack([*channels, opacity], 1).round().astype(np.uint8)


def heatmap(
    thumbnail: Image.Image, slide_px: tuple[int, int], coords: np.ndarray, side_px: int, attention: np.ndarray
) -> Image.Image:
    """The slide with its regions coloured.

    thumbnail: of the whole slide, whose size is slide_px (width, height). coords: upper left corners, (L, 2), side_px
    their side: level-0 px; what hangs over the slide's edge is cut. attention: (L,), sums to 1.
    """
    picture = thumbnail.convert("RGB")
    shrink = picture.width / slide_px[0], picture.height / slide_px[1]
    layer = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(layer)
    corners = np.concatenate([coords * shrink, (coords + side_px) * shrink], 1).round().astype(int)
    filled = colours(attention * len(attention)).tolist()
    for (left, top, right, bottom), colour in zip(corners.tolist(), filled, strict=True):
        pen.rectangle((left, top, right - 1, bottom - 1), fill=tuple(colour))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def contact_sheet(panels: Sequence[tuple[str, str, Image.Image]], tile_px: int = TILE_PX) -> Image.Image:
    """Pictures side by side, each under its title and a line in grey, above the scale of the colours."""
    columns = min(COLUMNS, max(1, len(panels)))
    pictures = [picture.copy() for _, _, picture in panels]
    for picture in pictures:
        picture.thumbnail((tile_px, tile_px))
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    heights = [2 * LINE_PX + max(pictures[number].height for number in row) + GAP_PX for row in rows]
    width = GAP_PX + columns * (tile_px + GAP_PX)
    sheet = Image.new("RGB", (width, GAP_PX + sum(heights) + BAR_PX + LINE_PX + GAP_PX), "white")
    pen, top = ImageDraw.Draw(sheet), GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, number in enumerate(row):
            left = GAP_PX + column * (tile_px + GAP_PX)
            title, line, _ = panels[number]
            write(pen, (left, top), title, INK, tile_px)
            write(pen, (left, top + LINE_PX), line, SOFT, tile_px)
            sheet.paste(pictures[number], (left, top + 2 * LINE_PX))
        top += height
    draw_scale(sheet, (GAP_PX, top), min(tile_px, width - 2 * GAP_PX))
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as JPEG: a tenth of the bytes that stained tissue takes as PNG."""
    artifacts.write_picture(path, picture, quality=QUALITY)


def draw_scale(sheet: Image.Image, corner: tuple[int, int], width: int) -> None:
    """Draw what the colours mean, `width` px wide, with room for the last word; corner: upper left, px."""
    bar = round(width * 0.6)
    ramp = colours(2 ** np.linspace(-MOST, MOST, bar))[:, :3]
    sheet.paste(Image.fromarray(np.repeat(ramp[None], BAR_PX, 0)), corner)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_PX)
    for place, text in zip(np.linspace(0, bar, len(TICKS)).tolist(), TICKS, strict=True):
        left = corner[0] + place - (0 if place in (0, bar) else font.getlength(text) / 2)
        pen.text((left, corner[1] + BAR_PX + 2), text, fill=SOFT, font=font)
