"""QuPath 0.5: a GeoJSON of tiles per slide, which opens as a measurement map and by class."""

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet

# Okabe and Ito's colors for the color blind, then Tableau's others.
PROTOTYPE_COLORS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((148, 103, 189), (140, 86, 75), (23, 190, 207)),
)


def describe_tile(features: FeatureSet, i: int, shift_xy: tuple[int, ...], slide_id: str) -> dict[str, Any]:
    """Describe a region as QuPath's object.

    Args:
        features: Regions with `facts`.
        i: Index of the region.
        shift_xy: Where QuPath counts from, level-0 px.
        slide_id: The slide.

    Returns:
        A GeoJSON feature; its measurements are finite, its id is the same in every export.
    """
    assert features.facts is not None
    (left, top), side = features.squares.coords[i].tolist(), features.squares.size_level0_px
    x, y = left - shift_xy[0], top - shift_xy[1]
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    facts = {str(name): float(value) for name, value in features.facts.iloc[i].items()}
    prototype = facts.pop("prototype", math.nan)
    focus = features.squares.focus
    measured = {"tissue_fraction": float(features.squares.tissue_fraction[i])} | facts
    measured |= {} if focus is None else {"focus": float(focus[i])}
    properties: dict[str, Any] = {
        "objectType": "tile",
        "measurements": {name: value for name, value in measured.items() if math.isfinite(value)},
        "metadata": {"slide_id": slide_id, "encoder": features.name},
    }
    if math.isfinite(prototype):
        color = PROTOTYPE_COLORS[int(prototype) % len(PROTOTYPE_COLORS)]
        properties["classification"] = {"name": f"Prototype {prototype:.0f}", "color": [*color]}
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"slpd:{slide_id}:{features.name}:{left},{top}")
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "id": str(name), "geometry": geometry, "properties": properties}


def write_qupath(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write one tile per region of an encoder.

    Args:
        paths: Of the file `geojson`.
        slide: The slide.
        features: Its regions and what is known of each.
    """
    shift_xy = slide.tissue.bounds_xy if slide.from_bounds else (0, 0)
    n, slide_id = len(features.squares.coords), slide.slide.slide_id
    tiles = [describe_tile(features, i, shift_xy, slide_id) for i in range(n)]
    artifacts.write_plain_json(paths["geojson"], {"type": "FeatureCollection", "features": tiles})
