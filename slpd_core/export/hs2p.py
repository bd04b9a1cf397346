"""hs2p 6: coordinates of tiles, sorted by x and then y, and the settings that would have made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core import artifacts
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet

TOLERANCE = 0.05  # hs2p's, of um/px
# Sections of its metadata that say how hs2p found tissue and dropped tiles; it did neither.
SEGMENTATION = {
    **dict.fromkeys(("sthresh", "sthresh_up", "mthresh", "close", "sam2_checkpoint_path", "sam2_config_path")),
    **dict.fromkeys(("mask_path", "tissue_mask_tissue_value", "mask_level", "mask_spacing_um")),
    **{"tissue_method": "slpd", "requested_seg_downsample": 1, "seg_downsample": 1, "seg_level": 0},
}
FILTERING = {
    **{"a_t": 0.0, "a_h": 0.0, "filter_white": False, "filter_black": False},
    **{"white_threshold": 220, "black_threshold": 25, "fraction_threshold": 0.9},
    **{"filter_grayspace": False, "grayspace_saturation_threshold": 0.05, "grayspace_fraction_threshold": 0.6},
    **{"filter_blur": False, "blur_threshold": 50.0, "qc_spacing_um": 2.0},
}


def describe_tiling(slide: ExportedSlide, squares: artifacts.Regions) -> dict[str, Any]:
    """Describe squares as hs2p describes a tiling; tiles are read from level 0.

    Args:
        slide: The slide.
        squares: Its squares.

    Returns:
        The content of its metadata file.
    """
    facts, side = slide.slide, squares.size_level0_px
    unset = ("mask_path", "spacing_at_level_0", "mask_backend", "requested_mask_backend")
    return {
        "provenance": {
            **dict.fromkeys(unset),
            **{"sample_id": facts.slide_id, "image_path": str(slide.path)},
            **{"backend": "openslide", "requested_backend": "auto"},
        },
        "slide": {
            "dimensions": [facts.width_px, facts.height_px],
            "base_spacing_um": facts.mpp,
            "level_downsamples": [1.0],
        },
        "tiling": {
            **{"requested_tile_size_px": squares.size_px, "requested_spacing_um": squares.target_mpp},
            **{"read_level": 0, "read_tile_size_px": side, "read_spacing_um": facts.mpp},
            **{"tile_size_lv0": side, "step_px_lv0": side, "overlap": 0.0, "tolerance": TOLERANCE},
            "is_within_tolerance": abs(facts.mpp / squares.target_mpp - 1) <= TOLERANCE,
            **{"min_tissue_fraction": 0.0, "n_tiles": len(squares.coords)},
        },
        "segmentation": SEGMENTATION | {"seg_spacing_um": facts.mpp, "ref_tile_size_px": squares.size_px},
        "filtering": FILTERING,
        "artifact": {
            **dict.fromkeys(("annotation", "selection_strategy", "output_mode")),
            **{"coordinate_space": "level0_px", "tile_order": "x_then_y"},
        },
    }


def write_hs2p(paths: Mapping[str, Path], slide: ExportedSlide, features: FeatureSet) -> None:
    """Write the squares of a slide; of a slide without any the metadata alone.

    Args:
        paths: Of the files `npz` and `meta`.
        slide: The slide.
        features: Its squares.
    """
    squares = features.squares
    order = np.lexsort(squares.coords.T[::-1])  # by x, then y
    if len(order):
        arrays = {
            "tile_index": np.arange(len(order), dtype=np.int32),
            "x": squares.coords[order, 0].astype(np.int64),
            "y": squares.coords[order, 1].astype(np.int64),
            "tissue_fractions": squares.tissue_fraction[order].astype(np.float32),
        }
        artifacts.write_npz(paths["npz"], arrays)
    artifacts.write_plain_json(paths["meta"], describe_tiling(slide, squares))
