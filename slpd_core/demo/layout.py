"""Where things lie on a slide of the demo cohort: the piece of tissue, its glands or nests, vessels and nuclei.

Everything is in px at 0.5 um/px; levels are those of shapes. Both classes have equal parts of cytoplasm, nuclei
and pale space, so that only their arrangement tells them apart.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from slpd_core.demo.shapes import FAR_PX, SHRINK, Blobs, changed, pack, scatter, smooth_noise

LABELS = ("glands", "nests")
TUMOUR_SHARE = (0.4, 0.65)  # of the tissue: where the glands or nests lie
COVER = 0.5  # of the tumour: glands or nests with their pale space; the rest is stroma
RADIUS_PX = {"glands": (68.0, 112.0), "nests": (90.0, 200.0)}
GAP_PX = 12.0  # stroma between two of them at the least
WALL_PX = 50.0  # height of a gland's cells
PALE = 0.205  # of a nest with the cleft around it; what WALL_PX leaves of the glands on average
VACUOLES = 0.015  # of a nest's cells: small round holes between them
CELL_PX2 = 500.0  # area of a cell of a gland or nest
TEAR_SHARE = (0.0, 0.08)  # of the stroma
ROUGH_PX = 2.2  # sd of an outline's fine roughness


@dataclass(frozen=True)
class Nuclei:
    """x, y: (nuclei,) px. angle: (nuclei,) of the long axis, radians. kind: "epithelial", "spindle" or "round"."""

    kind: str
    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class Cells:
    """The cells of glands or nests.

    epithelium, pale: levels of the cells (of a gland: with its lumen) and of the space within or around them.
    vacuoles: (holes, 3), x, y and radius in px of round holes between the cells.
    """

    epithelium: np.ndarray
    pale: np.ndarray
    vacuoles: np.ndarray
    nuclei: Nuclei


@dataclass(frozen=True)
class Layout:
    """What a slide shows.

    tissue, epithelium, pale, vessels, lumens: levels; pale is the space of the glands or nests and the tears, lumens is
    that of the vessels; where two overlap the later covers the earlier, but pale all. vacuoles: as in Cells.
    along, across: the fibres' own coordinates in px, on a level's grid. nuclei: first those of the glands or nests.
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


def tissue_level(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """A round piece of tissue with a wavy, rough edge and, on two slides of three, a hole."""
    cells = side_px // SHRINK
    y, x = (np.mgrid[:cells, :cells].astype(np.float32) + 0.5) * SHRINK - side_px / 2
    half, angle = side_px / 2, np.arctan2(y, x)
    reach = 0.86 + sum(rng.normal(0, 0.035) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8))
    # Between a circle and a square: more of the slide's area is tissue.
    distance = (np.abs(x) ** 3 + np.abs(y) ** 3) ** (1 / 3)
    level = np.minimum(reach * half, 0.93 * half) - distance
    if rng.random() < 2 / 3:
        centre, radius = rng.uniform(-0.5, 0.5, 2) * half, rng.uniform(0.05, 0.1) * half
        hole = np.hypot(x - centre[0], (y - centre[1]) * rng.uniform(0.6, 1.6)) - radius
        level = np.minimum(level, hole + 18 * smooth_noise(rng, cells, 30))
    rough = 14 * smooth_noise(rng, cells, 25) + 4 * smooth_noise(rng, cells, 6)
    return (level + rough).astype(np.float32)


def gland_nuclei(rng: np.random.Generator, outer: Blobs, lumen: Blobs) -> Nuclei:
    """Nuclei in a ring around each lumen, in two staggered rows, their long axes towards it."""
    points = []
    for number, (x, y) in enumerate(zip(outer.x, outer.y, strict=True)):
        area = np.pi * (outer.radius[number] ** 2 - lumen.radius[number] ** 2)
        count = round(area / CELL_PX2)
        angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
        depth = np.where(np.arange(count) % 2, 14.0, 27.0) + rng.normal(0, 2.5, count)
        reach = outer.outline(number, angle) - depth
        points.append([x + reach * np.cos(angle), y + reach * np.sin(angle), angle + rng.normal(0, 0.2, count)])
    return Nuclei("epithelial", *np.concatenate([np.empty((3, 0)), *points], axis=1))


