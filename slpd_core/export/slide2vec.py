"""slide2vec, HIPT and soma: one tensor per slide, without coordinates."""

from collections.abc import Mapping
from pathlib import Path

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet


def write_slide2vec(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write tokens as (L, P, T), or embeddings as (L, D), as they are in the artifacts.

    Args:
        paths: Of the file `pt`.
        slide: The slide.
        features: Its squares and their vectors.
    """
    vectors = features.vectors
    assert vectors is not None
    if features.kind == "patches":
        vectors = vectors.reshape(-1, features.per_region, vectors.shape[-1])
    artifacts.write_tensor(paths["pt"], vectors)
