"""Segmentation: the mask of tissue on a thumbnail, by color."""

from collections.abc import Iterator

import cv2
import numpy as np
from skimage import filters

from slpd_core.slides.glass import find_brightest, find_glass_colors, remove_tint
from slpd_core.slides.ink import find_ink

# Bounds of the threshold on the saturation, 0..255. Lower: on a blank slide Otsu would call noise tissue. Upper: on a
# slide with a dark tumor Otsu would separate tumor from pale tissue, not tissue from glass.
SATURATION_RANGE = (8.0, 20.0)
MIN_TISSUE_BRIGHTNESS = 40  # of the brightest channel; darker pixels are scanner edges or marker
# Brightness relative to glass. Shaded pixels are not glass, so a color like the glass's counts too. Dark pixels are
# dust or marker if they are gray, whatever the color of the glass under them.
MAX_SHADED_BRIGHTNESS, MAX_DARK_BRIGHTNESS = 0.87, 0.65
MIN_REPORTED_INK = 0.01  # of all but glass; less ink is not worth a remark
MAX_TISSUE_FRACTION = 0.9  # of the slide; with more, glass may have been taken for tissue


def measure_color(pixels: np.ndarray, glass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure hue and saturation as on colorless glass.

    Args:
        pixels: uint8 RGB (rows, columns, 3).
        glass: Colors of the slide's bare glass, uint8 (n, 3); each pixel counts by the color it is most like.

    Returns:
        Hue in degrees / 2 and saturation in 0..255, both uint8 (rows, columns).
    """
    raw = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    clear = np.array([cv2.cvtColor(remove_tint(pixels, color), cv2.COLOR_RGB2HSV) for color in glass] or [raw])
    hue, saturation, brightness = clear[0, ..., 0], clear[..., 1].min(0), clear[..., 2].max(0) / 255
    return hue, np.select(
        [brightness < MAX_DARK_BRIGHTNESS, brightness < MAX_SHADED_BRIGHTNESS],
        [raw[..., 1], np.maximum(raw[..., 1], saturation)],
        saturation,
    )


def find_tissue(
    pixels: np.ndarray,
    mpp: float,
    *,
    smoothing_um: float = 24.0,
    closing_um: float = 64.0,
    ink: str = "auto",
    min_island_um2: float = 40_000.0,
    min_hole_um2: float = 40_000.0,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Find the tissue on a thumbnail: Otsu on the smoothed saturation, closed, without specks and pinholes.

    Args:
        pixels: uint8 RGB (rows, columns, 3).
        mpp: um/px of the thumbnail.
        smoothing_um: Width of the median filter; thinner lines are no tissue.
        closing_um: Narrower gaps are closed.
        ink: Pixels of a pen's hue: "exclude", "keep", or "auto" (kept if they look like a stain).
        min_island_um2: Pieces of tissue that are no larger are dropped.
        min_hole_um2: Holes that are no larger are filled.

    Returns:
        The mask, bool (rows, columns), and remarks on the slide.
    """
    half = round(smoothing_um / mpp / 2 - 0.01)
    smooth = cv2.medianBlur(np.ascontiguousarray(pixels), 2 * half + 1) if half else pixels
    hue, saturation = measure_color(smooth, find_glass_colors(pixels))
    black = find_brightest(smooth) < MIN_TISSUE_BRIGHTNESS
    colored = (saturation > SATURATION_RANGE[1]) & ~black
    pen = find_ink(pixels, hue, saturation, colored)
    is_excluded = ink == "exclude" or (ink == "auto" and not pen.is_stain)
    # Ink grows by some px, as its rim is pale.
    excluded = black | (cv2.dilate(pen.mask.astype(np.uint8), _disc(max(1, half))) > 0) if is_excluded else black
    mask = clean_mask(
        (saturation > _saturation_threshold(saturation[~excluded])) & ~excluded,
        mpp,
        smoothing_um=smoothing_um,
        closing_um=closing_um,
        min_island_um2=min_island_um2,
        min_hole_um2=min_hole_um2,
    )
    removed = float(pen.mask.sum() / max(1, (pen.mask | colored).sum())) if is_excluded else 0.0
    remarks = _remark_on_ink(removed=removed, kept=0.0 if is_excluded else pen.fraction)
    return mask, (*remarks, *remark_on_cover(float(mask.mean())))


def clean_mask(
    mask: np.ndarray,
    mpp: float,
    *,
    smoothing_um: float = 24.0,
    closing_um: float = 64.0,
    min_island_um2: float = 40_000.0,
    min_hole_um2: float = 40_000.0,
) -> np.ndarray:
    """Remove lines and specks from a mask, and close its gaps and pinholes.

    Args:
        mask: bool (rows, columns).
        mpp: um/px of the mask.
        smoothing_um, closing_um, min_island_um2, min_hole_um2: As in `find_tissue`.

    Returns:
        bool (rows, columns).
    """
    half = round(smoothing_um / mpp / 2 - 0.01)
    # The edge of a coverslip is a thin line.
    mask = np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(half)))
    radius = round(closing_um / 2 / mpp)
    if radius:
        closed = cv2.morphologyEx(np.pad(mask, radius), cv2.MORPH_CLOSE, _disc(radius))
        mask = np.asarray(closed)[radius:-radius, radius:-radius]
    pieces, areas, _ = _label_components(mask)
    kept = (areas > min_island_um2 / mpp**2)[pieces]
    # Glass cut off by the slide's border is no hole.
    gaps, areas, touching = _label_components(~kept)
    filled: np.ndarray = kept | ((areas <= min_hole_um2 / mpp**2) & (areas > 0) & ~touching)[gaps]
    return filled


def _saturation_threshold(saturation: np.ndarray) -> float:
    if not saturation.size or not np.ptp(saturation):
        return SATURATION_RANGE[1]
    return float(np.clip(filters.threshold_otsu(saturation), *SATURATION_RANGE))


def _remark_on_ink(*, removed: float, kept: float) -> Iterator[str]:
    """Remark on the fraction excluded as ink, of all but glass, and on a prevalent hue of ink that is kept."""
    if removed >= MIN_REPORTED_INK:
        yield f"{removed:.0%} of all but glass is excluded as ink of a pen; if it is tissue, set tissue.ink: keep."
    if kept > 0.5:
        yield f"{kept:.0%} of tissue has a hue of ink and is kept as a stain; if it is ink, set tissue.ink: exclude."


def remark_on_cover(covered: float) -> Iterator[str]:
    """Remark on tissue that covers nearly all of a slide.

    Args:
        covered: Fraction of the slide that is tissue.

    Yields:
        The remark, if there is one to make.
    """
    if covered > MAX_TISSUE_FRACTION:
        yield f"Tissue covers {covered:.0%} of the slide; if its overlay is wrong, outline it (tissue.masks_dir)."


def _label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label connected parts, 0 the background; per label its px (background: 0) and whether it touches the border."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    left, top, width, height, area = stats.T
    area = np.where(np.arange(count) > 0, area, 0)
    rows, columns = mask.shape
    return labels, area, (left == 0) | (top == 0) | (left + width == columns) | (top + height == rows)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
