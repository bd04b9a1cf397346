"""Bare glass: its color on a slide, and the slide as it would look on colorless glass."""

import cv2
import numpy as np

MAX_TINT = 64.0  # saturation of bare glass, 0..255; what is deeper in color is tissue or ink
MIN_BRIGHTNESS = 128  # of bare glass, its brightest channel
MAX_RANGE = 10  # gray levels between bare glass and its neighbors: tissue has texture
MIN_FRACTION = 0.01  # of the slide that is bare glass; with less the slide is taken as it is
BIN = 8  # gray levels between two colors of glass


def find_glass_colors(pixels: np.ndarray) -> np.ndarray:
    """Find the colors of a slide's bare glass: the most frequent and the brightest of what is flat, bright and pale.

    They differ where a tinted slide has unscanned areas in white, or glass beyond the cover slip.

    Args:
        pixels: thumbnail, uint8 RGB (rows, columns, 3).

    Returns:
        uint8 (n, 3); n is 0 for a slide without bare glass.
    """
    square = np.ones((3, 3), np.uint8)
    texture = (cv2.dilate(pixels, square) - cv2.erode(pixels, square)).max(2)
    brightest = pixels.max(2)
    pale = (brightest - pixels.min(2)) * 255.0 <= MAX_TINT * brightest
    glass = pixels[(texture <= MAX_RANGE) & (brightest >= MIN_BRIGHTNESS) & pale]
    bins, counts = np.unique(glass // BIN, axis=0, return_counts=True)
    frequent = counts >= MIN_FRACTION * brightest.size
    if not frequent.any():
        return np.empty((0, 3), np.uint8)
    bins, counts = bins[frequent], counts[frequent]
    centers = bins[[counts.argmax(), bins.sum(1).argmax()]] * BIN + BIN // 2
    near = (np.abs(glass.astype(np.int16) - center).max(1) <= BIN for center in centers)
    return np.unique([np.median(glass[one], axis=0).astype(np.uint8) for one in near], axis=0)


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
