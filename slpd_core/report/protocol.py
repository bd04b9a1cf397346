"""What scores rest on beside the method, patch encoder and folds, and whether the paper's rest on the same."""

import json
from collections.abc import Collection

import pandas as pd

from slpd_core import artifacts

# Where the weights of a patch encoder come from -> what is said of them.
WEIGHTS = {
    "random": "random weights, untrained",
    "timm": "weights from a file",
    "hipt": "HIPT's weights",
    "dino": "trained on this cohort with DINO, stage one",
}
# Of the paper (Yu, Lin & Xu, MICCAI 2023): its patch encoder, and the splits of its cohorts.
PAPERS_ENCODER = (
    "vit_small_patch16_224, HIPT's weights, RGB normalized by mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
)
PAPERS_SPLITS = {
    "tcga_brca": "HIPT's ten splits of TCGA-BRCA",
    "tcga_nsclc": "HIPT's ten splits of TCGA-NSCLC",
}


def describe_encoder(meta: artifacts.Meta) -> str:
    """Describe the patch encoder behind predictions, by their metadata; "" for colors, which need none."""
    if meta["level"] == "color":
        return ""
    source = meta["encoder_source"]
    return f"{meta['encoder_name']}, {WEIGHTS.get(source, source)}, RGB normalized by {meta['encoder_normalization']}"


def describe_folds(folds: pd.DataFrame, meta: artifacts.Meta) -> str:
    """Describe how slides were divided, by the `folds` table and its metadata."""
    section, n_folds, n_slides = json.loads(meta["section"]), folds["fold"].nunique(), folds["slide_id"].nunique()
    if section["splits_dir"]:
        name, named = meta["published_splits"] or f"{n_folds} imported splits", int(meta["n_split_slides"])
        return name if n_slides == named else f"{name}, {n_slides:,} of their {named:,} slides"
    fewer = "" if section["train_fraction"] == 1 else f", {section['train_fraction']:.0%} of the training part used"
    repeats = f", {section['n_repeats']} partitions" if section["n_repeats"] > 1 else ""
    return f"{n_folds} folds drawn here, grouped by {section['group_by']}{repeats}{fewer}"


def compare_with_paper(cohort: str, encoders: Collection[str], splits: Collection[str]) -> str:
    """Say what scores beside the paper's rest on, and whether the paper's rest on the same.

    Args:
        cohort: One that the paper has numbers of.
        encoders: Descriptions of the rows' patch encoders, as `describe_encoder` returns them.
        splits: Descriptions of their folds, as `describe_folds` returns them.
    """
    ours = f"{cohort}: our numbers are of {' and '.join(encoders)}; {' and '.join(splits)}."
    papers = {*encoders} == {PAPERS_ENCODER}, {*splits} == {PAPERS_SPLITS[cohort]}
    if all(papers):
        return f"{ours} The paper's are of the same."
    others = [PAPERS_ENCODER] * (not papers[0]) + [PAPERS_SPLITS[cohort]] * (not papers[1])
    return f"{ours} The paper's are of {'; '.join(others)}: a difference may come from that alone."
