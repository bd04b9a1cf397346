"""Text on the pictures."""

from PIL import ImageDraw, ImageFont

INK, MUTED = "#1c2430", "#5b6675"
LINE_PX, FONT_PX = 24, 16


def draw_text(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str, max_width: int) -> None:
    """Draw a line of text, shortened in its middle where it is too wide.

    Args:
        pen: Of the picture.
        corner: Upper left, px.
        text: The line; white space is collapsed.
        color: As Pillow takes it.
        max_width: px.
    """
    font = ImageFont.load_default(size=FONT_PX)
    text = line = " ".join(text.split())
    kept = len(text)
    while kept and pen.textlength(line, font) > max_width:
        kept -= 1
        line = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    pen.text(corner, line, fill=color, font=font)
