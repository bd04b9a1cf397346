"""Tissue: where on the slide there is any, segmented on a thumbnail."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from shapely import affinity, build_area
from shapely.geometry import MultiLineString, Polygon
from skimage import filters, measure

from slpd_core import artifacts, config
from slpd_core.drawing.overlays import draw_placeholder, outline_tissue
from slpd_core.runtime import log
from slpd_core.slides.glass import find_brightest, find_glass_colors, remove_tint
from slpd_core.slides.ink import find_ink
from slpd_core.slides.outlines import find_origin, read_outline, sorted_polygons
from slpd_core.wsi import identity, outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide

VERSION = 3
# Bounds of the threshold on the saturation, 0..255. Lower: Otsu on a blank slide would call its noise tissue. Upper:
# on a slide with a dark tumour Otsu would part tumour from pale tissue, not tissue from glass.
SATURATION_RANGE = (8.0, 20.0)
MIN_TISSUE_BRIGHTNESS = 40  # pixels whose brightest channel is below this are scanner edges or marker, not tissue
# Brightness beside the glass's: below SHADED a pixel is no glass, so that a color like the glass's is color all the
# same; below DARK it is dust or marker where it is gray, whatever the color of the glass that it hides.
MAX_SHADED_BRIGHTNESS, MAX_DARK_BRIGHTNESS = 0.87, 0.65
MIN_REPORTED_INK = 0.01  # of what is no glass; less ink is not worth a remark
MAX_TISSUE_FRACTION = 0.9  # of the slide; with more, glass may have been taken for tissue


def measure_color(pixels: np.ndarray, glass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure hue and saturation as they would be on colorless glass.

    Args:
        pixels: uint8 RGB (rows, columns, 3).
        glass: the colors of the slide's bare glass, uint8 (n, 3); a pixel counts by the one it is most like.

    Returns:
        hue in degrees / 2 and saturation in 0..255, both uint8 (rows, columns).
    """
    raw = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    clear = np.array([cv2.cvtColor(remove_tint(pixels, one), cv2.COLOR_RGB2HSV) for one in glass] or [raw])
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
        pixels: uint8 RGB (rows, columns, 3) at `mpp` um/px.
        mpp: um/px of the thumbnail.
        smoothing_um: Width of the median filter; thinner lines are no tissue.
        closing_um: Narrower gaps are closed.
        ink: Pixels of a pen's hue: "exclude", "keep", or "auto" (kept where they look like a stain).
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
    return mask, (*_remark_on_ink(removed, 0.0 if is_excluded else pen.fraction), *_remark_on_cover(float(mask.mean())))


def _saturation_threshold(saturation: np.ndarray) -> float:
    if not saturation.size or not np.ptp(saturation):
        return SATURATION_RANGE[1]
    return float(np.clip(filters.threshold_otsu(saturation), *SATURATION_RANGE))


def _remark_on_ink(left_out: float, kept: float) -> Iterator[str]:
    """Say which share of what is no glass was left out as ink, and where most has such a hue and was kept."""
    if left_out >= MIN_REPORTED_INK:
        yield f"{left_out:.0%} of what is no glass is left out as ink of a pen; if it is tissue, set tissue.ink: keep."
    if kept > 0.5:
        yield f"{kept:.0%} of tissue has a hue of ink and is kept as a stain; if it is ink, set tissue.ink: exclude."


def _remark_on_cover(covered: float) -> Iterator[str]:
    """Say where tissue covers nearly all of a slide."""
    if covered > MAX_TISSUE_FRACTION:
        yield f"Tissue covers {covered:.0%} of the slide; if its overlay is wrong, outline it (tissue.masks_dir)."


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
        mask: bool (rows, columns) at `mpp` um/px.
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
    pieces, areas, _ = _components(mask)
    whole = (areas > min_island_um2 / mpp**2)[pieces]
    # Glass cut off by the slide's border is no hole.
    gaps, areas, touching = _components(~whole)
    return whole | ((areas <= min_hole_um2 / mpp**2) & (areas > 0) & ~touching)[gaps]


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label the connected parts of a mask (rows, columns), 0 for the background.

    Returns the labels, int32 (rows, columns), and per label its area in px (0 for the background) and whether it
    touches the border, both (labels,).
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    left, top, width, height, area = stats.T
    area = np.where(np.arange(count) > 0, area, 0)
    rows, columns = mask.shape
    return labels, area, (left == 0) | (top == 0) | (left + width == columns) | (top + height == rows)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def mask_polygons(mask: np.ndarray, scale: tuple[float, float]) -> tuple[Polygon, ...]:
    """Trace valid polygons with holes around the True pixels of a mask.

    Args:
        mask: bool (rows, columns).
        scale: (x, y), units of the result per pixel of the mask.

    Returns:
        The polygons, ordered by their upper left corners.
    """
    contours = measure.find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    # Pixel centres lie at half units, the padding at one: coordinates of the mask's pixel edges.
    rings = [contour[:, ::-1] - 0.5 for contour in contours if len(contour) > 3]
    # Even-odd over nested rings: what lies inside one is tissue, inside two a hole, inside three an island in it.
    shape = build_area(MultiLineString(rings))
    shape = affinity.scale(shape, *scale, origin=(0, 0))
    return sorted_polygons(shape)


