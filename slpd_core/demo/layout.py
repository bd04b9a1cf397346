"""The layout of a demo slide: the piece of tissue, its glands or nests, vessels and nuclei.

Lengths are px at 0.5 um/px; signed distances are those of `shapes`. Both classes have equal parts of cytoplasm, nuclei
and pale space: only their arrangement differs.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from slpd_core.demo.shapes import (
    DOWNSAMPLE,
    MAX_DISTANCE_PX,
    Blobs,
    pack_blobs,
    resize_blobs,
    scatter_points,
    smooth_noise,
)

LABELS = ("glands", "nests")
TUMOR_FRACTION = (0.4, 0.65)  # of the tissue; glands or nests lie there
BLOB_FRACTION = 0.5  # of the tumor: glands or nests with their pale space; the rest is stroma
RADIUS_PX = {"glands": (68.0, 112.0), "nests": (90.0, 200.0)}
GAP_PX = 12.0  # least stroma between two of them
WALL_PX = 50.0  # height of a gland's cells
PALE_FRACTION = 0.205  # of a nest with the cleft around it; the mean fraction of a gland inside its WALL_PX
VACUOLE_FRACTION = 0.015  # of a nest's cells: small round holes between them
CELL_PX2 = 500.0  # area of a cell of a gland or nest
TEAR_FRACTION = (0.0, 0.08)  # of the stroma
ROUGHNESS_PX = 2.2  # sd of the fine roughness of an outline


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of a kind.

    Attributes:
        kind: "epithelial", "spindle" or "round".
        x, y: Centers, (nuclei,), px.
        angle: Of the long axis, (nuclei,), radians.
    """

    kind: str
    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class Cells:
    """The cells of glands or nests.

    Attributes:
        epithelium: Signed distance of the cells (of a gland: with its lumen).
        pale: Signed distance of the space within or around them.
        vacuoles: x, y and radius of round holes between the cells, (holes, 3), px.
        nuclei: One per cell.
    """

    epithelium: np.ndarray
    pale: np.ndarray
    vacuoles: np.ndarray
    nuclei: Nuclei


@dataclass(frozen=True)
class Layout:
    """The contents of a slide, maps on the grid of signed distances.

    Where two overlap the later covers the earlier, but `pale` covers all.

    Attributes:
        tissue, epithelium: Signed distances.
        pale: Signed distance of the space of glands or nests and of tears.
        vacuoles: As in Cells.
        vessels, lumens: Signed distances of the vessels and of their lumens.
        along, across: Coordinates of the texture of fibers, px.
        nuclei: First those of the glands or nests.
    """

    tissue: np.ndarray
    epithelium: np.ndarray
    pale: np.ndarray
    vacuoles: np.ndarray
    vessels: np.ndarray
    lumens: np.ndarray
    along: np.ndarray
    across: np.ndarray
    nuclei: tuple[Nuclei, ...]


