"""The gallery's picture: prototypes side by side, each shown by some of its regions in a frame of its colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from slpd_core.drawing.text import FONT_PX, INK, LINE_PX, SOFT, write

TILE_PX = 104
COLUMNS, TILES = 4, 3  # at most: cells of a strip, tiles of a cell
FRAME_PX, GAP_PX, MARGIN_PX = 4, 16, 16
CELL_PX = (TILES * TILE_PX + (TILES + 1) * FRAME_PX, LINE_PX + TILE_PX + 2 * FRAME_PX)  # width, height
FEWEST_COLUMNS = 2  # whatever there is to show, so that titles have room
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")  # of Okabe and Ito's those that stand out from H&E
GREY, RULE = "#b4bac2", "#d9dee5"


@dataclass(frozen=True)
class Cell:
    """A prototype: the regions that show it, rows of the embeddings, and its share of the slide's regions."""

    regions: list[int]
    share: float


@dataclass(frozen=True)
class Strip:
    """Prototypes side by side under a title; of two strips the cells in one place match. main: begins a new slide."""

    title: str
    cells: list[Cell]
    main: bool = True


def draw(strips: Sequence[Strip], tiles: Mapping[int, np.ndarray]) -> Image.Image:
    """The picture: a strip below the other, the colour of a cell that of its place; grey where a tile is missing."""
    columns = max([FEWEST_COLUMNS, *(len(strip.cells) for strip in strips)])
    width = 2 * MARGIN_PX + columns * (CELL_PX[0] + GAP_PX) - GAP_PX
    heights = [LINE_PX * bool(strip.title) + (CELL_PX[1] if strip.cells else 0) + GAP_PX for strip in strips]
    picture = Image.new("RGB", (width, 2 * MARGIN_PX + sum(heights)), "white")
    pen, y = ImageDraw.Draw(picture), MARGIN_PX
    for number, (strip, height) in enumerate(zip(strips, heights, strict=True)):
        if strip.main and number:
            pen.line([(MARGIN_PX, y - GAP_PX // 2), (width - MARGIN_PX, y - GAP_PX // 2)], fill=RULE, width=2)
        write(pen, (MARGIN_PX, y), strip.title, INK if strip.main else SOFT, width - 2 * MARGIN_PX)
        top = y + LINE_PX * bool(strip.title)
        for column, cell in enumerate(strip.cells):
            draw_cell(picture, (MARGIN_PX + column * (CELL_PX[0] + GAP_PX), top), cell, COLOURS[column], tiles)
        y += height
    return picture


def draw_cell(
    picture: Image.Image, corner: tuple[int, int], cell: Cell, colour: str, tiles: Mapping[int, np.ndarray]
) -> None:
    """Draw a prototype: its share, and its regions in frames of its colour; corner: upper left, px."""
    write(ImageDraw.Draw(picture), corner, f"{cell.share:.0%} of the regions", colour, CELL_PX[0])
    for place, row in enumerate(cell.regions):
        framed = ImageOps.expand(tile_picture(tiles.get(row)), FRAME_PX, colour)
        picture.paste(framed, (corner[0] + place * (TILE_PX + FRAME_PX), corner[1] + LINE_PX))


def tile_picture(tile: np.ndarray | None) -> Image.Image:
    """A tile of TILE_PX; a grey one that says so where the slide could not be read."""
    if tile is not None:
        return Image.fromarray(tile).resize((TILE_PX, TILE_PX))
    grey = Image.new("RGB", (TILE_PX, TILE_PX), GREY)
    middle = (TILE_PX / 2, TILE_PX / 2)
    font = ImageFont.load_default(size=FONT_PX)
    ImageDraw.Draw(grey).multiline_text(middle, "cannot\nbe read", fill=INK, font=font, anchor="mm", align="center")
    return grey
