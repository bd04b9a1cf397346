"""Tissue: GeoJSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.store.files import broken, write_text
from slpd_core.store.schema import Meta, SlideInfo, Tissue


def write_tissue(path: Path, tissue: Tissue, meta: Meta) -> None:
    """Write a FeatureCollection of level-0 px polygons that QuPath opens; slide and metadata stand beside them."""
    from shapely.geometry import mapping

    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": [46, 160, 67]}}
    features = [
        {
            "type": "Feature",
            "id": f"{tissue.slide.slide_id}-{number}",
            "geometry": mapping(polygon),
            "properties": properties,
        }
        for number, polygon in enumerate(tissue.polygons)
    ]
    slide = {key: None if value != value else value for key, value in asdict(tissue.slide).items()}
    collection = {"type": "FeatureCollection", "features": features, "slpd": {"slide": slide, **meta}}
    write_text(path, json.dumps(collection))


def read_areas(path: Path) -> list[Any]:
    """Read the areas of any GeoJSON, as shapely geometries: a FeatureCollection, a Feature, a geometry or a list.

    Raises ValueError when the file holds something else, or lines and points.
    """
    from shapely import get_coordinates
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found = found["features"] if isinstance(found, dict) and "features" in found else found
        geometries = [shape(item.get("geometry", item)) for item in (found if isinstance(found, list) else [found])]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ShapelyError) as error:
        raise ValueError(f"{path}: not a GeoJSON of areas ({error}); export it from QuPath as GeoJSON") from error
    if not np.isfinite(get_coordinates(geometries)).all():
        raise ValueError(f"{path}: holds a corner at no finite place; outline tissue anew")
    other = {item.geom_type for item in geometries} - {"Polygon", "MultiPolygon"}
    if other:
        raise ValueError(f"{path}: holds {', '.join(sorted(other))}; outline tissue with areas only")
    return geometries


def read_tissue(path: Path) -> tuple[Tissue, Meta]:
    """Read what `write_tissue` wrote.

    Raises ValueError when the file is broken.
    """
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        collection = json.loads(Path(path).read_text(encoding="utf-8"))
        meta = dict(collection["slpd"])
        slide: dict[str, Any] = {
            key: float("nan") if value is None else value for key, value in meta.pop("slide").items()
        }
        polygons = tuple(shape(feature["geometry"]) for feature in collection["features"])
        slide["remarks"] = tuple(slide["remarks"])
        return Tissue(SlideInfo(**slide), polygons), meta
    except (KeyError, TypeError, ValueError, RecursionError, ShapelyError) as error:
        edited = "; where you have edited it, put it into the folder that tissue.masks names"
        raise ValueError(broken(path, f"not a tissue file ({error})") + edited) from error