def _place_tissue(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Place a round piece of tissue with a wavy, rough edge and, on two slides of three, a hole."""
    cells = side_px // DOWNSAMPLE
    y, x = (np.mgrid[:cells, :cells].astype(np.float32) + 0.5) * DOWNSAMPLE - side_px / 2
    half, angle = side_px / 2, np.arctan2(y, x)
    reach = 0.86 + sum(rng.normal(0, 0.035) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8))
    # Between a circle and a square: more of the slide's area is tissue.
    radius = (np.abs(x) ** 3 + np.abs(y) ** 3) ** (1 / 3)
    distance = np.minimum(reach * half, 0.93 * half) - radius
    if rng.random() < 2 / 3:
        center, hole_radius = rng.uniform(-0.5, 0.5, 2) * half, rng.uniform(0.05, 0.1) * half
        hole = np.hypot(x - center[0], (y - center[1]) * rng.uniform(0.6, 1.6)) - hole_radius
        distance = np.minimum(distance, hole + 18 * smooth_noise(rng, cells, 30))
    rough = 14 * smooth_noise(rng, cells, 25) + 4 * smooth_noise(rng, cells, 6)
    rough_edged: np.ndarray = distance + rough
    return rough_edged.astype(np.float32)


def _place_gland_nuclei(rng: np.random.Generator, outer: Blobs, lumen: Blobs) -> Nuclei:
    """Place nuclei in a ring around each lumen, in two staggered rows, their long axes towards it."""
    points = []
    for i, (x, y) in enumerate(zip(outer.x, outer.y, strict=True)):
        area = np.pi * (outer.radius[i] ** 2 - lumen.radius[i] ** 2)
        count = round(area / CELL_PX2)
        angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
        depth = np.where(np.arange(count) % 2, 14.0, 27.0) + rng.normal(0, 2.5, count)
        reach = outer.outline_radius(i, angle) - depth
        points.append([x + reach * np.cos(angle), y + reach * np.sin(angle), angle + rng.normal(0, 0.2, count)])
    return Nuclei("epithelial", *np.concatenate([np.empty((3, 0)), *points], axis=1))


def _place_nest_nuclei(rng: np.random.Generator, nests: Blobs, vacuoles: np.ndarray) -> Nuclei:
    """Place nuclei over each nest but its vacuoles, about evenly spaced, at random angles."""
    points = []
    for i, (x, y, radius) in enumerate(zip(nests.x, nests.y, nests.radius, strict=True)):
        # Centers keep 6 px from the edge, so they are closer for the same number per nest.
        step = np.sqrt(CELL_PX2 * (1 - 6 / radius) ** 2 / 0.866)
        half = int(1.4 * radius / step) + 1
        row, column = np.mgrid[-half : half + 1, -half : half + 1]
        dx = (column + row % 2 / 2) * step + rng.normal(0, 0.17 * step, row.shape)
        dy = row * step * 0.866 + rng.normal(0, 0.17 * step, row.shape)
        inside = np.hypot(dx, dy) < nests.outline_radius(i, np.arctan2(dy, dx)) - 6
        points.append([x + dx[inside], y + dy[inside], rng.uniform(0, np.pi, inside.sum())])
    x, y, angle = np.concatenate([np.empty((3, 0)), *points], axis=1)
    apart, nearest = KDTree(vacuoles[:, :2]).query(np.column_stack([x, y]))
    free = apart > np.append(vacuoles[:, 2], -np.inf)[nearest]
    return Nuclei("epithelial", x[free], y[free], angle[free])


def _place_vacuoles(rng: np.random.Generator, nests: Blobs) -> np.ndarray:
    """Place small round holes in the nests: x, y and radius, (holes, 3), px."""
    holes = [np.empty((0, 3))]
    for i, (x, y) in enumerate(zip(nests.x, nests.y, strict=True)):
        radius = rng.uniform(5, 12, 400)
        count = np.searchsorted(np.cumsum(np.pi * radius**2), VACUOLE_FRACTION * np.pi * nests.radius[i] ** 2)
        angle = rng.uniform(0, 2 * np.pi, count)
        reach = np.sqrt(rng.random(count)) * (nests.outline_radius(i, angle) - 12)
        holes.append(np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle), radius[:count]]))
    return np.concatenate(holes)


def _bend_fibers(rng: np.random.Generator, side_px: int, structures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the fibers' coordinates (along, across): wavy, and bent around a signed distance of structures."""
    cells = side_px // DOWNSAMPLE
    y, x = (np.mgrid[:cells, :cells].astype(np.float32) + 0.5) * DOWNSAMPLE
    turn = rng.uniform(0, np.pi)
    bend = 260 * smooth_noise(rng, cells, 260) + 32 * smooth_noise(rng, cells, 60) + 3.5 * smooth_noise(rng, cells, 11)
    around = ndimage.gaussian_filter(np.clip(structures, -MAX_DISTANCE_PX, MAX_DISTANCE_PX), 6)
    along = x * np.cos(turn) + y * np.sin(turn) + 150 * smooth_noise(rng, cells, 200)
    across = -x * np.sin(turn) + y * np.cos(turn) + bend - 1.2 * around
    return along.astype(np.float32), across.astype(np.float32)


def _tear_stroma(
    rng: np.random.Generator, along: np.ndarray, across: np.ndarray, structures: np.ndarray, tissue: np.ndarray
) -> np.ndarray:
    """Tear the stroma along its fibers, on some slides much, on others hardly: the signed distance of the tears."""
    noise = ndimage.gaussian_filter(rng.standard_normal((256, 256), np.float32), (2, 9), mode="wrap")
    height = noise[(across / 8).astype(int) % 256, (along / 8).astype(int) % 256]
    height = ndimage.gaussian_filter(height / noise.std(), 2) + 0.8 * smooth_noise(rng, len(along), 120)
    room = np.minimum(-14 - structures, tissue - 10)
    share = rng.uniform(*TEAR_FRACTION)
    if not (room > 0).any():
        return np.full_like(room, -MAX_DISTANCE_PX)
    tears: np.ndarray = np.minimum(room, 14 * (height - np.quantile(height[room > 0], 1 - share)))
    return tears.astype(np.float32)


def _place_stroma_nuclei(rng: np.random.Generator, stroma: np.ndarray, across: np.ndarray) -> tuple[Nuclei, Nuclei]:
    """Place spindle nuclei along the fibers, and lymphocytes, alone and in swarms."""
    mm2 = stroma.sum() * (DOWNSAMPLE * 0.0005) ** 2
    x, y = scatter_points(rng, stroma, round(mm2 * rng.uniform(600, 1000)))
    slope_y, slope_x = np.gradient(across)
    at = (y / DOWNSAMPLE).astype(int), (x / DOWNSAMPLE).astype(int)
    spindles = Nuclei("spindle", x, y, np.arctan2(slope_x[at], -slope_y[at]) + rng.normal(0, 0.15, len(x)))
    swarms = scatter_points(rng, stroma, rng.poisson(4 * mm2))
    members = rng.poisson(25, len(swarms[0]))
    near = (np.repeat(part, members) + rng.normal(0, rng.uniform(20, 60), members.sum()) for part in swarms)
    alone = scatter_points(rng, stroma, round(mm2 * rng.uniform(200, 500)))
    x, y = (np.concatenate(parts) for parts in zip(alone, near, strict=True))
    inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < len(stroma) * DOWNSAMPLE)
    x, y = x[inside], y[inside]
    free = stroma[(y / DOWNSAMPLE).astype(int), (x / DOWNSAMPLE).astype(int)]
    return spindles, Nuclei("round", x[free], y[free], rng.uniform(0, np.pi, free.sum()))


