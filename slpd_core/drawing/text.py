"""Words on pictures that several chapters draw."""

from PIL import ImageDraw, ImageFont

INK, SOFT = "#1c2430", "#5b6675"
LINE_PX, FONT_PX = 24, 16


def write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str, width: int) -> None:
    """Write a line, its middle left out where it is wider than `width` px."""
    font = ImageFont.load_default(size=FONT_PX)
    text = line = " ".join(text.split())
    kept = len(text)
    while kept and pen.textlength(line, font) > width:
        kept -= 1
        line = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    pen.text(corner, line, fill=colour, font=font)
