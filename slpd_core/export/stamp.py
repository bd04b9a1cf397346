"""STAMP: features in half precision, coordinates in µm."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet

STAMP_VERSION = "2.5.0"  # of the layout; an older STAMP refuses newer files


def write_stamp(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write the features of a slide.

    Args:
        paths: Of the file `h5`.
        slide: The slide.
        features: Its squares and their vectors.
    """
    assert features.vectors is not None
    squares, mpp = features.squares, slide.slide.mpp
    attributes = {
        "stamp_version": STAMP_VERSION,
        "extractor": features.name,
        "feat_type": "tile",
        "unit": "um",
        "tile_size_um": squares.size_level0_px * mpp,
        "tile_size_px": squares.size_px,
    }
    with artifacts.create_foreign_h5(paths["h5"], attributes) as file:
        file.create_dataset("feats", data=features.vectors.astype(np.float16))
        file.create_dataset("coords", data=(squares.coords * mpp).astype(np.float32))
