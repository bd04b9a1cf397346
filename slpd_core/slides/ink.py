"""Ink of a pen, told from stains of its hue: ink is smooth and ends sharply, tissue has texture."""

from dataclasses import dataclass

import cv2
import numpy as np

INK_HUES = (40.0, 232.0)  # degrees: yellow, green and blue ink; hematoxylin and eosin lie beyond, from blue to red
MIN_SATURATION = 70.0  # of ink, 0..255
MIN_STAIN_FRACTION = 0.1  # of all but glass; a hue that is rarer is never called a stain
# Texture relative to other tissue: less is ink, more may be tissue.
MAX_INK_TEXTURE, MIN_TISSUE_TEXTURE = 1 / 3, 2 / 3
# Gray levels between a stain of ink's hue and other tissue. Ink ends sharply; textured stains may differ more.
MAX_STAIN_STEP, MAX_TEXTURED_STEP = 40.0, 80.0
BORDER_PX = 7  # width of the border that is compared


@dataclass(frozen=True)
class Ink:
    """Pixels of a thumbnail that have the hue of ink.

    Attributes:
        mask: The saturated ones, bool (rows, columns).
        fraction: Fraction of all but glass, pale pixels included, 0..1.
        is_stain: Whether they look like stained tissue.
    """

    mask: np.ndarray
    fraction: float
    is_stain: bool


def find_ink(pixels: np.ndarray, hue: np.ndarray, saturation: np.ndarray, colored: np.ndarray) -> Ink:
    """Find the pixels that have the hue of ink, and whether they are a stain of the slide instead.

    They are a stain if they are most of all but glass, or if they pass into other tissue without a great step: the
    border between two hues then runs through one stain. They are no stain if they are smooth relative to other tissue.

    Args:
        pixels: Thumbnail, uint8 RGB (rows, columns, 3).
        hue: Degrees / 2, uint8 (rows, columns), without noise and the glass's tint.
        saturation: uint8 (rows, columns), likewise.
        colored: Pixels that are not glass, bool (rows, columns).

    Returns:
        The ink.
    """
    hued = (hue > INK_HUES[0] / 2) & (hue < INK_HUES[1] / 2)
    mask = _open(hued & (saturation > MIN_SATURATION))
    if not mask.any():
        return Ink(mask, 0.0, is_stain=False)
    inky, other = mask | (colored & hued), _open(colored & ~hued)
    fraction = float(inky.sum() / max(1, (inky | other).sum()))
    texture = _measure_texture(pixels, inky) / max(1e-3, _measure_texture(pixels, other))
    step = _measure_step(pixels, mask, other)
    likely = fraction > 0.5 or step < (MAX_TEXTURED_STEP if texture > MIN_TISSUE_TEXTURE else MAX_STAIN_STEP)
    is_stain = fraction > MIN_STAIN_FRACTION and likely and not texture < MAX_INK_TEXTURE
    return Ink(mask, fraction, is_stain)


def _open(mask: np.ndarray) -> np.ndarray:
    """Remove parts thinner than three px."""
    cross = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, cross)) > 0


def _measure_texture(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Measure the variation of gray levels inside a mask, away from its border; nan if it is too thin."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    variance = cv2.blur(gray**2, (3, 3)) - cv2.blur(gray, (3, 3)) ** 2
    return float(np.sqrt(np.median(np.maximum(0, variance[inner])))) if inner.any() else float("nan")


def _measure_step(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Measure the median difference in color where two masks meet, gray levels; nan if they do not."""
    masks = first.astype(np.uint8), second.astype(np.uint8)
    fractions = [cv2.boxFilter(mask, cv2.CV_32F, (BORDER_PX, BORDER_PX)) for mask in masks]
    meet = np.minimum(*fractions) > 2 / BORDER_PX**2
    if not meet.any():
        return float("nan")
    sums = [
        cv2.boxFilter(cv2.bitwise_and(pixels, pixels, mask=mask), cv2.CV_32F, (BORDER_PX, BORDER_PX)) for mask in masks
    ]
    means = [total[meet] / fraction[meet][:, None] for total, fraction in zip(sums, fractions, strict=True)]
    return float(np.median(np.abs(means[0] - means[1]).max(1)))
