"""Old names of keys and values: each ends in an error that names the new one."""

from collections.abc import Iterator
from typing import Any

from slpd_core.config.base import CLASSIFIERS

FEATURES = {"colour": "mean_color", "patch": "patch_tokens"}
RESULT_ROWS = {f"{old}/{name}": f"{new}/{name}" for old, new in FEATURES.items() for name in CLASSIFIERS}
# By the path of today's key: old key -> new key. Runs, compared encoders and tables stand below a name of their own.
KEYS: dict[str, dict[str, str]] = {
    "tissue": {"masks": "masks_dir"},
    "patches": {"per_slide": "patches_per_slide"},
    "patch_encoder": {"others": "compared", "arguments": "model_kwargs", "position_offset": "interpolate_offset"},
    "patch_encoder.dino": {
        "global_px": "global_crop_px",
        "global_area": "global_crops_scale",
        "local_px": "local_crop_px",
        "local_area": "local_crops_scale",
        "stain": "stain_jitter",
        "contrast": "contrast_jitter",
        "greyscale": "grayscale_prob",
        "centre_momentum": "center_momentum",
        "koleo": "koleo_weight",
    },
    "tokens": {"cache": "cache_dir", "shrink_jpeg": "jpeg_scaled_decoding"},
    "pretrain": {
        "slides": "train_on",
        "self_only_epochs": "prototype_start_epoch",
        "n_neighbours": "n_neighbors",
        "centre_slides": "center_slides",
        "inter": "inter_target",
        "shared_centre": "shared_center",
        "skip_first_crop": "skip_crop_k",
        "global_crop": "global_crop_size",
        "local_crop": "local_crop_size",
        "centre_momentum": "center_momentum",
        "koleo": "koleo_weight",
    },
    "gallery": {"slides": "n_slides"},
    "folds": {
        "repeats": "n_repeats",
        "grouped_by": "group_by",
        "train_share": "train_fraction",
        "splits": "splits_dir",
    },
    "evaluate": {"rows": "classifiers", "knn_neighbours": "knn_n_neighbors"},
    "evaluate.classifiers": FEATURES,
    "predict": {"rows": "classifiers"},
    "predict.classifiers": FEATURES,
}
VALUES: dict[str, dict[str, str]] = {
    "pretrain.train_on": {"train_only": "train_fold"},
    "pretrain.preset": {"released": "authors_code"},
    "report.reference": RESULT_ROWS,
    "report.tables": RESULT_ROWS,
}
# Where keys are names: the path whose keys stand below each name.
NAMED = {"pretrain.runs": "pretrain", "patch_encoder.compared": "patch_encoder", "report.tables": "report.tables"}


def find_renamed(values: Any, path: str = "", shown: str = "") -> Iterator[str]:
    """Find keys and values that were renamed.

    Args:
        values: Plain settings, or those below `path`.
        path: Of `values`, by today's keys, without names of runs, encoders and tables.
        shown: The path as the settings spell it.

    Yields:
        One line per old key or value.
    """
    if isinstance(values, dict):
        for old, below in values.items():
            key = KEYS.get(path, {}).get(old, old)
            name = f"{shown}.{old}" if shown else str(old)
            if key != old:
                yield f"{name}: this key is now {key}; rename it"
            yield from find_renamed(below, NAMED.get(path) or (f"{path}.{key}" if path else str(key)), name)
    elif isinstance(values, list):
        for value in values:
            yield from find_renamed(value, path, shown)
    elif isinstance(values, str) and (value := VALUES.get(path, {}).get(values)):
        yield f"{shown}: {values!r} is now {value!r}; write that"
