"""The pixels of a demo slide: its layout painted in two dyes, then seen in transmitted light.

Hematoxylin and eosin are planes, uint8 (rows, columns), 255 for MAX_DENSITY; colors follow from the slide's dyes by the
Beer-Lambert law.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from slpd_core.demo.layout import Layout, create_layout
from slpd_core.demo.shapes import DOWNSAMPLE, smooth_noise
from slpd_core.demo.stamps import (
    TEXTURE_PX,
    draw_cell_borders,
    draw_fiber_texture,
    draw_holes,
    draw_nuclei,
    draw_red_cells,
)

MAX_DENSITY = np.array([1.7, 1.2], np.float32)  # optical density of hematoxylin and eosin at 255
DYES = np.array([[0.60, 0.70, 0.36], [0.13, 0.86, 0.46]], np.float32)  # absorption of red, green, blue
DYE_SD = 0.03  # between slides, of each absorption
DYE_STRENGTH = (0.78, 1.25)  # between slides, of each dye
GLASS_BRIGHTNESS = (236, 248)  # brightness of bare glass
BAND_PX = 128  # rows painted at a time, so that they stay in the cache


@dataclass(frozen=True)
class Materials:
    """Textures, (TEXTURE_PX, TEXTURE_PX), and maps, float32 (cells, cells), that a slide is painted with.

    Attributes:
        fibers, blood: Textures of eosin, uint8.
        grain, speckle: Textures of noise, of cells (unit sd) and of the sensor, float32.
        thickness: Map, factor of the fibers' eosin.
        cytoplasm, haze: Maps of the eosin and hematoxylin of cells.
        fluid: Map of the eosin of the pale space.
    """

    fibers: np.ndarray
    blood: np.ndarray
    grain: np.ndarray
    speckle: np.ndarray
    thickness: np.ndarray
    cytoplasm: np.ndarray
    haze: np.ndarray
    fluid: np.ndarray


def _create_materials(rng: np.random.Generator, cells: int) -> Materials:
    """Create the materials of a slide whose maps are (cells, cells)."""
    noise = rng.standard_normal((2, TEXTURE_PX, TEXTURE_PX), np.float32)
    grain = ndimage.gaussian_filter(noise[0], 1.2, mode="wrap")
    return Materials(
        fibers=draw_fiber_texture(rng),
        blood=draw_red_cells(rng),
        grain=grain / grain.std(),
        speckle=1.3 * noise[1],
        thickness=np.exp(0.16 * smooth_noise(rng, cells, 90)),
        cytoplasm=60 + 8 * smooth_noise(rng, cells, 7),
        haze=26 + 4 * smooth_noise(rng, cells, 7),
        fluid=6 + 7 * smooth_noise(rng, cells, 12),
    )


def upsample_rows(field: np.ndarray, rows: slice) -> np.ndarray:
    """Upsample some rows of a map to the slide's px, by cubic interpolation.

    Args:
        field: The map, float32 (cells, cells).
        rows: Of the slide, px.

    Returns:
        float32 (rows, columns).
    """
    top, bottom = rows.start / DOWNSAMPLE, rows.stop / DOWNSAMPLE
    above, below = max(0, int(top) - 3), min(len(field), int(bottom) + 4)
    size, box = (len(field) * DOWNSAMPLE, rows.stop - rows.start), (0, top - above, len(field), bottom - above)
    return np.asarray(Image.fromarray(field[above:below]).resize(size, Image.Resampling.BICUBIC, box))


def _inside_fraction(distance: np.ndarray, rows: slice, width_px: float) -> np.ndarray:
    """Compute the fraction of each px inside a signed distance, 0..1, float32 (rows, columns); its edge is soft."""
    share = upsample_rows(distance, rows) / np.float32(width_px)
    share += 0.5
    return np.clip(share, 0, 1, out=share)


def _tile_texture(texture: np.ndarray, rows: slice, columns: int) -> np.ndarray:
    """Tile some rows of the slide with a square texture, (rows, columns)."""
    return np.tile(texture[np.arange(rows.start, rows.stop) % TEXTURE_PX], -(-columns // TEXTURE_PX))[:, :columns]


def _lay_along_fibers(texture: np.ndarray, along: np.ndarray, across: np.ndarray, rows: slice) -> np.ndarray:
    """Lay a texture along the fibers' coordinates in some rows of the slide, float32 (rows, columns)."""
    index = upsample_rows(across, rows).astype(np.int32) & (TEXTURE_PX - 1)
    index *= TEXTURE_PX
    index += upsample_rows(along, rows).astype(np.int32) & (TEXTURE_PX - 1)
    return texture.ravel().take(index).astype(np.float32)


