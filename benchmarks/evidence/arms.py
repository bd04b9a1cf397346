"""The ways to embed regions that are compared: references without training, the paper's objectives, and beyond."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evidence.cohorts import GRID, Composed
from benchmarks.evidence.stain_maps import StainMaps
from benchmarks.slides import settings
from slpd_core import config
from slpd_core.evaluation.whitening import fit_whitening
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.slide_offset import mean_tokens
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import embed_regions
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.trainer import fit

RECIPE: dict[str, Any] = {
    "n_prototypes": 4,
    "embed_dim": 64,
    "depth": 2,
    "n_heads": 4,
    "hidden_dim": 256,
    "bottleneck_dim": 64,
    "out_dim": 256,
    "epochs": 50,
    "prototype_start_epoch": 5,
    "warmup_epochs": 5,
    "batch_size": 64,
    "base_lr": 8e-3,
    "teacher_momentum": 0.996,
    "teacher_temperature": 0.07,
    "precision": "fp32",
}
CROPS = {8: {"global_crop_size": 7, "local_crop_size": 3}, 16: {"global_crop_size": 14, "local_crop_size": 6}}
DINO: dict[str, Any] = {"alpha_intra": 0.0, "alpha_inter": 0.0}
TRAINED: dict[str, dict[str, Any]] = {
    "dino": DINO,
    "intra": {"alpha_inter": 0.0},
    "inter": {"alpha_intra": 0.0},
    "slpd": {},
    "late": {"prototype_start_epoch": 25},
    "global": {"alpha_inter": 0.0, "clustering": "global"},
    "region": {"alpha_intra": 0.0, "inter_target": "region"},
    "dino + offset": DINO | {"slide_offset": 1.0},
    "slpd + offset": {"slide_offset": 1.0},
    "dino + maps": DINO,
    "slpd + maps": {},
}
MAPPED = " + maps"
REFERENCES = ("oracle", "mean color", "mean token", "whitened mean token", "untrained")


def section_of(arm: str) -> config.PretrainRunConfig:
    """Return the settings of a trained arm."""
    return settings().pretrain.run("slpd").model_copy(update=RECIPE | CROPS[2 * GRID] | TRAINED[arm])


def embed(composed: Composed, arm: str, seed: int, maps: StainMaps | None = None) -> np.ndarray:
    """Embed the regions by an arm, (regions, D); arms with stain maps need them."""
    cohort = composed.cohort
    if arm == "oracle":
        return composed.known
    if arm == "mean color":
        return composed.colors
    if arm == "mean token":
        return cohort.tokens.float().mean((1, 2)).numpy()
    if arm == "whitened mean token":
        return fit_whitening(mean_tokens(cohort))(cohort.tokens.float().mean((1, 2)).numpy())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arm == "untrained":
        networks = StageTwo.create(cohort, seed=seed, device=device, **select_arguments(section_of("dino"))).networks
    else:
        stage = StageTwo.create(cohort, seed=seed, device=device, **select_arguments(section_of(arm)))
        if arm.endswith(MAPPED):
            stage.augmentation = maps
        with tempfile.TemporaryDirectory() as folder:
            fit(stage, Checkpoint(Path(folder) / "checkpoint.pt", {}))
        networks = stage.networks
    return embed_regions(networks.teacher.encoder, cohort.tokens, device)
