"""Tissue: GeoJSON."""

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.checksums import read_sealed, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import broken
from slpd_core.artifacts.schema import Meta, SlideInfo, Tissue

MAX_UNPACKED_BYTES = 1 << 29  # of an outline that was packed
OLD_KINDS = {"PathDetectionObject": "detection", "PathCellObject": "cell", "PathTileObject": "tile"}  # of QuPath 0.2


def write_tissue(path: Path, tissue: Tissue, meta: Meta) -> None:
    """Write tissue as a FeatureCollection that QuPath opens, with the slide and the metadata in its member `slpd`.

    Args:
        path: Of the file.
        tissue: The tissue, level-0 px.
        meta: As `provenance` returns.
    """
    from shapely.geometry import mapping

    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": [46, 160, 67]}}
    features = [
        {
            "type": "Feature",
            "id": f"{tissue.slide.slide_id}-{i}",
            "geometry": mapping(polygon),
            "properties": {**properties, "tissue_id": i},
        }
        for i, polygon in enumerate(tissue.polygons)
    ]
    slide = {key: None if value != value else value for key, value in asdict(tissue.slide).items()}
    known = {"slide": slide, "source": tissue.source, "bounds_xy": tissue.bounds_xy, **meta, **stamp(path)}
    collection = {"type": "FeatureCollection", "features": features, "slpd": known}
    write_sealed(path, json.dumps(collection).encode())


@dataclass(frozen=True)
class Area:
    """An object of a GeoJSON.

    Args:
        geometry: A shapely geometry.
        name: Its class; "" for none.
        kind: "annotation", "detection", ...; "" for none.
    """

    geometry: Any
    name: str
    kind: str


def read_geojson_polygons(path: Path) -> list[Area]:
    """Read the objects of any GeoJSON: a FeatureCollection, a Feature, a geometry or a list.

    Args:
        path: Of the file, plain or packed by gzip.

    Returns:
        The objects, in two dimensions, in the file's order.

    Raises:
        ValueError: The file is no such GeoJSON, or a coordinate is not finite.
    """
    from shapely import force_2d, get_coordinates
    from shapely.errors import ShapelyError
    from shapely.geometry import GeometryCollection, shape

    try:
        content = json.loads(_read_bytes(path))
        content = content["features"] if isinstance(content, dict) and "features" in content else content
        areas = []
        for item in content if isinstance(content, list) else [content]:
            geometry = item.get("geometry", item)
            areas.append(Area(force_2d(shape(geometry) if geometry else GeometryCollection()), *_describe(item)))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ShapelyError) as error:
        raise ValueError(f"{path}: not a GeoJSON of areas ({error}); export it from QuPath as GeoJSON") from error
    if not np.isfinite(get_coordinates([area.geometry for area in areas])).all():
        raise ValueError(f"{path}: a corner is not finite; draw the outline again")
    return areas


def _read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if packed; raises ValueError if they unpack to more than MAX_UNPACKED_BYTES."""
    with Path(path).open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
        file.seek(0)
        try:
            content = gzip.GzipFile(fileobj=file).read(MAX_UNPACKED_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(str(error)) from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise ValueError(f"unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    return content


def _describe(item: Mapping[str, Any]) -> tuple[str, str]:
    """The class and the kind of a feature, as QuPath's releases and geopandas write them."""
    properties = item.get("properties") or {}
    name = properties.get("classification") or ""
    if isinstance(name, str) and name.lstrip().startswith("{"):
        name = json.loads(name)
    if isinstance(name, dict):
        name = name.get("name") or ": ".join(name.get("names") or [])
    kind = properties.get("objectType") or properties.get("object_type") or OLD_KINDS.get(str(item.get("id")), "")
    return str(name), str(kind).lower()


def read_tissue(path: Path) -> tuple[Tissue, Meta]:
    """Read a file that `write_tissue` wrote.

    Args:
        path: Of the file.

    Returns:
        The tissue and the metadata.

    Raises:
        ValueError: The file is broken or was edited.
    """
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    edited = "; if you have edited it, put it into the folder that tissue.masks_dir names"
    try:
        data = read_sealed(path)
    except ValueError as error:
        raise ValueError(f"{error}{edited}") from error
    try:
        collection = json.loads(data.tobytes())
        meta = unstamp(path, collection["slpd"])
        slide: dict[str, Any] = {
            key: float("nan") if value is None else value for key, value in meta.pop("slide").items()
        }
        polygons = tuple(shape(feature["geometry"]) for feature in collection["features"])
        slide["remarks"] = tuple(slide["remarks"])
        bounds_xy = tuple(map(int, meta.pop("bounds_xy")))
        return Tissue(SlideInfo(**slide), polygons, meta.pop("source"), bounds_xy), meta
    except (KeyError, TypeError, ValueError, RecursionError, ShapelyError) as error:
        raise ValueError(broken(path, f"not a tissue file ({error})") + edited) from error