def _blend(plane: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Blend a value into a plane, in place; share: its weight, 0..1."""
    difference = value - plane
    difference *= share
    plane += difference


def _paint_rows(
    layout: Layout, materials: Materials, borders: np.ndarray, holes: np.ndarray, rows: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Paint all but the nuclei in some rows: hematoxylin and eosin, float32 (rows, columns)."""
    columns = borders.shape[1]
    epithelium, pale = _inside_fraction(layout.epithelium, rows, 4), _inside_fraction(layout.pale, rows, 4)
    np.maximum(pale, holes / np.float32(255), out=pale)
    wall, lumen = _inside_fraction(layout.vessels, rows, 6), _inside_fraction(layout.lumens, rows, 3)
    grain = _tile_texture(materials.grain, rows, columns)

    eosin = _lay_along_fibers(materials.fibers, layout.along, layout.across, rows)
    eosin *= upsample_rows(materials.thickness, rows)
    _blend(eosin, 0.5 * wall, 95)
    cytoplasm = 13 * grain
    cytoplasm += upsample_rows(materials.cytoplasm, rows)
    cytoplasm += borders * np.float32(30 / 255)
    _blend(eosin, epithelium, cytoplasm)
    _blend(eosin, lumen, _tile_texture(materials.blood, rows, columns))
    _blend(eosin, pale, upsample_rows(materials.fluid, rows))

    hematoxylin = 2 * grain
    hematoxylin += 7
    _blend(hematoxylin, epithelium, upsample_rows(materials.haze, rows))
    hematoxylin *= 1 - np.maximum(pale, lumen)
    tissue, speckle = _inside_fraction(layout.tissue, rows, 8), _tile_texture(materials.speckle, rows, columns)
    for dye in (hematoxylin, eosin):
        dye *= tissue
        dye += speckle
    return hematoxylin, eosin


def paint_dyes(rng: np.random.Generator, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Paint a layout in two dyes.

    Args:
        rng: Generator.
        layout: The layout.

    Returns:
        Hematoxylin and eosin, uint8 (rows, columns).
    """
    side_px = len(layout.tissue) * DOWNSAMPLE
    materials = _create_materials(rng, len(layout.tissue))
    hematoxylin = draw_nuclei(rng, layout.nuclei, side_px)
    borders, holes = draw_cell_borders(layout.nuclei[0], side_px), draw_holes(layout.vacuoles, side_px)
    eosin = np.empty_like(hematoxylin)
    for top in range(0, side_px, BAND_PX):
        rows = slice(top, min(top + BAND_PX, side_px))
        haze, pink = _paint_rows(layout, materials, borders[rows], holes[rows], rows)
        np.maximum(hematoxylin[rows], np.clip(haze, 0, 255).astype(np.uint8), out=hematoxylin[rows])
        eosin[rows] = np.clip(pink, 0, 255)
    return hematoxylin, eosin


def apply_stain(rng: np.random.Generator, hematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Compute the colors of two dyes in transmitted light.

    Args:
        rng: Generator, of the absorption of the slide's dyes.
        hematoxylin, eosin: uint8 (rows, columns).

    Returns:
        uint8 RGB (rows, columns, 3).
    """
    dyes = np.clip(DYES + rng.normal(0, DYE_SD, (2, 3)), 0.02, None) * rng.uniform(*DYE_STRENGTH, (2, 1))
    glass = rng.uniform(*GLASS_BRIGHTNESS) + rng.uniform(-2, 2, 3)
    first, second = np.arange(256)[:, None] / 255, np.arange(256)[None] / 255
    second = second * (1 - 0.6 * first)  # nuclei take up little eosin
    density = np.stack([first + 0 * second, second], axis=-1) * MAX_DENSITY
    colors = glass * 10 ** -(density @ dyes)
    table = np.clip(np.rint(colors), 0, 255).astype(np.uint8).reshape(-1, 3)
    picture = np.empty((*eosin.shape, 3), np.uint8)
    for top in range(0, len(eosin), BAND_PX):
        rows = slice(top, top + BAND_PX)
        picture[rows] = table.take(hematoxylin[rows].astype(np.intp) << 8 | eosin[rows], axis=0)
    return picture


def draw_slide_pixels(rng: np.random.Generator, stain_rng: np.random.Generator, label: str, side_px: int) -> np.ndarray:
    """Draw a slide at 0.5 um/px.

    Args:
        rng: Generator of its layout and textures.
        stain_rng: Generator of its dyes.
        label: One of LABELS.
        side_px: Width and height, a multiple of DOWNSAMPLE.

    Returns:
        uint8 RGB (side_px, side_px, 3).
    """
    return apply_stain(stain_rng, *paint_dyes(rng, create_layout(rng, label, side_px)))
