"""The shapes of the demo's slides: smooth noise, and round blobs with wavy outlines.

A signed distance is a map at a quarter of the slide's size, float32 (cells, cells): the distance to an outline in px of
the slide, positive inside; far from the outline only its sign is right.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

DOWNSAMPLE = 4  # px of the slide per cell of a map
MAX_DISTANCE_PX = 72.0  # around a blob, where its signed distance is computed
HARMONICS_SD = np.array([0.09, 0.06, 0.04, 0.03], np.float32)  # of the 2nd to 5th of an outline, in radii


def smooth_noise(rng: np.random.Generator, cells: int, wavelength: float) -> np.ndarray:
    """Draw noise of about unit sd that changes over a wavelength.

    Args:
        rng: Generator.
        cells: Side of the map.
        wavelength: In cells.

    Returns:
        float32 (cells, cells).
    """
    knots = int(cells / wavelength) + 4
    coarse = rng.standard_normal((knots, knots), np.float32)
    side, offset = int(np.ceil(knots * wavelength)), int(1.5 * wavelength)
    fine = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return 1.4 * fine[offset : offset + cells, offset : offset + cells]


@dataclass(frozen=True)
class Blobs:
    """Round blobs with wavy outlines.

    Attributes:
        x, y: Centers, (blobs,), px of the slide.
        radius: (blobs,), px of the slide.
        cosines, sines: Harmonics of the outlines, (blobs, 4), in radii.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    cosines: np.ndarray
    sines: np.ndarray

    def outline_radius(self, i: int, angle: np.ndarray) -> np.ndarray:
        """Compute the distance of a blob's outline from its center.

        Args:
            i: The blob's index.
            angle: Radians, any shape.

        Returns:
            px, the same shape.
        """
        waves = sum(
            self.cosines[i, k] * np.cos((k + 2) * angle) + self.sines[i, k] * np.sin((k + 2) * angle)
            for k in range(len(HARMONICS_SD))
        )
        radius: np.ndarray = self.radius[i] * (1 + waves)
        return radius

    def signed_distance(self, side_px: int) -> np.ndarray:
        """Compute the signed distance to the outlines of all blobs.

        Args:
            side_px: Side of the slide.

        Returns:
            float32 (cells, cells).
        """
        cells = side_px // DOWNSAMPLE
        distance = np.full((cells, cells), -MAX_DISTANCE_PX, np.float32)
        for i, (x, y, radius) in enumerate(zip(self.x, self.y, self.radius, strict=True)):
            reach = radius * 1.3 + MAX_DISTANCE_PX
            left, top = (max(0, int((center - reach) / DOWNSAMPLE)) for center in (x, y))
            right, bottom = (min(cells, int((center + reach) / DOWNSAMPLE) + 1) for center in (x, y))
            dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32) * DOWNSAMPLE + DOWNSAMPLE / 2
            dx, dy = dx - x, dy - y
            inside = self.outline_radius(i, np.arctan2(dy, dx)) - np.hypot(dx, dy)
            np.maximum(distance[top:bottom, left:right], inside, out=distance[top:bottom, left:right])
        return distance


def scatter_points(rng: np.random.Generator, allowed: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw random points in the True cells of a map.

    Args:
        rng: Generator.
        allowed: bool (cells, cells).
        count: Of points; without a True cell there are none.

    Returns:
        x and y, px of the slide.
    """
    rows, columns = np.nonzero(allowed)
    if not len(rows):
        return np.empty(0), np.empty(0)
    chosen = rng.integers(len(rows), size=count)
    x, y = (DOWNSAMPLE * (part[chosen] + rng.random(count)) for part in (columns, rows))
    return x, y


def pack_blobs(
    rng: np.random.Generator, allowed: np.ndarray, radius_px: tuple[float, float], cover: float, gap_px: float
) -> Blobs:
    """Draw blobs that keep their distance until they cover a fraction of a map.

    Args:
        rng: Generator.
        allowed: Where centers may be, bool (cells, cells).
        radius_px: Smallest and largest radius.
        cover: Fraction of the allowed area that they cover.
        gap_px: Least distance between two blobs.

    Returns:
        The blobs.
    """
    tries = int(allowed.sum() * DOWNSAMPLE**2 / np.mean(radius_px) ** 2 * 12)
    x, y = scatter_points(rng, allowed, tries)
    size = rng.uniform(*radius_px, len(x))
    kept = np.empty((0, 3))
    missing = cover * allowed.sum() * DOWNSAMPLE**2 / np.pi
    for candidate in zip(x, y, size, strict=True):
        if missing < candidate[2] ** 2 / 2:  # with large and small blobs the error is 0 on average
            break
        apart = np.hypot(kept[:, 0] - candidate[0], kept[:, 1] - candidate[1]) - kept[:, 2] - candidate[2]
        if (apart >= gap_px).all():
            kept = np.vstack([kept, candidate])
            missing -= candidate[2] ** 2
    waves = rng.standard_normal((2, len(kept), len(HARMONICS_SD)), np.float32) * HARMONICS_SD
    return Blobs(kept[:, 0], kept[:, 1], kept[:, 2], waves[0], waves[1])


def resize_blobs(blobs: Blobs, radius: np.ndarray, shift: np.ndarray | float, waviness: float) -> Blobs:
    """Give blobs another radius, and move them.

    Args:
        blobs: The blobs.
        radius: (blobs,), px.
        shift: Of x and y, (2, blobs) or one number, px.
        waviness: Factor of the outlines' harmonics.

    Returns:
        The changed blobs.
    """
    x, y = np.stack([blobs.x, blobs.y]) + shift
    return Blobs(x, y, radius, blobs.cosines * waviness, blobs.sines * waviness)