def _place_vessel_nuclei(rng: np.random.Generator, vessels: Blobs, lumens: Blobs) -> Nuclei:
    """Place flat nuclei in the inner lining of vessels and in their walls."""
    points = []
    for i, (x, y, radius) in enumerate(zip(vessels.x, vessels.y, vessels.radius, strict=True)):
        count = round(radius / 4)
        angle = rng.uniform(0, 2 * np.pi, count)
        inner, outer = (blobs.outline_radius(i, angle) for blobs in (lumens, vessels))
        reach = inner + 3 + np.where(rng.random(count) < 0.5, 0, rng.random(count)) * (outer - inner)
        points.append([x + reach * np.cos(angle), y + reach * np.sin(angle), angle + np.pi / 2])
    return Nuclei("spindle", *np.concatenate([np.empty((3, 0)), *points], axis=1))


def _keep_within(tissue: np.ndarray, nuclei: Nuclei) -> Nuclei:
    """Keep the nuclei in the tissue, a little from its edge."""
    row, column = (np.clip(part / DOWNSAMPLE, 0, len(tissue) - 1).astype(int) for part in (nuclei.y, nuclei.x))
    inside = tissue[row, column] > 6
    return Nuclei(nuclei.kind, nuclei.x[inside], nuclei.y[inside], nuclei.angle[inside])


