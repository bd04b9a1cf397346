"""Text on the pictures."""

from PIL import ImageDraw, ImageFont

INK, MUTED = "#1c2430", "#5b6675"
LINE_PX, FONT_PX = 24, 16


def wrap_text(text: str, max_width: int) -> list[str]:
    """Break text into lines at white space, and words that are too wide within them.

    Args:
        text: The text; white space is collapsed.
        max_width: px, of the font of `draw_text`.

    Returns:
        The lines, at least one.
    """
    font, lines = ImageFont.load_default(size=FONT_PX), [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= max_width:
            lines[-1] = joined
            continue
        lines = [*filter(None, lines), word]
        while font.getlength(rest := lines[-1]) > max_width and len(rest) > 1:
            fits = next((n for n in range(len(rest) - 1, 1, -1) if font.getlength(rest[:n]) <= max_width), 1)
            lines[-1:] = [rest[:fits], rest[fits:]]
    return lines


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
