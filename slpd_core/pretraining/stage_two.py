"""Stage two: SLPD pretraining of the region encoder, Algorithm 1 of the paper; its page is `reference`."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slpd_core import config
from slpd_core.pretraining.coverage import clustering_groups, related_slides
from slpd_core.pretraining.crops import sample_crops
from slpd_core.pretraining.networks import autocast_dtype, build_student_teacher, torch_seed
from slpd_core.pretraining.objective import Batch, EpochTargets, assign_targets, distil
from slpd_core.pretraining.prototype_stats import prototype_stats, target_stats
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides
from slpd_core.pretraining.token_dataset import TokenDataset, embed_regions
from slpd_core.runtime import generator, name_some
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.distributed import to_device
from slpd_core.ssl.monitoring import effective_rank, fixed_sample, knn_accuracy
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.student_teacher import StudentTeacher
from slpd_core.ssl.trainer import fit, shuffled_batches


@dataclass
class StageTwo:
    """Stage two as the trainer runs it: before every epoch cluster each slide and match the slides, then distil.

    Attributes:
        prototypes: Of the epoch under way, or else of the last one.
        targets: Of the epoch under way.
    """

    unit: ClassVar[str] = "regions"
    config_key: ClassVar[str] = "pretrain"

    networks: StudentTeacher
    cohort: TokenDataset
    section: config.PretrainRunConfig
    recipe: Recipe
    seed: int
    prototypes: Prototypes | None = None
    targets: EpochTargets | None = None

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.cohort.tokens)

    @property
    def device(self) -> str:
        """The device of the networks."""
        return self.networks.device.type

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Cluster each slide and match the slides, if the epoch needs it; returns what is watched of both."""
        cohort, section, row = self.cohort, self.section, dict[str, float]()
        before, self.prototypes = self.prototypes, None
        if section.uses_prototypes and epoch >= section.prototype_start_epoch:
            clustered = embed_for_clustering(self.networks, cohort, section, self.device)
            self.prototypes = cluster(cohort, clustered, section, self.seed, epoch)
            group_of = clustering_groups(cohort, section)[0]
            row |= prototype_stats(cohort, group_of, before, self.prototypes)
            apart = related_slides(cohort, section)[cohort.slide_of]
            self.targets = assign_targets(self.prototypes, clustered, group_of, section, self.device, apart)
            row |= target_stats(self.targets.rows)
        sample = fixed_sample(len(cohort.tokens))
        sampled = embed_regions(self.networks.teacher.encoder, cohort.tokens[sample], self.device)
        row["effective_rank"] = effective_rank(sampled)
        slides = cohort.slide_of[sample]
        labels, patients = np.array(cohort.labels)[slides], np.array(cohort.patient_ids)[slides]
        row["knn_accuracy"] = knn_accuracy(sampled, labels, patients)
        return row

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch."""
        return shuffled_batches(len(self), self.recipe.batch_size, generator(self.seed, "batches", epoch))

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[Batch]:
        """Yield the crops and targets of each batch."""
        device = self.networks.device
        for i, regions in enumerate(batches[first:], start=first):
            share = distributed.local_shard(np.arange(len(regions)))
            rng = generator(self.seed, "crops", epoch, i)
            views = sample_crops(self.cohort.tokens, regions[share], share, len(regions), self.section, rng, device)
            rows = to_device(torch.from_numpy(regions[share]), device)
            yield Batch(views, self.targets.for_batch(rows) if self.targets else {})

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        """Give the student the gradients of the loss; returns MEASURED."""
        return distil(self.networks, batch, self.section, autocast_dtype(self.section.precision, self.device))

    def end_epoch(self) -> dict[str, float]:
        """Forget the targets."""
        self.targets = None
        return {}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch."""
        return torch_seed(self.seed, *keys)

    def describe(self, rows: np.ndarray) -> str:
        """Name the slides of a batch."""
        slides = sorted({self.cohort.slide_ids[slide] for slide in self.cohort.slide_of[rows]})
        return f", slides {name_some(slides)}"

    def state_dict(self) -> dict[str, Any]:
        """Collect prototypes and targets, as tensors."""
        arrays = vars(self.prototypes).items() if self.prototypes else ()
        return {
            "prototypes": {name: torch.from_numpy(array) for name, array in arrays},
            "targets": vars(self.targets) if self.targets else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore prototypes and targets."""
        arrays = {name: tensor.numpy() for name, tensor in state["prototypes"].items()}
        self.prototypes = Prototypes(**arrays) if arrays else None
        self.targets = None
        if state["targets"]:
            rows = {term: rows.to(self.device) for term, rows in state["targets"]["rows"].items()}
            self.targets = EpochTargets(state["targets"]["vectors"].to(self.device), rows)


def train(
    cohort: TokenDataset, section: config.PretrainRunConfig, seed: int, device: str, checkpoint: Checkpoint
) -> tuple[StudentTeacher, pd.DataFrame]:
    """Train by the algorithm of the paper, from the checkpoint on if there is one.

    Gives the trained networks and one history row an epoch. Raises ValueError when a batch cannot be shared evenly
    among the processes.
    """
    recipe = section.select(Recipe)
    distributed.require_even_shards(min(recipe.batch_size, len(cohort.tokens)), "pretrain.batch_size", "regions")
    networks = build_student_teacher(section, cohort.tokens.shape[-1], seed, device)
    stage = StageTwo(networks, cohort.to(device), section, recipe, seed)
    return networks, fit(stage, checkpoint)


def embed_for_clustering(
    networks: StudentTeacher, cohort: TokenDataset, section: config.PretrainRunConfig, device: str
) -> np.ndarray:
    """What is clustered of each region, by the teacher, of its whole grid or a center crop of it: float32 (R, D)."""
    teacher, grid = networks.teacher, cohort.tokens.shape[1]
    side = section.cluster_crop or grid
    first = (grid - side) // 2
    crop = slice(first, first + side)

    def embed(tokens: Tensor) -> Tensor:
        embeddings = teacher.encoder(tokens[:, crop, crop])
        return teacher.head.bottleneck(embeddings) if section.cluster_space == "bottleneck" else embeddings

    return embed_regions(embed, cohort.tokens, device)


def cluster(
    cohort: TokenDataset, clustered: np.ndarray, section: config.PretrainRunConfig, seed: int, epoch: int
) -> Prototypes:
    """The prototypes of an epoch; clustered: float32 (R, D)."""
    group_of, names, _, M = clustering_groups(cohort, section)
    return cluster_slides(
        clustered,
        group_of,
        names,
        M=M,
        K=section.n_neighbors,
        restarts=section.kmeans_restarts,
        iterations=section.kmeans_iterations,
        seed=seed,
        epoch=epoch,
        min_regions=section.min_regions,
        group=related_slides(cohort, section) if section.clustering == "slide" else None,
        matching=section.matching,
        center_slides=section.center_slides,
    )
