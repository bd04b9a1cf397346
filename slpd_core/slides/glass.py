"""Bare glass: its color on a slide, and the slide as it would look on colorless glass."""

import cv2
import numpy as np

MAX_TINT = 64.0  # saturation of bare glass, 0..255; what is deeper in color is tissue or ink
MIN_BRIGHTNESS = 128  # of bare glass, its brightest channel
MAX_RANGE = 10  # gray levels between bare glass and its neighbors: tissue has texture
MIN_GLASS_FRACTION = 0.01  # of the slide that is bare glass; with less the slide is taken as it is
BIN = 8  # gray levels between two colors of glass
BINS = (256 // BIN,) * 3


def find_glass_colors(pixels: np.ndarray) -> np.ndarray:
    """Find the colors of a slide's bare glass: the most frequent and the brightest of what is flat, bright and pale.

    They differ where a tinted slide has unscanned areas in white, or glass beyond the cover slip.

    Args:
        pixels: thumbnail, uint8 RGB (rows, columns, 3).

    Returns:
        uint8 (n, 3); n is 0 for a slide without bare glass.
    """
    square = np.ones((3, 3), np.uint8)
    texture = find_brightest(cv2.dilate(pixels, square) - cv2.erode(pixels, square))
    brightest = find_brightest(pixels)
    pale = (brightest - np.minimum.reduce(cv2.split(pixels))) * np.float32(255) <= MAX_TINT * brightest
    is_glass = (texture <= MAX_RANGE) & (brightest >= MIN_BRIGHTNESS) & pale
    binned = np.ravel_multi_index([plane[is_glass] // BIN for plane in cv2.split(pixels)], BINS)
    counts = np.bincount(binned, minlength=np.prod(BINS))
    frequent = np.flatnonzero(counts >= max(1, MIN_GLASS_FRACTION * brightest.size))
    if not frequent.size:
        return np.empty((0, 3), np.uint8)
    bins, counts = np.stack(np.unravel_index(frequent, BINS), axis=1), counts[frequent]
    centers = bins[[counts.argmax(), bins.sum(1).argmax()]] * BIN + BIN // 2
    near = ((cv2.inRange(pixels, center - BIN, center + BIN) > 0) & is_glass for center in centers)
    return np.unique([np.median(pixels[one], axis=0).astype(np.uint8) for one in near], axis=0)


def find_brightest(pixels: np.ndarray) -> np.ndarray:
    """Return the brightest channel of each pixel, uint8 (rows, columns)."""
    return np.maximum.reduce(cv2.split(pixels))


def remove_tint(pixels: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Divide a picture by the color of its glass, as light passes through both; glass and what is brighter is white.

    Args:
        pixels: uint8 RGB (rows, columns, 3).
        glass: uint8 (3,).

    Returns:
        uint8 RGB (rows, columns, 3).
    """
    levels = np.arange(256)[:, None] * 255.0 / glass
    return np.asarray(cv2.LUT(pixels, np.minimum(levels.round(), 255).astype(np.uint8)[None]))
