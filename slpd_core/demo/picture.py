"""How a slide of the demo cohort looks: its layout painted in two dyes, seen as light through them.

Haematoxylin and eosin are planes uint8 (rows, columns), 255 for MAX_DENSITY; Beer-Lambert's law with the slide's own
dyes makes the colours.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from slpd_core.demo.layout import Layout, lay_out
from slpd_core.demo.shapes import SHRINK, smooth_noise
from slpd_core.demo.stamps import TEXTURE_PX, cell_borders, fibre_texture, holes_plane, nuclei_plane, red_cells

MAX_DENSITY = np.array([1.7, 1.2], np.float32)  # optical density of haematoxylin and eosin at 255
DYES = np.array([[0.60, 0.70, 0.36], [0.13, 0.86, 0.46]], np.float32)  # absorption of red, green, blue
DYE_SD = 0.03  # between slides, of each absorption
STRENGTH = (0.78, 1.25)  # between slides, of each dye
GLASS = (236, 248)  # brightness of bare glass
BAND_PX = 128  # rows painted at a time, so that they stay in the cache


@dataclass(frozen=True)
class Materials:
    """What a slide is painted with.

    (TEXTURE_PX, TEXTURE_PX): fibres and blood, eosin, uint8; grain and speckle, noise of cells (unit sd) and of the
    sensor, float32. (cells, cells), float32: thickness, a factor of the fibres' eosin; cytoplasm, eosin
    of cells; haze, their haematoxylin; fluid, eosin of what fills the pale space.
    """

    fibres: np.ndarray
    blood: np.ndarray
    grain: np.ndarray
    speckle: np.ndarray
    thickness: np.ndarray
    cytoplasm: np.ndarray
    haze: np.ndarray
    fluid: np.ndarray


def mix_materials(rng: np.random.Generator, cells: int) -> Materials:
    """The materials of one slide whose levels are (cells, cells)."""
    noise = rng.standard_normal((2, TEXTURE_PX, TEXTURE_PX), np.float32)
    grain = ndimage.gaussian_filter(noise[0], 1.2, mode="wrap")
    return Materials(
        fibres=fibre_texture(rng),
        blood=red_cells(rng),
        grain=grain / grain.std(),
        speckle=1.3 * noise[1],
        thickness=np.exp(0.16 * smooth_noise(rng, cells, 90)),
        cytoplasm=60 + 8 * smooth_noise(rng, cells, 7),
        haze=26 + 4 * smooth_noise(rng, cells, 7),
        fluid=6 + 7 * smooth_noise(rng, cells, 12),
    )


def enlarge(field: np.ndarray, rows: slice) -> np.ndarray:
    """Some rows of the slide, in px, of a field on a level's grid: float32 (rows, columns), by cubic interpolation."""
    top, bottom = rows.start / SHRINK, rows.stop / SHRINK
    above, below = max(0, int(top) - 3), min(len(field), int(bottom) + 4)
    size, box = (len(field) * SHRINK, rows.stop - rows.start), (0, top - above, len(field), bottom - above)
    return np.asarray(Image.fromarray(field[above:below]).resize(size, Image.Resampling.BICUBIC, box))


def soft(level: np.ndarray, rows: slice, width_px: float) -> np.ndarray:
    """How much of each px lies inside a level, 0..1, the edge `width_px` wide: float32 (rows, columns)."""
    share = enlarge(level, rows) / np.float32(width_px)
    share += 0.5
    return np.clip(share, 0, 1, out=share)


