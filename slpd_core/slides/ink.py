"""Ink of a pen, told from stains of its hue: ink is a smooth line or word, tissue fills an area and has texture."""

from dataclasses import dataclass

import cv2
import numpy as np

INK_HUES = (40.0, 232.0)  # degrees: yellow, green and blue ink; hematoxylin and eosin lie beyond, from blue to red
MIN_SATURATION = 70.0  # ink is deep in color, 0..255
MIN_STAIN_FRACTION = 0.1  # of what is no glass; with less of its hue nothing can be said of a stain
# Texture relative to other tissue: less is ink, more may be tissue.
MAX_INK_TEXTURE, MIN_TISSUE_TEXTURE = 1 / 3, 2 / 3
# Gray levels between a stain of ink's hue and other tissue. Ink ends sharply; textured stains may differ more.
MAX_STAIN_STEP, MAX_TEXTURED_STEP = 40.0, 80.0
BORDER_PX = 7  # width of the border that is compared


@dataclass(frozen=True)
class Ink:
    """What of a thumbnail has the hue of ink.

    mask: bool (rows, columns), deep in color. fraction: of what is no glass, 0..1, pale parts included. is_stain:
    whether it looks like stained tissue.
    """

    mask: np.ndarray
    fraction: float
    is_stain: bool


def find_ink(pixels: np.ndarray, hue: np.ndarray, saturation: np.ndarray, colored: np.ndarray) -> Ink:
    """Find what has the hue of ink, and whether it is a stain of the slide instead.

    It is a stain where it is most of what is no glass or passes into other tissue without a great step, as the border
    between two hues then runs through one stain; but not where it is smooth beside other tissue.

    Args:
        pixels: thumbnail, uint8 RGB (rows, columns, 3).
        hue: degrees / 2, uint8 (rows, columns); it and `saturation` without noise and the glass's tint.
        saturation: uint8 (rows, columns).
        colored: what is no glass, bool (rows, columns).
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
    """Remove what is thinner than three px."""
    cross = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, cross)) > 0


def _measure_texture(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Measure how gray levels within a mask vary from px to px, away from its border; nan where it is too thin."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    variance = cv2.blur(gray**2, (3, 3)) - cv2.blur(gray, (3, 3)) ** 2
    return float(np.sqrt(np.median(np.maximum(0, variance[inner])))) if inner.any() else float("nan")


def _measure_step(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Measure the median difference in color where two masks meet, gray levels; nan where they do not."""
    masks = first.astype(np.uint8), second.astype(np.uint8)
    shares = [cv2.boxFilter(mask, cv2.CV_32F, (BORDER_PX, BORDER_PX)) for mask in masks]
    meet = np.minimum(*shares) > 2 / BORDER_PX**2
    if not meet.any():
        return float("nan")
    sums = [
        cv2.boxFilter(cv2.bitwise_and(pixels, pixels, mask=mask), cv2.CV_32F, (BORDER_PX, BORDER_PX)) for mask in masks
    ]
    means = [total[meet] / share[meet][:, None] for total, share in zip(sums, shares, strict=True)]
    return float(np.median(np.abs(means[0] - means[1]).max(1)))
