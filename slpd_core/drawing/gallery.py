"""The gallery: prototypes side by side, each shown by some of its regions in a frame of its color."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from slpd_core.drawing.text import FONT_PX, INK, LINE_PX, MUTED, draw_text

TILE_PX = 104
MAX_COLUMNS, MAX_TILES = 4, 3  # cells of a row, tiles of a cell
FRAME_PX, GAP_PX, MARGIN_PX = 4, 16, 16
CELL_PX = (MAX_TILES * TILE_PX + (MAX_TILES + 1) * FRAME_PX, LINE_PX + TILE_PX + 2 * FRAME_PX)  # width, height
MIN_COLUMNS = 2  # of the picture's width, so that titles have room
CELL_COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000")  # of Okabe and Ito's palette, those that stand out from H&E
GRAY, RULE_COLOR = "#b4bac2", "#d9dee5"


@dataclass(frozen=True)
class GalleryCell:
    """A prototype: the regions that show it.

    Attributes:
        regions: Their rows in the embeddings.
        share: Of the slide's regions that are assigned to it.
    """

    regions: list[int]
    share: float


@dataclass(frozen=True)
class GalleryRow:
    """Prototypes side by side under a title; the cells of two rows of a slide match column by column.

    Attributes:
        title: Above the cells.
        cells: At most MAX_COLUMNS.
        main: Whether it begins a new slide.
    """

    title: str
    cells: list[GalleryCell]
    main: bool = True


def draw_gallery(rows: Sequence[GalleryRow], tiles: Mapping[Hashable, np.ndarray]) -> Image.Image:
    """Draw the rows one below the other, each column in its color.

    Args:
        rows: The rows.
        tiles: Pixels of regions by their row in the embeddings, uint8 RGB; a missing one is drawn gray.

    Returns:
        The picture.
    """
    columns = max([MIN_COLUMNS, *(len(row.cells) for row in rows)])
    width = 2 * MARGIN_PX + columns * (CELL_PX[0] + GAP_PX) - GAP_PX
    heights = [LINE_PX * bool(row.title) + (CELL_PX[1] if row.cells else 0) + GAP_PX for row in rows]
    picture = Image.new("RGB", (width, 2 * MARGIN_PX + sum(heights)), "white")
    pen, y = ImageDraw.Draw(picture), MARGIN_PX
    for i, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if row.main and i:
            pen.line([(MARGIN_PX, y - GAP_PX // 2), (width - MARGIN_PX, y - GAP_PX // 2)], fill=RULE_COLOR, width=2)
        draw_text(pen, (MARGIN_PX, y), row.title, INK if row.main else MUTED, width - 2 * MARGIN_PX)
        top = y + LINE_PX * bool(row.title)
        for column, cell in enumerate(row.cells):
            _draw_cell(picture, (MARGIN_PX + column * (CELL_PX[0] + GAP_PX), top), cell, CELL_COLORS[column], tiles)
        y += height
    return picture


def _draw_cell(
    picture: Image.Image, corner: tuple[int, int], cell: GalleryCell, color: str, tiles: Mapping[Hashable, np.ndarray]
) -> None:
    """Draw a prototype's share and its regions, framed in its color; corner: upper left, px."""
    draw_text(ImageDraw.Draw(picture), corner, f"{cell.share:.0%} of the regions", color, CELL_PX[0])
    for i, region in enumerate(cell.regions):
        framed = ImageOps.expand(_render_tile(tiles.get(region)), FRAME_PX, color)
        picture.paste(framed, (corner[0] + i * (TILE_PX + FRAME_PX), corner[1] + LINE_PX))


def _render_tile(pixels: np.ndarray | None) -> Image.Image:
    """Resize a region to a tile; a region that cannot be read becomes a gray tile that says so."""
    if pixels is not None:
        return Image.fromarray(pixels).resize((TILE_PX, TILE_PX))
    tile = Image.new("RGB", (TILE_PX, TILE_PX), GRAY)
    middle = (TILE_PX / 2, TILE_PX / 2)
    font = ImageFont.load_default(size=FONT_PX)
    ImageDraw.Draw(tile).multiline_text(middle, "cannot\nbe read", fill=INK, font=font, anchor="mm", align="center")
    return tile