def nest_nuclei(rng: np.random.Generator, nests: Blobs, vacuoles: np.ndarray) -> Nuclei:
    """Nuclei all over each nest but in its vacuoles, about evenly spaced, their long axes anyhow."""
    points = []
    for number, (x, y, radius) in enumerate(zip(nests.x, nests.y, nests.radius, strict=True)):
        # The centres keep 6 px from the edge, so they stand closer for as many a nest.
        step = np.sqrt(CELL_PX2 * (1 - 6 / radius) ** 2 / 0.866)
        half = int(1.4 * radius / step) + 1
        row, column = np.mgrid[-half : half + 1, -half : half + 1]
        dx = (column + row % 2 / 2) * step + rng.normal(0, 0.17 * step, row.shape)
        dy = row * step * 0.866 + rng.normal(0, 0.17 * step, row.shape)
        inside = np.hypot(dx, dy) < nests.outline(number, np.arctan2(dy, dx)) - 6
        points.append([x + dx[inside], y + dy[inside], rng.uniform(0, np.pi, inside.sum())])
    x, y, angle = np.concatenate([np.empty((3, 0)), *points], axis=1)
    apart, nearest = KDTree(vacuoles[:, :2]).query(np.column_stack([x, y]))
    free = apart > np.append(vacuoles[:, 2], -np.inf)[nearest]
    return Nuclei("epithelial", x[free], y[free], angle[free])


def nest_vacuoles(rng: np.random.Generator, nests: Blobs) -> np.ndarray:
    """Small round holes in the nests, (holes, 3): x, y, radius in px."""
    holes = [np.empty((0, 3))]
    for number, (x, y) in enumerate(zip(nests.x, nests.y, strict=True)):
        radius = rng.uniform(5, 12, 400)
        count = np.searchsorted(np.cumsum(np.pi * radius**2), VACUOLES * np.pi * nests.radius[number] ** 2)
        angle = rng.uniform(0, 2 * np.pi, count)
        reach = np.sqrt(rng.random(count)) * (nests.outline(number, angle) - 12)
        holes.append(np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle), radius[:count]]))
    return np.concatenate(holes)


def fibres(rng: np.random.Generator, side_px: int, things: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fibres' own coordinates (along, across) in px on a level's grid: wavy, and bent around things.

    things: the level of what they bend around.
    """
    cells = side_px // SHRINK
    y, x = (np.mgrid[:cells, :cells].astype(np.float32) + 0.5) * SHRINK
    turn = rng.uniform(0, np.pi)
    bend = 260 * smooth_noise(rng, cells, 260) + 32 * smooth_noise(rng, cells, 60) + 3.5 * smooth_noise(rng, cells, 11)
    around = ndimage.gaussian_filter(np.clip(things, -FAR_PX, FAR_PX), 6)
    along = x * np.cos(turn) + y * np.sin(turn) + 150 * smooth_noise(rng, cells, 200)
    across = -x * np.sin(turn) + y * np.cos(turn) + bend - 1.2 * around
    return along.astype(np.float32), across.astype(np.float32)


def tears(
    rng: np.random.Generator, along: np.ndarray, across: np.ndarray, things: np.ndarray, tissue: np.ndarray
) -> np.ndarray:
    """The level of tears along the fibres, on some slides many, on others hardly any; they spare the things' level."""
    noise = ndimage.gaussian_filter(rng.standard_normal((256, 256), np.float32), (2, 9), mode="wrap")
    height = noise[(across / 8).astype(int) % 256, (along / 8).astype(int) % 256]
    height = ndimage.gaussian_filter(height / noise.std(), 2) + 0.8 * smooth_noise(rng, len(along), 120)
    room = np.minimum(-14 - things, tissue - 10)
    share = rng.uniform(*TEAR_SHARE)
    if not (room > 0).any():
        return np.full_like(room, -FAR_PX)
    return np.minimum(room, 14 * (height - np.quantile(height[room > 0], 1 - share))).astype(np.float32)


def stroma_nuclei(rng: np.random.Generator, stroma: np.ndarray, across: np.ndarray) -> tuple[Nuclei, Nuclei]:
    """Spindle nuclei that lie along the fibres, and lymphocytes, alone and in swarms."""
    mm2 = stroma.sum() * (SHRINK * 0.0005) ** 2
    x, y = scatter(rng, stroma, round(mm2 * rng.uniform(600, 1000)))
    slope_y, slope_x = np.gradient(across)
    at = (y / SHRINK).astype(int), (x / SHRINK).astype(int)
    spindles = Nuclei("spindle", x, y, np.arctan2(slope_x[at], -slope_y[at]) + rng.normal(0, 0.15, len(x)))
    swarms = scatter(rng, stroma, rng.poisson(4 * mm2))
    members = rng.poisson(25, len(swarms[0]))
    near = (np.repeat(part, members) + rng.normal(0, rng.uniform(20, 60), members.sum()) for part in swarms)
    alone = scatter(rng, stroma, round(mm2 * rng.uniform(200, 500)))
    x, y = (np.concatenate(parts) for parts in zip(alone, near, strict=True))
    inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < len(stroma) * SHRINK)
    x, y = x[inside], y[inside]
    free = stroma[(y / SHRINK).astype(int), (x / SHRINK).astype(int)]
    return spindles, Nuclei("round", x[free], y[free], rng.uniform(0, np.pi, free.sum()))


