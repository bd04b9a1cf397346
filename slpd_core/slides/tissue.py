"""Tissue: its polygons on a slide, segmented on a thumbnail or outlined by hand."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shapely import affinity, build_area
from shapely.geometry import MultiLineString, Polygon
from skimage import measure

from slpd_core import artifacts, config
from slpd_core.drawing.overlays import draw_placeholder, outline_tissue
from slpd_core.runtime import log
from slpd_core.slides.grandqc import load_grandqc
from slpd_core.slides.hest import load_hest
from slpd_core.slides.outlines import find_origin, read_outline, sorted_polygons
from slpd_core.slides.segmentation import find_tissue, remark_on_cover
from slpd_core.slides.tissue_network import TissueNetwork, find_tissue_by_network
from slpd_core.wsi import identity, outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide

VERSION = 3
TISSUE_NETWORKS: Mapping[str, Callable[[Path], TissueNetwork]] = {"grandqc": load_grandqc, "hest": load_hest}


def mask_polygons(mask: np.ndarray, scale: tuple[float, float]) -> tuple[Polygon, ...]:
    """Trace valid polygons with holes around the True pixels of a mask.

    Args:
        mask: bool (rows, columns).
        scale: (x, y), units of the result per px of the mask.

    Returns:
        The polygons, ordered by their upper left corners.
    """
    contours = measure.find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    # Pixel centers lie at half units and the padding adds one: coordinates of the mask's pixel edges.
    rings = [contour[:, ::-1] - 0.5 for contour in contours if len(contour) > 3]
    # Even-odd over nested rings: inside one is tissue, inside two a hole, inside three an island in it.
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
    method: str = "otsu",
    weights: str | None = None,
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
        fingerprint: Fingerprint of the slide's bytes.
        method: "otsu", or a network: "grandqc" or "hest".
        weights: File of the network's weights.
        mask_path: A GeoJSON outlined by hand, used instead of a segmentation.
        mask_origin: Origin of the outline on slides with bounds: "slide" or "bounds"; see `find_origin`.
        classes, ignore: Classes of the outline, as in `read_outline`.
        thumbnail_mpp: um/px of the thumbnail.
        settings: The keywords of `find_tissue`.

    Returns:
        The tissue, and the thumbnail with its outline.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The outline cannot be read as one of this slide, or the weights are not the network's.
        ModuleNotFoundError: A package of the network is not installed.
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
    elif method == "otsu":
        mask, remarks = find_tissue(pixels, info.mpp * scale[0], **settings)
        polygons = mask_polygons(mask, scale)
    else:
        if weights is None:
            raise ValueError(f"tissue.method {method} needs its weights; give their path as tissue.weights")
        settings.pop("ink", None)
        network = TISSUE_NETWORKS[method](Path(weights))
        log.info("tissue by %s: %s", method, network.license)
        mask, side = find_tissue_by_network(slide, network, thumbnail_mpp=thumbnail_mpp, **settings)
        polygons, remarks = mask_polygons(mask, (side, side)), tuple(remark_on_cover(float(mask.mean())))
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
    """Write a slide's tissue and its picture; a slide that cannot be read is quarantined with the reason.

    Args:
        slide_id: Id of the slide.
        slide_path: The file that the sheet names.
        mpp: um/px of the sheet; None uses the slide's own.
        geojson_path: The file to write.
        overlay_path: The picture to write.
        section: The settings of segmentation.
        quarantine: Errors that quarantine the slide; others are raised.
        mask_path: A GeoJSON outlined by hand, used instead of a segmentation.
        outline: How the outline is read.
        state_dir: Folder of memos and marks on the slides' files.
    """
    fingerprint, mask = "", "segmented"
    options = section.model_dump() | (outline.model_dump() if outline else {}) | {"mask_path": mask_path}
    mark_path = outages.name_mark(state_dir, slide_id, geojson_path)
    if mask_path:
        mask = artifacts.fingerprint(
            artifacts.file_fingerprint(mask_path), outline.model_dump_json() if outline else ""
        )
    elif section.weights:
        mask = artifacts.file_fingerprint(Path(section.weights))
    try:
        with outages.catch_os_errors(slide_path, raise_slide_error=OSError in quarantine):
            fingerprint = identity.slide_fingerprint(slide_path, state_dir and state_dir / f"{slide_id}.json")
            tissue, picture = _segment_twice(slide_id, slide_path, mpp, fingerprint=fingerprint, **options)
        outages.note_read(mark_path)
    except SlideError as error:
        if SlideError not in quarantine:
            raise
        reason = outages.explain(error, mark_path, slide_path)
        log.warning("quarantined: %s", reason)
        info = artifacts.SlideInfo(slide_id, artifacts.QUARANTINED, reason, fingerprint=fingerprint)
        tissue, picture = artifacts.Tissue(info, ()), draw_placeholder(slide_id, reason)
    settings = section.model_dump(exclude={"weights"})
    meta = artifacts.provenance("tissue", VERSION, settings, fingerprint, str(mpp), mask)
    artifacts.write_picture(overlay_path, picture)
    artifacts.write_tissue(geojson_path, tissue, meta)
    for remark in tissue.slide.remarks:
        log.warning("%s: %s", slide_id, remark)
    log.info("%s: %d piece(s) of tissue, %.1f mm2", tissue.source, len(tissue.polygons), tissue.area_mm2)


def _segment_twice(slide_id: str, slide_path: Path, *args: Any, **options: Any) -> tuple[artifacts.Tissue, Image.Image]:
    """Find a slide's tissue; if it seems broken, once more after reading all of it: outages look the same."""
    try:
        return segment_file(slide_id, slide_path, *args, **options)
    except SlideError:
        identity.slide_fingerprint(slide_path)  # an OSError if the file cannot be read
        return segment_file(slide_id, slide_path, *args, **options)
