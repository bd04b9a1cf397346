"""The protocol of scores: patch encoder and folds, and whether the paper's scores have the same."""

import json
from collections.abc import Collection

import pandas as pd

from slpd_core import artifacts

# Source of the weights of a patch encoder -> their description.
WEIGHTS = {
    "random": "random weights, untrained",
    "timm": "weights from a file",
    "hipt": "HIPT's weights",
    "dino": "trained on this cohort with DINO, stage one",
}
# The patch encoder of the paper (Yu, Lin & Xu, MICCAI 2023), and the splits of its cohorts.
PAPER_ENCODER = "vit_small_patch16_224, HIPT's weights, RGB normalized by mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
PAPER_SPLITS = {
    "tcga_brca": "HIPT's ten splits of TCGA-BRCA",
    "tcga_nsclc": "HIPT's ten splits of TCGA-NSCLC",
}


def describe_encoder(meta: artifacts.Meta) -> str:
    """Describe the patch encoder of predictions.

    Args:
        meta: Of the `evaluate` table.

    Returns:
        Architecture, weights and normalization; "" for mean colors, which need no encoder.
    """
    if meta["level"] == "color":
        return ""
    source = meta["encoder_source"]
    return f"{meta['encoder_name']}, {WEIGHTS.get(source, source)}, RGB normalized by {meta['encoder_normalization']}"


def describe_folds(folds: pd.DataFrame, meta: artifacts.Meta) -> str:
    """Describe how slides were divided.

    Args:
        folds: The `folds` table.
        meta: Its metadata.

    Returns:
        A phrase, such as "10 folds drawn here, grouped by patient".
    """
    section, n_folds, n_slides = json.loads(meta["section"]), folds["fold"].nunique(), folds["slide_id"].nunique()
    if section["splits_dir"]:
        name, n_listed = meta["published_splits"] or f"{n_folds} imported splits", int(meta["n_split_slides"])
        return name if n_slides == n_listed else f"{name}, {n_slides:,} of their {n_listed:,} slides"
    fewer = "" if section["train_fraction"] == 1 else f", {section['train_fraction']:.0%} of the training part used"
    repeats = f", {section['n_repeats']} partitions" if section["n_repeats"] > 1 else ""
    return f"{n_folds} folds drawn here, grouped by {section['group_by']}{repeats}{fewer}"


def compare_with_paper(cohort: str, encoders: Collection[str], splits: Collection[str]) -> str:
    """Compare the protocol of scores with that of the paper's.

    Args:
        cohort: A cohort of the paper.
        encoders: Descriptions of the rows' patch encoders, as `describe_encoder` returns them.
        splits: Descriptions of their folds, as `describe_folds` returns them.

    Returns:
        A note.
    """
    ours = f"{cohort}: our numbers are of {' and '.join(encoders)}; {' and '.join(splits)}."
    same_encoder, same_splits = {*encoders} == {PAPER_ENCODER}, {*splits} == {PAPER_SPLITS[cohort]}
    if same_encoder and same_splits:
        return f"{ours} The paper's are of the same."
    others = [PAPER_ENCODER] * (not same_encoder) + [PAPER_SPLITS[cohort]] * (not same_splits)
    return f"{ours} The paper's are of {'; '.join(others)}: a difference may come from that alone."
