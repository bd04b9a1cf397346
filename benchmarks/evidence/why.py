"""Why a run does what it does: epoch by epoch how right its targets are, and what its embeddings vary with."""

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.evidence.measures import variance_between
from slpd_core.config import PretrainRunConfig
from slpd_core.pretraining import stage_two
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams, Prototypes
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.monitoring import effective_rank


def targets_right(prototypes: Prototypes, slide_of: np.ndarray, phenotype: np.ndarray) -> dict[str, float]:
    """Measure how right the targets of regions are.

    intra: the chance that another region of a region's prototype is of its phenotype. inter: the chance that one of the
    matched prototype in the nearest slide is. apart: the chance that any other region of the slide is.
    """
    N, M = prototypes.centers.shape[:2]
    count = np.zeros((N, M, phenotype.max() + 1))
    np.add.at(count, (slide_of, prototypes.assignment, phenotype), 1)
    partner = count[prototypes.neighbors, prototypes.matches[:, 0]]
    share = partner / np.maximum(partner.sum(2, keepdims=True), 1)

    def alike(groups: np.ndarray) -> float:
        sizes = groups.sum(-1)
        return float((groups * (groups - 1)).sum() / (sizes * (sizes - 1)).sum())

    return {"intra": alike(count), "inter": float((count * share).sum() / count.sum()), "apart": alike(count.sum(1))}


def watch(
    dataset: TokenDataset, phenotype: np.ndarray, section: PretrainRunConfig, clustering: ClusteringParams, seed: int
) -> pd.DataFrame:
    """Train, and measure a run before each epoch; of one without prototypes the targets that it would have had."""
    rows: list[dict[str, Any]] = []
    begin = StageTwo.begin_epoch

    def noted(stage: StageTwo, epoch: int) -> dict[str, float]:
        space, crop = stage.objective.cluster_space, stage.clustering.cluster_crop
        embedded = stage_two.embed_for_clustering(stage.networks, dataset, cluster_space=space, cluster_crop=crop)
        prototypes = stage_two.cluster_dataset(dataset, embedded, clustering, seed=seed, epoch=epoch)
        measured = {
            "epoch": epoch,
            "effective rank": effective_rank(embedded),
            "eta2 phenotype": variance_between(embedded, phenotype),
            "eta2 slide": variance_between(embedded, dataset.slide_of),
        }
        rows.append(measured | targets_right(prototypes, dataset.slide_of, phenotype))
        return begin(stage, epoch)

    with tempfile.TemporaryDirectory() as folder, patch.object(StageTwo, "begin_epoch", noted):
        checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {})
        stage_two.train(dataset, checkpoint, seed=seed, **select_arguments(section))
    return pd.DataFrame(rows)
