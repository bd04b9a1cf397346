"""Tissue: where on the slide there is any, segmented on a thumbnail."""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from shapely import affinity, build_area
from shapely.geometry import MultiLineString, MultiPolygon, Polygon
from skimage import filters, measure, morphology

from slpd_core import config, store
from slpd_core.runtime import log
from slpd_core.slides.reader import Slide

VERSION = 1
# Bounds of the threshold on the saturation, 0..255. Lower: Otsu on a blank slide would call its noise tissue. Upper:
# on a slide with a dark tumour Otsu would part tumour from pale tissue, not tissue from glass.
SATURATION_RANGE = (8.0, 20.0)
BLACK = 40  # pixels whose brightest channel is below this are scanner edges or marker, not tissue
OVERLAY_PX = 1024
OUTLINE = (0, 140, 60)


def saturation(pixels: np.ndarray) -> np.ndarray:
    """HSV saturation scaled by 255 of uint8 RGB (rows, columns, 3): float32 (rows, columns)."""
    brightest = pixels.max(2).astype(np.float32)
    return (brightest - pixels.min(2)) / np.maximum(brightest, 1) * 255


def tissue_mask(pixels: np.ndarray, mpp: float, section: config.Tissue) -> np.ndarray:
    """Which pixels of a thumbnail show tissue: Otsu on the smoothed saturation, closed, without specks and pinholes.

    pixels: uint8 RGB (rows, columns, 3) at `mpp` um/px. Gives bool (rows, columns).
    """
    width = max(1, round(section.smoothing_um / mpp))
    smooth = ndimage.median_filter(saturation(pixels).astype(np.uint8), size=width)
    dark = ndimage.median_filter(pixels.max(2), size=width) < BLACK
    threshold = (
        float(np.clip(filters.threshold_otsu(smooth), *SATURATION_RANGE)) if np.ptp(smooth) else SATURATION_RANGE[1]
    )
    mask = (smooth > threshold) & ~dark
    radius = round(section.closing_um / 2 / mpp)
    if radius:
        padded = np.pad(mask, radius)
        mask = morphology.isotropic_closing(padded, radius)[radius:-radius, radius:-radius]
    mask = morphology.remove_small_objects(mask, max_size=int(section.min_island_um2 / mpp**2))
    filled = morphology.remove_small_holes(mask, max_size=int(section.min_hole_um2 / mpp**2))
    return filled & ndimage.binary_fill_holes(mask)  # glass cut off by the slide's border is no hole


def mask_polygons(mask: np.ndarray, scale: tuple[float, float]) -> tuple[Polygon, ...]:
    """Valid polygons with holes around the True pixels of a mask (rows, columns).

    scale: (x, y) units of the result a pixel of the mask. Ordered by their upper left corners.
    """
    contours = measure.find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    # Pixel centres lie at half units, the padding at one: coordinates of the mask's pixel edges.
    rings = [contour[:, ::-1] - 0.5 for contour in contours if len(contour) > 3]
    # Even-odd over nested rings: what lies inside one is tissue, inside two a hole, inside three an island in it.
    shape = build_area(MultiLineString(rings))
    shape = affinity.scale(shape, *scale, origin=(0, 0))
    parts = shape.geoms if isinstance(shape, MultiPolygon) else [shape]
    whole = [part for part in parts if isinstance(part, Polygon) and not part.is_empty]
    return tuple(sorted(whole, key=lambda part: (part.bounds[1], part.bounds[0])))


def overlay(pixels: np.ndarray, polygons: tuple[Polygon, ...], scale: tuple[float, float]) -> Image.Image:
    """The thumbnail with the tissue's outline, at most OVERLAY_PX wide or high.

    scale: (x, y) units of the polygons a pixel of the thumbnail.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((OVERLAY_PX, OVERLAY_PX))
    shrink = picture.width / pixels.shape[1], picture.height / pixels.shape[0]
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.asarray(ring.coords) / scale * shrink
            draw.line([tuple(point) for point in points], fill=OUTLINE, width=max(2, OVERLAY_PX // 400))
    return picture


def notice(slide_id: str, reason: str) -> Image.Image:
    """A picture that says why a slide is quarantined."""
    picture = Image.new("RGB", (640, 320), "white")
    lines = [f"{slide_id}: quarantined", "", *textwrap.wrap(reason, 44)]
    font = ImageFont.load_default(size=26)
    ImageDraw.Draw(picture).multiline_text((20, 20), "\n".join(lines), fill=(160, 20, 20), spacing=6, font=font)
    return picture


def segment(
    slide_id: str, path: Path, mpp: float | None, section: config.Tissue, fingerprint: str
) -> tuple[store.Tissue, Image.Image]:
    """Open a slide and find its tissue; gives it with the overlay.

    Raises SlideError or OSError when the slide cannot be read.
    """
    with Slide(path, mpp) as slide:
        pixels = slide.thumbnail(section.thumbnail_mpp)
        info = store.SlideInfo(slide_id, store.OK, "", *slide.size, slide.mpp, slide.mpp_source, fingerprint)
    rows, columns = pixels.shape[:2]
    scale = info.width_px / columns, info.height_px / rows
    polygons = mask_polygons(tissue_mask(pixels, info.mpp * scale[0], section), scale)
    return store.Tissue(info, polygons), overlay(pixels, polygons, scale)


def run(
    *,
    slide_id: str,
    slide_path: Path,
    mpp: float | None,
    geojson_path: Path,
    overlay_path: Path,
    section: config.Tissue,
    quarantine: tuple[type[Exception], ...],
) -> None:
    """Find a slide's tissue; a slide that cannot be read is quarantined with the reason.

    mpp: the sheet's um/px, None where the slide's own is to be used. quarantine: the errors that do that, others are
    raised.
    """
    fingerprint = ""
    try:
        fingerprint = store.file_fingerprint(slide_path)
        tissue, picture = segment(slide_id, slide_path, mpp, section, fingerprint)
    except quarantine as error:
        log.warning("quarantined: %s", error)
        info = store.SlideInfo(slide_id, store.QUARANTINED, str(error), fingerprint=fingerprint)
        tissue, picture = store.Tissue(info, ()), notice(slide_id, str(error))
    meta = store.provenance("tissue", VERSION, section.model_dump(), fingerprint, str(mpp))
    with store.replacing(overlay_path) as part:
        picture.save(part, format="PNG")
    store.write_tissue(geojson_path, tissue, meta)
    area_mm2 = sum(polygon.area for polygon in tissue.polygons) * tissue.slide.mpp**2 / 1e6
    log.info("%d piece(s) of tissue, %.1f mm2", len(tissue.polygons), area_mm2 if tissue.polygons else 0)
