"""Outlines: tissue drawn by hand, as GeoJSON of QuPath and other tools."""

from collections.abc import Collection, Iterable
from pathlib import Path

from shapely import affinity, box, get_parts, make_valid, unary_union
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from slpd_core import artifacts
from slpd_core.runtime import name_some

ANNOTATION_KINDS = ("", "annotation")  # kinds of objects that outline tissue, unlike detections, cells and tiles
MIN_REPORTED_OUTSIDE = 0.01  # of the outlined area


def read_outline(
    path: Path,
    slide_px: tuple[int, int],
    *,
    corner: tuple[int, int] = (0, 0),
    classes: Collection[str] | None = None,
    ignore: Collection[str] = (),
) -> tuple[tuple[Polygon, ...], tuple[str, ...]]:
    """Read tissue outlined by hand.

    Args:
        path: A GeoJSON, as `artifacts.read_geojson_polygons` reads it. Classes that begin with "Ignore", as QuPath's
            own, are subtracted from the others.
        slide_px: (width, height), level-0 px.
        corner: (x, y) of the outline's origin, level-0 px.
        classes: The classes that are tissue; None for all that are not ignored, and areas without a class.
        ignore: Further classes that are subtracted.

    Returns:
        Valid, disjoint polygons within the slide, level-0 px, and remarks on objects that do not count.

    Raises:
        ValueError: The file is no GeoJSON, holds no area, or all of them lie outside the slide.
    """
    objects = artifacts.read_geojson_polygons(path)
    areas = [area for area in objects if area.kind in ANNOTATION_KINDS and sorted_polygons(area.geometry)]
    if objects and not areas:
        kinds = {area.geometry.geom_type if area.kind in ANNOTATION_KINDS else area.kind for area in objects}
        raise ValueError(f"{path}: holds {', '.join(sorted(kinds))}; outline tissue with areas only")
    is_ignored = [_is_of(area.name, ignore) or _base(area.name).startswith("ignore") for area in areas]
    chosen = [
        area.geometry
        for area, ignored in zip(areas, is_ignored, strict=True)
        if not ignored and (classes is None or _is_of(area.name, classes))
    ]
    drawn = affinity.translate(_join(chosen), *corner)
    within = drawn.intersection(box(0, 0, *slide_px))
    if drawn.area and not within.area:
        raise ValueError(f"{path}: its areas lie outside the slide of {slide_px[0]} x {slide_px[1]} px; use level-0 px")
    subtracted = (area.geometry for area, ignored in zip(areas, is_ignored, strict=True) if ignored)
    polygons = sorted_polygons(within.difference(affinity.translate(_join(subtracted), *corner)))
    remarks = []
    if n_others := len(objects) - len(areas):
        remarks.append(
            f"{n_others} of {len(objects)} objects of its outline are lines, points or detections: they do not count."
        )
    if areas and classes is not None and not chosen:
        names = name_some(sorted({area.name or "no class" for area in areas}))
        remarks.append(f"Its outline has no area of tissue.classes, but of {names}.")
    if drawn.area and 1 - within.area / drawn.area > MIN_REPORTED_OUTSIDE:
        remarks.append(f"{1 - within.area / drawn.area:.0%} of its outline lies outside the slide and is cut off.")
    return polygons, tuple(remarks)


def find_origin(slide_id: str, bounds_xy: tuple[int, int], mask_origin: str | None) -> tuple[int, int]:
    """Find the origin of a slide's outline.

    Args:
        slide_id: Id of the slide, for messages.
        bounds_xy: Corner of the scanned area, level-0 px.
        mask_origin: "slide", "bounds", or None if not set.

    Returns:
        (x, y), level-0 px.

    Raises:
        ValueError: The slide's bounds begin elsewhere, and `mask_origin` is not set; or it is no origin.
    """
    if mask_origin not in (None, "slide", "bounds"):
        raise ValueError(f"tissue.mask_origin: no origin {mask_origin!r}; set it to slide or bounds")
    if any(bounds_xy) and mask_origin is None:
        raise ValueError(
            f"tissue.mask_origin: null, but {slide_id} has an outline, and bounds that begin at {bounds_xy}; set it to "
            "bounds if outlines count from there (as QuPath's do), to slide if from level 0 (TRIDENT, this pipeline)"
        )
    return bounds_xy if mask_origin == "bounds" else (0, 0)


def sorted_polygons(shape: BaseGeometry) -> tuple[Polygon, ...]:
    """List the polygons of a geometry.

    Args:
        shape: Any geometry.

    Returns:
        Its polygons, ordered by their upper left corners.
    """
    parts = [part for part in get_parts(get_parts(shape)) if isinstance(part, Polygon) and not part.is_empty]
    return tuple(sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0])))


def _join(geometries: Iterable[BaseGeometry]) -> BaseGeometry:
    """Join areas into one valid geometry of polygons alone."""
    return unary_union([polygon for shape in geometries for polygon in sorted_polygons(make_valid(shape))])


def _base(name: str) -> str:
    """Class that another is derived from, as "Ignore*: Fold" is from "Ignore*"."""
    return name.split(":")[0].strip().casefold()


def _is_of(name: str, classes: Collection[str]) -> bool:
    return bool({name.strip().casefold(), _base(name)} & {other.strip().casefold() for other in classes})