def vessel_nuclei(rng: np.random.Generator, vessels: Blobs, lumens: Blobs) -> Nuclei:
    """Flat nuclei of the inner lining, and of the wall around it."""
    points = []
    for number, (x, y, radius) in enumerate(zip(vessels.x, vessels.y, vessels.radius, strict=True)):
        count = round(radius / 4)
        angle = rng.uniform(0, 2 * np.pi, count)
        inner, outer = (blobs.outline(number, angle) for blobs in (lumens, vessels))
        reach = inner + 3 + np.where(rng.random(count) < 0.5, 0, rng.random(count)) * (outer - inner)
        points.append([x + reach * np.cos(angle), y + reach * np.sin(angle), angle + np.pi / 2])
    return Nuclei("spindle", *np.concatenate([np.empty((3, 0)), *points], axis=1))


def within(tissue: np.ndarray, nuclei: Nuclei) -> Nuclei:
    """Those of the nuclei that lie in the tissue, a little from its edge."""
    row, column = (np.clip(part / SHRINK, 0, len(tissue) - 1).astype(int) for part in (nuclei.y, nuclei.x))
    inside = tissue[row, column] > 6
    return Nuclei(nuclei.kind, nuclei.x[inside], nuclei.y[inside], nuclei.angle[inside])


def place_glands(rng: np.random.Generator, tumour: np.ndarray) -> Cells:
    """Glands: rings of cells around a lumen."""
    side_px = len(tumour) * SHRINK
    outer = pack(rng, tumour, RADIUS_PX["glands"], COVER, GAP_PX)
    lumen = changed(outer, outer.radius - WALL_PX, 0, 1.3)
    rough = ROUGH_PX * smooth_noise(rng, len(tumour), 7)
    epithelium, pale = outer.level(side_px) + rough, lumen.level(side_px) + 2 * rough
    return Cells(epithelium, pale, np.empty((0, 3)), gland_nuclei(rng, outer, lumen))


def place_nests(rng: np.random.Generator, tumour: np.ndarray) -> Cells:
    """Nests: solid groups of cells with a few vacuoles, torn off the stroma on one side."""
    side_px = len(tumour) * SHRINK
    outer = pack(rng, tumour, RADIUS_PX["nests"], COVER, GAP_PX)
    radius = outer.radius * np.sqrt((1 - PALE) / (1 - VACUOLES))
    aside, slack = rng.uniform(0, 2 * np.pi, len(radius)), 0.9 * (outer.radius - radius)
    nests = changed(outer, radius, slack * np.stack([np.cos(aside), np.sin(aside)]), 1.0)
    vacuoles = nest_vacuoles(rng, nests)
    rough = ROUGH_PX * smooth_noise(rng, len(tumour), 7)
    epithelium = nests.level(side_px) + rough
    pale = np.minimum(outer.level(side_px) + 2 * rough, -epithelium)
    return Cells(epithelium, pale, vacuoles, nest_nuclei(rng, nests, vacuoles))


def lay_out(rng: np.random.Generator, label: str, side_px: int) -> Layout:
    """Decide what lies where on a slide of a class of LABELS, side_px (a multiple of SHRINK) wide and high."""
    tissue = tissue_level(rng, side_px)
    lean = smooth_noise(rng, len(tissue), 220) + 0.5 * smooth_noise(rng, len(tissue), 80)
    tumour = (tissue > 40) & (lean > np.quantile(lean[tissue > 40], 1 - rng.uniform(*TUMOUR_SHARE)))
    cells = {"glands": place_glands, "nests": place_nests}[label](rng, tumour)
    taken = np.maximum(cells.epithelium, cells.pale)
    walls = pack(rng, (tissue > 60) & (taken < -50), (14.0, 44.0), 0.03, 30.0)
    hollows = changed(walls, walls.radius * rng.uniform(0.5, 0.75, len(walls.radius)), 0, 1.0)
    vessels, lumens = walls.level(side_px), hollows.level(side_px)
    things = np.maximum(taken, vessels)
    along, across = fibres(rng, side_px, things)
    torn = tears(rng, along, across, things, tissue)
    stroma = (tissue > 10) & (things < -6) & (torn < -6)
    nuclei = (cells.nuclei, vessel_nuclei(rng, walls, hollows), *stroma_nuclei(rng, stroma, across))
    return Layout(
        tissue=tissue,
        epithelium=cells.epithelium,
        pale=np.maximum(cells.pale, torn),
        vacuoles=cells.vacuoles,
        vessels=vessels,
        lumens=lumens,
        along=along,
        across=across,
        nuclei=tuple(within(tissue, group) for group in nuclei),
    )