def repeated(texture: np.ndarray, rows: slice, columns: int) -> np.ndarray:
    """Some rows of the slide covered with a square texture, (rows, columns)."""
    return np.tile(texture[np.arange(rows.start, rows.stop) % TEXTURE_PX], -(-columns // TEXTURE_PX))[:, :columns]


def follow(texture: np.ndarray, along: np.ndarray, across: np.ndarray, rows: slice) -> np.ndarray:
    """Some rows of the slide with the texture laid along the fibres' coordinates, float32 (rows, columns)."""
    place = enlarge(across, rows).astype(np.int32) & (TEXTURE_PX - 1)
    place *= TEXTURE_PX
    place += enlarge(along, rows).astype(np.int32) & (TEXTURE_PX - 1)
    return texture.ravel().take(place).astype(np.float32)


def mix(plane: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Let `value` take the place of the plane where `share` is 1, mixed where it lies between. In place."""
    difference = value - plane
    difference *= share
    plane += difference


def paint_rows(
    layout: Layout, materials: Materials, borders: np.ndarray, holes: np.ndarray, rows: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin of everything but the nuclei in some rows of the slide, float32 (rows, columns).

    borders, holes: uint8 (rows, columns).
    """
    columns = borders.shape[1]
    epithelium, pale = soft(layout.epithelium, rows, 4), soft(layout.pale, rows, 4)
    np.maximum(pale, holes / np.float32(255), out=pale)
    wall, lumen = soft(layout.vessels, rows, 6), soft(layout.lumens, rows, 3)
    grain = repeated(materials.grain, rows, columns)

    eosin = follow(materials.fibres, layout.along, layout.across, rows)
    eosin *= enlarge(materials.thickness, rows)
    mix(eosin, 0.5 * wall, 95)
    cytoplasm = 13 * grain
    cytoplasm += enlarge(materials.cytoplasm, rows)
    cytoplasm += borders * np.float32(30 / 255)
    mix(eosin, epithelium, cytoplasm)
    mix(eosin, lumen, repeated(materials.blood, rows, columns))
    mix(eosin, pale, enlarge(materials.fluid, rows))

    haematoxylin = 2 * grain
    haematoxylin += 7
    mix(haematoxylin, epithelium, enlarge(materials.haze, rows))
    haematoxylin *= 1 - np.maximum(pale, lumen)
    tissue, speckle = soft(layout.tissue, rows, 8), repeated(materials.speckle, rows, columns)
    for dye in (haematoxylin, eosin):
        dye *= tissue
        dye += speckle
    return haematoxylin, eosin


def paint(rng: np.random.Generator, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The planes of haematoxylin and eosin, uint8 (rows, columns)."""
    side_px = len(layout.tissue) * SHRINK
    materials = mix_materials(rng, len(layout.tissue))
    haematoxylin = nuclei_plane(rng, layout.nuclei, side_px)
    borders, holes = cell_borders(layout.nuclei[0], side_px), holes_plane(layout.vacuoles, side_px)
    eosin = np.empty_like(haematoxylin)
    for top in range(0, side_px, BAND_PX):
        rows = slice(top, min(top + BAND_PX, side_px))
        haze, pink = paint_rows(layout, materials, borders[rows], holes[rows], rows)
        np.maximum(haematoxylin[rows], np.clip(haze, 0, 255).astype(np.uint8), out=haematoxylin[rows])
        eosin[rows] = np.clip(pink, 0, 255)
    return haematoxylin, eosin


def stain(rng: np.random.Generator, haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """The planes as light through the slide's own dyes, uint8 RGB (rows, columns, 3)."""
    dyes = np.clip(DYES + rng.normal(0, DYE_SD, (2, 3)), 0.02, None) * rng.uniform(*STRENGTH, (2, 1))
    glass = rng.uniform(*GLASS) + rng.uniform(-2, 2, 3)
    first, second = np.arange(256)[:, None] / 255, np.arange(256)[None] / 255
    second = second * (1 - 0.6 * first)  # nuclei take up little eosin
    density = np.stack([first + 0 * second, second], axis=-1) * MAX_DENSITY
    colours = glass * 10 ** -(density @ dyes)
    table = np.clip(np.rint(colours), 0, 255).astype(np.uint8).reshape(-1, 3)
    picture = np.empty((*eosin.shape, 3), np.uint8)
    for top in range(0, len(eosin), BAND_PX):
        rows = slice(top, top + BAND_PX)
        picture[rows] = table.take(haematoxylin[rows].astype(np.intp) << 8 | eosin[rows], axis=0)
    return picture


def draw_slide(rng: np.random.Generator, stain_rng: np.random.Generator, label: str, side_px: int) -> np.ndarray:
    """A slide of a class of LABELS at 0.5 um/px, uint8 RGB (side_px, side_px, 3).

    rng: for what it shows. stain_rng: for its dyes.
    """
    return stain(stain_rng, *paint(rng, lay_out(rng, label, side_px)))