def place_glands(rng: np.random.Generator, tumor: np.ndarray) -> Cells:
    """Place glands: rings of cells around a lumen.

    Args:
        rng: Generator.
        tumor: Where their centers may be, bool (cells, cells).

    Returns:
        Their cells.
    """
    side_px = len(tumor) * DOWNSAMPLE
    outer = pack_blobs(rng, tumor, RADIUS_PX["glands"], BLOB_FRACTION, GAP_PX)
    lumen = resize_blobs(outer, outer.radius - WALL_PX, 0, 1.3)
    rough = ROUGHNESS_PX * smooth_noise(rng, len(tumor), 7)
    epithelium, pale = outer.signed_distance(side_px) + rough, lumen.signed_distance(side_px) + 2 * rough
    return Cells(epithelium, pale, np.empty((0, 3)), _place_gland_nuclei(rng, outer, lumen))


def place_nests(rng: np.random.Generator, tumor: np.ndarray) -> Cells:
    """Place nests: solid groups of cells with a few vacuoles, torn off the stroma on one side.

    Args:
        rng: Generator.
        tumor: Where their centers may be, bool (cells, cells).

    Returns:
        Their cells.
    """
    side_px = len(tumor) * DOWNSAMPLE
    outer = pack_blobs(rng, tumor, RADIUS_PX["nests"], BLOB_FRACTION, GAP_PX)
    radius = outer.radius * np.sqrt((1 - PALE_FRACTION) / (1 - VACUOLE_FRACTION))
    aside, slack = rng.uniform(0, 2 * np.pi, len(radius)), 0.9 * (outer.radius - radius)
    nests = resize_blobs(outer, radius, slack * np.stack([np.cos(aside), np.sin(aside)]), 1.0)
    vacuoles = _place_vacuoles(rng, nests)
    rough = ROUGHNESS_PX * smooth_noise(rng, len(tumor), 7)
    epithelium = nests.signed_distance(side_px) + rough
    pale = np.minimum(outer.signed_distance(side_px) + 2 * rough, -epithelium)
    return Cells(epithelium, pale, vacuoles, _place_nest_nuclei(rng, nests, vacuoles))


def create_layout(rng: np.random.Generator, label: str, side_px: int) -> Layout:
    """Create the layout of a slide.

    Args:
        rng: Generator.
        label: One of LABELS.
        side_px: Width and height, a multiple of DOWNSAMPLE.

    Returns:
        The layout.
    """
    tissue = _place_tissue(rng, side_px)
    lean = smooth_noise(rng, len(tissue), 220) + 0.5 * smooth_noise(rng, len(tissue), 80)
    tumor = (tissue > 40) & (lean > np.quantile(lean[tissue > 40], 1 - rng.uniform(*TUMOR_FRACTION)))
    cells = {"glands": place_glands, "nests": place_nests}[label](rng, tumor)
    taken = np.maximum(cells.epithelium, cells.pale)
    walls = pack_blobs(rng, (tissue > 60) & (taken < -50), (14.0, 44.0), 0.03, 30.0)
    hollows = resize_blobs(walls, walls.radius * rng.uniform(0.5, 0.75, len(walls.radius)), 0, 1.0)
    vessels, lumens = walls.signed_distance(side_px), hollows.signed_distance(side_px)
    structures = np.maximum(taken, vessels)
    along, across = _bend_fibers(rng, side_px, structures)
    torn = _tear_stroma(rng, along, across, structures, tissue)
    stroma = (tissue > 10) & (structures < -6) & (torn < -6)
    nuclei = (cells.nuclei, _place_vessel_nuclei(rng, walls, hollows), *_place_stroma_nuclei(rng, stroma, across))
    return Layout(
        tissue=tissue,
        epithelium=cells.epithelium,
        pale=np.maximum(cells.pale, torn),
        vacuoles=cells.vacuoles,
        vessels=vessels,
        lumens=lumens,
        along=along,
        across=across,
        nuclei=tuple(_keep_within(tissue, group) for group in nuclei),
    )
