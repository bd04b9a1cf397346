"""SLPD: from whole-slide images to slide-level results. See README.md for the map.

The names below are the front door: from a slide to its regions, tokens, embeddings and prototypes, and the artifacts of
a finished run. Each is imported when it is first used: `import slpd_core` alone loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slpd_core.api.encoders import (
        build_patch_encoder,
        build_region_encoder,
        compute_attention,
        embed,
        encode,
        load_patch_encoder,
        load_region_encoder,
    )
    from slpd_core.api.prototypes import cluster_embeddings
    from slpd_core.api.slides import segment_tissue
    from slpd_core.artifacts.by_path import read, read_metadata
    from slpd_core.config import default_config
    from slpd_core.demo.cohort import draw_demo_slide
    from slpd_core.drawing.overlays import draw_overlay
    from slpd_core.prototypes.matching import match_prototypes, nearest_slides
    from slpd_core.prototypes.ranking import search_slides
    from slpd_core.slides.regions import select_regions
    from slpd_core.wsi.reader import Slide
    from slpd_core.wsi.region_reader import iter_regions

__version__ = "0.1.0"
__all__ = [
    "Slide",
    "__version__",
    "build_patch_encoder",
    "build_region_encoder",
    "cluster_embeddings",
    "compute_attention",
    "default_config",
    "draw_demo_slide",
    "draw_overlay",
    "embed",
    "encode",
    "iter_regions",
    "load_patch_encoder",
    "load_region_encoder",
    "match_prototypes",
    "nearest_slides",
    "read",
    "read_metadata",
    "search_slides",
    "segment_tissue",
    "select_regions",
]
_MODULES = {  # where each name but the version is
    "Slide": "wsi.reader",
    "build_patch_encoder": "api.encoders",
    "build_region_encoder": "api.encoders",
    "cluster_embeddings": "api.prototypes",
    "compute_attention": "api.encoders",
    "default_config": "config",
    "draw_demo_slide": "demo.cohort",
    "draw_overlay": "drawing.overlays",
    "embed": "api.encoders",
    "encode": "api.encoders",
    "iter_regions": "wsi.region_reader",
    "load_patch_encoder": "api.encoders",
    "load_region_encoder": "api.encoders",
    "match_prototypes": "prototypes.matching",
    "nearest_slides": "prototypes.matching",
    "read": "artifacts.by_path",
    "read_metadata": "artifacts.by_path",
    "search_slides": "prototypes.ranking",
    "segment_tissue": "api.slides",
    "select_regions": "slides.regions",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
