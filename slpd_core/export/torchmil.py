"""torchmil: one .npy per slide in a folder of features and one of coordinates."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet


def write_torchmil(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write the bag of a slide.

    Args:
        paths: Of the files `features` and `coords`.
        slide: The slide.
        features: Its squares and their vectors.
    """
    assert features.vectors is not None
    artifacts.write_npy(paths["features"], features.vectors.astype(np.float32))
    artifacts.write_npy(paths["coords"], features.squares.coords.astype(np.int64))
