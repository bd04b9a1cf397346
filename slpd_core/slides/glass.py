"""Bare glass: its colors on a slide, and the slide as on colorless glass."""

import cv2
import numpy as np

MAX_TINT = 64.0  # saturation of bare glass, 0..255; more saturated pixels are tissue or ink
MIN_BRIGHTNESS = 128  # of the brightest channel of bare glass
MAX_RANGE = 10  # gray levels between adjacent pixels of bare glass; tissue has texture
MIN_GLASS_FRACTION = 0.01  # of the slide; a rarer color is not that of bare glass
BIN = 8  # gray levels per bin of the color histogram
BINS = (256 // BIN,) * 3


def find_glass_colors(pixels: np.ndarray) -> np.ndarray:
    """Find the colors of a slide's bare glass: the most frequent and the brightest of flat, bright and pale pixels.

    The two differ if a tinted slide has unscanned areas in white, or glass beyond the cover slip.

    Args:
        pixels: Thumbnail, uint8 RGB (rows, columns, 3).

    Returns:
        uint8 (n, 3), n at most 2; 0 for a slide without bare glass.
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
    masks = ((cv2.inRange(pixels, center - BIN, center + BIN) > 0) & is_glass for center in centers)
    return np.unique([np.median(pixels[mask], axis=0).astype(np.uint8) for mask in masks], axis=0)


def find_brightest(pixels: np.ndarray) -> np.ndarray:
    """Find the brightest channel of each pixel.

    Args:
        pixels: uint8 RGB (rows, columns, 3).

    Returns:
        uint8 (rows, columns).
    """
    brightest: np.ndarray = np.maximum.reduce(cv2.split(pixels))
    return brightest


def remove_tint(pixels: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Divide a picture by the color of its glass, since light passes through both; glass becomes white.

    Args:
        pixels: uint8 RGB (rows, columns, 3).
        glass: Color of the glass, uint8 (3,).

    Returns:
        uint8 RGB (rows, columns, 3).
    """
    levels = np.arange(256)[:, None] * 255.0 / glass
    return np.asarray(cv2.LUT(pixels, np.minimum(levels.round(), 255).astype(np.uint8)[None]))
