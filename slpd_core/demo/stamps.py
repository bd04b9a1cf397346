"""Parts of the demo's slides: nuclei, holes, borders of cells, fibers, blood.

Each is a plane of one dye or of a mask, uint8 (rows, columns), at 0.5 um/px.
"""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import Voronoi

from slpd_core.demo.layout import Nuclei

STAMP_PX = 34
N_ANGLES, N_VARIANTS = 24, 12  # stamps of each kind of nucleus
# Per kind: semi-axes in px (length, width), their relative sd, depth of the stain, vesicularity, mean nucleoli.
NUCLEUS_SHAPES = {
    "epithelial": (9.2, 6.4, 0.13, 135, 0.42, 1.3),
    "spindle": (11.5, 2.7, 0.2, 140, 0.1, 0.0),
    "round": (5.8, 5.2, 0.08, 205, 0.1, 0.0),
}
TEXTURE_PX = 1024  # a power of two


def draw_nucleus_stamps(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Draw nuclei of a kind at angles over half a circle.

    Args:
        rng: Generator.
        kind: Key of NUCLEUS_SHAPES.

    Returns:
        Hematoxylin, uint8 (N_ANGLES, N_VARIANTS, STAMP_PX, STAMP_PX).
    """
    length, width, spread, depth, vesicular, nucleoli = NUCLEUS_SHAPES[kind]
    shape = (N_ANGLES, N_VARIANTS, 1, 1)
    y, x = np.mgrid[:STAMP_PX, :STAMP_PX].astype(np.float32) - (STAMP_PX - 1) / 2
    turn = np.arange(N_ANGLES).reshape(-1, 1, 1, 1) * np.pi / N_ANGLES
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    long, short = (side * np.exp(rng.normal(0, spread, shape)) for side in (length, width))
    v = v - rng.normal(0, 0.012, shape) * u**2 * (short / length)  # some are bent
    lobes = 1 + rng.normal(0, 0.06, shape) * np.cos(2 * np.arctan2(v, u) + rng.uniform(0, 6.3, shape))
    lobes = lobes + rng.normal(0, 0.05, shape) * np.cos(3 * np.arctan2(v, u) + rng.uniform(0, 6.3, shape))
    radius = np.hypot(u / long, v / short) / lobes
    edge = np.clip((1 - radius) * short / 2.2 + 0.5, 0, 1)
    grain = ndimage.gaussian_filter(rng.standard_normal((*shape[:2], STAMP_PX, STAMP_PX), np.float32), (0, 0, 1.1, 1.1))
    inside = 1 - vesicular * np.clip(1.15 - radius, 0, 1) * rng.uniform(0.4, 1.5, shape) + 0.75 * grain
    for _ in range(2):
        spot = np.hypot(u - rng.normal(0, 0.3, shape) * long, v - rng.normal(0, 0.3, shape) * short)
        here = rng.random(shape) < nucleoli / 2
        inside = inside + here * 0.7 * np.clip(2.6 - spot, 0, 1)
    stain: np.ndarray = depth * np.exp(rng.normal(0, 0.16, shape)) * edge * inside
    return stain.clip(0, 255).astype(np.uint8)


def paste_stamps(plane: np.ndarray, stamps: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Paste stamps on a plane, in place; the darker of the two stays.

    Args:
        plane: uint8 (rows, columns).
        stamps: uint8 (n, side, side); those that hang over the edge are left out.
        x, y: Their centers, (n,), px.
    """
    side = stamps.shape[1]
    left, top = np.rint(x - side / 2).astype(int), np.rint(y - side / 2).astype(int)
    rows, columns = plane.shape
    inside = (left >= 0) & (top >= 0) & (left + side <= columns) & (top + side <= rows)
    for stamp, row, column in zip(stamps[inside], top[inside].tolist(), left[inside].tolist(), strict=True):
        under = plane[row : row + side, column : column + side]
        np.maximum(under, stamp, out=under)


def draw_nuclei(rng: np.random.Generator, nuclei: tuple[Nuclei, ...], side_px: int) -> np.ndarray:
    """Draw all nuclei of a slide.

    Args:
        rng: Generator.
        nuclei: Groups of nuclei.
        side_px: Side of the slide.

    Returns:
        Hematoxylin, uint8 (side_px, side_px).
    """
    plane = np.zeros((side_px, side_px), np.uint8)
    stamps = {kind: draw_nucleus_stamps(rng, kind) for kind in NUCLEUS_SHAPES}
    for group in nuclei:
        angle = np.rint(group.angle / np.pi * N_ANGLES).astype(int) % N_ANGLES
        paste_stamps(plane, stamps[group.kind][angle, rng.integers(N_VARIANTS, size=len(angle))], group.x, group.y)
    return plane


def draw_cell_borders(nuclei: Nuclei, side_px: int) -> np.ndarray:
    """Draw borders of cells, half-way between neighboring nuclei.

    Args:
        nuclei: One per cell.
        side_px: Side of the slide.

    Returns:
        uint8 (side_px, side_px), 255 on the line.
    """
    picture = Image.new("L", (side_px // 2, side_px // 2))
    if len(nuclei.x) > 4:
        diagram = Voronoi(np.column_stack([nuclei.x, nuclei.y]) / 2)
        ends = np.array(diagram.ridge_vertices)
        ends = ends[(ends >= 0).all(1)]
        lines = diagram.vertices[ends].reshape(-1, 4)
        lines = lines[np.hypot(lines[:, 0] - lines[:, 2], lines[:, 1] - lines[:, 3]) < 30]
        pen = ImageDraw.Draw(picture)
        for line in lines.tolist():
            pen.line(line, fill=255)
    return np.asarray(picture.resize((side_px, side_px), Image.Resampling.BICUBIC))


def draw_fiber_texture(rng: np.random.Generator) -> np.ndarray:
    """Draw fibers along the rows; the texture repeats without a seam.

    Args:
        rng: Generator.

    Returns:
        Eosin, uint8 (TEXTURE_PX, TEXTURE_PX).
    """
    noise = rng.standard_normal((4, TEXTURE_PX, TEXTURE_PX), np.float32)
    layers = []
    for layer, (thick, long) in zip(noise, ((1.0, 9), (2.4, 26), (6.5, 50), (1.1, 1.1)), strict=True):
        smooth = ndimage.gaussian_filter(layer, (thick, long), mode="wrap")
        layers.append(smooth / smooth.std())
    fine, strands, bundles, grain = layers
    eosin: np.ndarray = 60 + 8 * fine + 11 * strands + 9 * bundles + 6 * grain
    clefts = np.clip((-strands - 0.6 * bundles - 1.75) * 1.6, 0, 1)
    eosin = eosin * (1 - 0.85 * clefts)
    return eosin.clip(0, 255).astype(np.uint8)


def draw_holes(vacuoles: np.ndarray, side_px: int) -> np.ndarray:
    """Draw round holes.

    Args:
        vacuoles: x, y and radius of each, (holes, 3), px.
        side_px: Side of the slide.

    Returns:
        uint8 (side_px, side_px), 255 inside.
    """
    plane = np.zeros((side_px, side_px), np.uint8)
    y, x = np.mgrid[:STAMP_PX, :STAMP_PX] - (STAMP_PX - 1) / 2
    sizes = np.arange(STAMP_PX // 2)
    stamps = (np.clip((sizes[:, None, None] - np.hypot(x, y * 1.1)) / 1.5 + 0.5, 0, 1) * 255).astype(np.uint8)
    paste_stamps(plane, stamps[np.rint(vacuoles[:, 2]).astype(int)], vacuoles[:, 0], vacuoles[:, 1])
    return plane


def draw_red_cells(rng: np.random.Generator) -> np.ndarray:
    """Draw crowded red blood cells.

    Args:
        rng: Generator.

    Returns:
        Eosin, uint8 (TEXTURE_PX, TEXTURE_PX).
    """
    plane = np.zeros((TEXTURE_PX, TEXTURE_PX), np.uint8)
    y, x = np.mgrid[:STAMP_PX, :STAMP_PX] - (STAMP_PX - 1) / 2
    radius = np.hypot(x, y) / 6.5
    cell = np.clip((1 - radius) * 4, 0, 1) * (0.75 + 0.25 * np.clip(radius * 1.4, 0, 1))
    count = TEXTURE_PX**2 // 170
    stamps = (cell * rng.uniform(130, 190, (64, 1, 1))).astype(np.uint8)
    paste_stamps(plane, stamps[rng.integers(64, size=count)], *rng.uniform(0, TEXTURE_PX, (2, count)))
    return plane
