"""TRIDENT: coordinates, features and contours, in the folders in which its processor looks for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet


def _write_coords(file: Any, path: Path, squares: artifacts.Regions) -> None:
    """Write `coords` with TRIDENT's attributes into an open file."""
    coords = file.create_dataset("coords", data=squares.coords.astype(np.int64))
    coords.attrs.update(artifacts.trident_attributes(squares, path))


def write_trident(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write the corners of squares, their features where there are any, and the slide's tissue.

    Args:
        paths: Of the files `coords`, `features` and `contours`.
        slide: The slide.
        features: Its squares and their vectors.
    """
    from shapely.geometry import mapping

    with artifacts.create_foreign_h5(paths["coords"], {}) as file:
        _write_coords(file, paths["coords"], features.squares)
    if features.vectors is not None:
        with artifacts.create_foreign_h5(paths["features"], {}) as file:
            vectors = file.create_dataset("features", data=features.vectors.astype(np.float32))
            vectors.attrs.update(encoder=features.name, name=slide.slide.slide_id)
            _write_coords(file, paths["features"], features.squares)
    contours = [
        {"type": "Feature", "properties": {"tissue_id": i}, "geometry": mapping(polygon)}
        for i, polygon in enumerate(slide.tissue.polygons)
    ]
    artifacts.write_plain_json(paths["contours"], {"type": "FeatureCollection", "features": contours})
