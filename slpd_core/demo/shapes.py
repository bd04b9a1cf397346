"""The shapes a slide of the demo cohort is made of: smooth noise, and round blobs with wavy outlines.

A level is a map at a quarter of the slide's size, float32 (cells, cells): the distance in px to the outline of a thing,
positive inside; it is about right near the outline, and no more than a sign far off.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SHRINK = 4  # px of the slide a cell of a level
FAR_PX = 72.0  # how far around a blob its level is drawn
WAVES = np.array([0.09, 0.06, 0.04, 0.03], np.float32)  # sd of the 2nd to 5th harmonic of an outline, of its radius


def smooth_noise(rng: np.random.Generator, cells: int, wavelength: float) -> np.ndarray:
    """Noise of about unit sd that changes over `wavelength` cells, float32 (cells, cells)."""
    knots = int(cells / wavelength) + 4
    coarse = rng.standard_normal((knots, knots), np.float32)
    side, offset = int(np.ceil(knots * wavelength)), int(1.5 * wavelength)
    fine = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return 1.4 * fine[offset : offset + cells, offset : offset + cells]


@dataclass(frozen=True)
class Blobs:
    """Round things with wavy outlines.

    x, y, radius: (blobs,) px. cosines, sines: (blobs, 4), the harmonics of the outline as shares of the radius.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    cosines: np.ndarray
    sines: np.ndarray

    def outline(self, number: int, angle: np.ndarray) -> np.ndarray:
        """Distance of the outline of one blob from its centre, px, at angles in radians."""
        waves = sum(
            self.cosines[number, k] * np.cos((k + 2) * angle) + self.sines[number, k] * np.sin((k + 2) * angle)
            for k in range(len(WAVES))
        )
        return self.radius[number] * (1 + waves)

    def level(self, side_px: int) -> np.ndarray:
        """The level of all of them on a slide of that side."""
        cells = side_px // SHRINK
        level = np.full((cells, cells), -FAR_PX, np.float32)
        for number, (x, y, radius) in enumerate(zip(self.x, self.y, self.radius, strict=True)):
            reach = radius * 1.3 + FAR_PX
            left, top = (max(0, int((centre - reach) / SHRINK)) for centre in (x, y))
            right, bottom = (min(cells, int((centre + reach) / SHRINK) + 1) for centre in (x, y))
            dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32) * SHRINK + SHRINK / 2
            dx, dy = dx - x, dy - y
            own = self.outline(number, np.arctan2(dy, dx)) - np.hypot(dx, dy)
            np.maximum(level[top:bottom, left:right], own, out=level[top:bottom, left:right])
        return level


def scatter(rng: np.random.Generator, allowed: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y in px of `count` random points in the True cells of a map; none where no cell is."""
    rows, columns = np.nonzero(allowed)
    if not len(rows):
        return np.empty(0), np.empty(0)
    chosen = rng.integers(len(rows), size=count)
    x, y = (SHRINK * (part[chosen] + rng.random(count)) for part in (columns, rows))
    return x, y


def pack(
    rng: np.random.Generator, allowed: np.ndarray, radius_px: tuple[float, float], cover: float, gap_px: float
) -> Blobs:
    """Blobs that keep their distance, centres in the True cells of a map, until they cover that share of it."""
    tries = int(allowed.sum() * SHRINK**2 / np.mean(radius_px) ** 2 * 12)
    x, y = scatter(rng, allowed, tries)
    size = rng.uniform(*radius_px, len(x))
    kept = np.empty((0, 3))
    missing = cover * allowed.sum() * SHRINK**2 / np.pi
    for candidate in zip(x, y, size, strict=True):
        if missing < candidate[2] ** 2 / 2:  # large blobs and small ones come as near on average
            break
        apart = np.hypot(kept[:, 0] - candidate[0], kept[:, 1] - candidate[1]) - kept[:, 2] - candidate[2]
        if (apart >= gap_px).all():
            kept = np.vstack([kept, candidate])
            missing -= candidate[2] ** 2
    waves = rng.standard_normal((2, len(kept), len(WAVES)), np.float32) * WAVES
    return Blobs(kept[:, 0], kept[:, 1], kept[:, 2], waves[0], waves[1])


def changed(blobs: Blobs, radius: np.ndarray, shift: np.ndarray | float, waviness: float) -> Blobs:
    """The blobs with another radius, (blobs,), moved by `shift`, (2, blobs) px, their waves made stronger or weaker."""
    x, y = np.stack([blobs.x, blobs.y]) + shift
    return Blobs(x, y, radius, blobs.cosines * waviness, blobs.sines * waviness)
