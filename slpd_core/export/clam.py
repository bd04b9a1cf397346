"""CLAM: a bag of features per slide, as a tensor and as HDF5 with coordinates."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet


def write_clam(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write the bag of a slide.

    Args:
        paths: Of the files `pt` and `h5`.
        slide: The slide.
        features: Its squares and their vectors.
    """
    assert features.vectors is not None
    vectors = features.vectors.astype(np.float32)
    artifacts.write_tensor(paths["pt"], vectors)
    with artifacts.create_foreign_h5(paths["h5"], {}) as file:
        file.create_dataset("features", data=vectors)
        file.create_dataset("coords", data=features.squares.coords.astype(np.int32))
