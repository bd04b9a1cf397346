"""A caption below a picture of a slide: its name, a scale bar, and what the colors mean."""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from slpd_core.drawing.text import FONT_PX, INK, LINE_PX, wrap_text

MIN_WIDTH_PX = 320  # of a captioned picture, so that its words have room
MARGIN_PX, GAP_PX, MARK_PX = 8, 16, 24  # MARK_PX: the line that shows a color
BAR_SHARE = 0.25  # of the picture's width, that the scale bar takes at most
HEIGHT_KEY = "caption_px"  # in the PNG, so that a thumbnail can leave the caption out


def choose_scale_bar(max_um: float) -> float:
    """Choose the length of a scale bar: 1, 2 or 5 times a power of ten.

    Args:
        max_um: um, that it may measure at most.

    Returns:
        Its length, um.
    """
    power = 10.0 ** math.floor(math.log10(max_um))
    return next(float(factor * power) for factor in (5, 2, 1) if factor * power <= max_um * (1 + 1e-9))


def format_um(length_um: float) -> str:
    """Write a length in um, mm or cm.

    Args:
        length_um: The length, um.

    Returns:
        A number and its unit; the font of the pictures has no micro sign.
    """
    unit, size = next((unit, size) for unit, size in (("cm", 1e4), ("mm", 1e3), ("um", 0.0)) if length_um >= size)
    return f"{length_um / (size or 1.0):.3g} {unit}"


def add_caption(
    picture: Image.Image, title: str, um_per_px: float, legend: Sequence[tuple[str | tuple[int, int, int], str]]
) -> Image.Image:
    """Add a caption below a picture.

    Args:
        picture: Of a slide.
        title: Its first line.
        um_per_px: um per pixel of the picture.
        legend: Colors, as Pillow takes them, and what they mean.

    Returns:
        A larger picture; `info["caption_px"]` is the caption's height.
    """
    width = max(picture.width, MIN_WIDTH_PX)
    font, room = ImageFont.load_default(size=FONT_PX), width - 2 * MARGIN_PX
    bar_um = choose_scale_bar(um_per_px * picture.width * BAR_SHARE)
    bar_px = max(1, round(bar_um / um_per_px))
    items: list[tuple[int, str | tuple[int, int, int], str]] = [(bar_px, INK, format_um(bar_um))]
    items += [(MARK_PX, color, text) for color, text in legend]
    titles = wrap_text(title, room)
    places, x, y = [], 0, LINE_PX * len(titles)
    for mark_px, _, text in items:
        item_px = mark_px + MARGIN_PX + math.ceil(font.getlength(text))
        if x and x + item_px > room:
            x, y = 0, y + LINE_PX
        places.append((x, y))
        x += item_px + GAP_PX
    height = 2 * MARGIN_PX + y + LINE_PX
    captioned = Image.new("RGB", (width, picture.height + height), "white")
    captioned.paste(picture, (0, 0))
    pen, top = ImageDraw.Draw(captioned), picture.height + MARGIN_PX
    pen.multiline_text((MARGIN_PX, top), "\n".join(titles), fill=INK, font=font, spacing=LINE_PX - FONT_PX)
    for (mark_px, color, text), (x, y) in zip(items, places, strict=True):
        left, middle = MARGIN_PX + x, top + y + FONT_PX // 2 + 2
        pen.line([(left, middle), (left + mark_px - 1, middle)], fill=color, width=4)
        pen.text((left + mark_px + MARGIN_PX, top + y), text, fill=INK, font=font)
    captioned.info[HEIGHT_KEY] = str(height)
    return captioned


def caption_height(picture: Image.Image) -> int:
    """Return the height of a picture's caption, px; 0 without one."""
    return int(picture.info.get(HEIGHT_KEY, 0))


def png_text(picture: Image.Image) -> dict[str, Any]:
    """Return the option of PIL's writer that keeps the height of a picture's caption in a PNG."""
    text = PngInfo()
    text.add_text(HEIGHT_KEY, str(caption_height(picture)))
    return {"pnginfo": text} if caption_height(picture) else {}