def segment_file(
    slide_id: str,
    path: Path,
    mpp: float | None = None,
    *,
    missing_tiles: str = "error",
    **settings: Any,
) -> tuple[artifacts.Tissue, Image.Image]:
    """Open a slide and find its tissue, or take it from an outline.

    Args:
        slide_id: Id of the slide.
        path: The slide's file.
        mpp: um/px that overrides the slide's own; None does not.
        missing_tiles: "error", or "white" for tiles that a plain TIFF leaves out.
        settings: The keywords of `segment_slide`.

    Returns:
        The tissue, and the thumbnail with its outline.

    Raises:
        SlideError: The slide's data are broken.
        OSError: The slide's file cannot be read.
        ValueError: The outline cannot be read as one of this slide.
    """
    with Slide(path, mpp, missing_tiles=missing_tiles) as slide:
        return segment_slide(slide_id, slide, **settings)


def segment_slide(
    slide_id: str,
    slide: Slide,
    *,
    fingerprint: str = "",
    mask_path: Path | None = None,
    mask_origin: str | None = None,
    classes: Collection[str] | None = None,
    ignore: Collection[str] = (),
    thumbnail_mpp: float = 8.0,
    **settings: Any,
) -> tuple[artifacts.Tissue, Image.Image]:
    """Find the tissue of an open slide on a thumbnail, or take it from an outline.

    Args:
        slide_id: Id of the slide.
        slide: The slide.
        fingerprint: Of the slide's bytes.
        mask_path: A GeoJSON outlined by hand; the slide is not segmented then.
        mask_origin: What the outline counts from on slides with bounds: "slide" or "bounds"; see `find_origin`.
        classes, ignore: Of the outline, as in `read_outline`.
        thumbnail_mpp: um/px of the thumbnail.
        settings: The keywords of `find_tissue`.

    Returns:
        The tissue, and the thumbnail with its outline.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The outline cannot be read as one of this slide.
    """
    pixels = slide.thumbnail(thumbnail_mpp)
    info = artifacts.SlideInfo(slide_id, artifacts.OK, "", *slide.size, slide.mpp, slide.mpp_source, fingerprint)
    info = replace(info, remarks=slide.remarks, missing_tiles=slide.missing_tiles)
    scale = (downsample_factor(info.mpp, max(info.mpp, thumbnail_mpp)),) * 2
    source = "segmented"
    if mask_path:
        corner = find_origin(slide_id, slide.bounds_xy, mask_origin)
        polygons, remarks = read_outline(mask_path, slide.size, corner=corner, classes=classes, ignore=ignore)
        source = "outline from bounds" if any(corner) else "outline"
    else:
        mask, remarks = find_tissue(pixels, info.mpp * scale[0], **settings)
        polygons = mask_polygons(mask, scale)
    tissue = artifacts.Tissue(replace(info, remarks=info.remarks + remarks), polygons, source, slide.bounds_xy)
    return tissue, outline_tissue(pixels, polygons, scale)


def run(
    *,
    slide_id: str,
    slide_path: Path,
    mpp: float | None,
    geojson_path: Path,
    overlay_path: Path,
    section: config.TissueSegmentationConfig,
    quarantine: tuple[type[Exception], ...],
    mask_path: Path | None = None,
    outline: config.TissueOutlineConfig | None = None,
    state_dir: Path | None = None,
) -> None:
    """Find a slide's tissue; a slide that cannot be read is quarantined with the reason.

    mpp: the sheet's um/px, None where the slide's own is to be used. quarantine: the errors that do that, others are
    raised. mask_path: a GeoJSON of one's own that is taken instead, outline: how it is read. state_dir: what runs note
    of the slides' files.
    """
    fingerprint, mask = "", "segmented"
    settings = section.model_dump() | (outline.model_dump() if outline else {}) | {"mask_path": mask_path}
    unread = outages.name_mark(state_dir, slide_id, geojson_path)
    if mask_path:
        mask = artifacts.fingerprint(
            artifacts.file_fingerprint(mask_path), outline.model_dump_json() if outline else ""
        )
    try:
        with outages.catch_os_errors(slide_path, raise_slide_error=OSError in quarantine):
            fingerprint = identity.slide_fingerprint(slide_path, state_dir and state_dir / f"{slide_id}.json")
            try:
                tissue, picture = segment_file(slide_id, slide_path, mpp, fingerprint=fingerprint, **settings)
            except SlideError:
                identity.slide_fingerprint(slide_path)  # an OSError where it is not the slide that is broken
                tissue, picture = segment_file(slide_id, slide_path, mpp, fingerprint=fingerprint, **settings)
        outages.note_read(unread)
    except SlideError as error:
        if SlideError not in quarantine:
            raise
        reason = outages.explain(error, unread, slide_path)
        log.warning("quarantined: %s", reason)
        info = artifacts.SlideInfo(slide_id, artifacts.QUARANTINED, reason, fingerprint=fingerprint)
        tissue, picture = artifacts.Tissue(info, ()), draw_placeholder(slide_id, reason)
    meta = artifacts.provenance("tissue", VERSION, section.model_dump(), fingerprint, str(mpp), mask)
    artifacts.write_picture(overlay_path, picture)
    artifacts.write_tissue(geojson_path, tissue, meta)
    for remark in tissue.slide.remarks:
        log.warning("%s: %s", slide_id, remark)
    log.info("%s: %d piece(s) of tissue, %.1f mm2", tissue.source, len(tissue.polygons), tissue.area_mm2)
