"""Stage two: SLPD pretraining of the region encoder (paper, Algorithm 1); plainly in `reference.SLPD.train`."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slpd_core.pretraining.coverage import neighbor_groups, slides_to_cluster
from slpd_core.pretraining.crops import CropParams, sample_crops
from slpd_core.pretraining.networks import NetworkParams, build_student_teacher, torch_seed
from slpd_core.pretraining.objective import Batch, SlpdObjective
from slpd_core.pretraining.prototype_stats import prototype_stats, target_stats
from slpd_core.pretraining.prototypes import ClusteringParams, Prototypes, cluster_slides
from slpd_core.pretraining.slide_offset import CropAugmentation, SlideOffset
from slpd_core.pretraining.targets import EpochTargets, assign_targets
from slpd_core.pretraining.token_dataset import TokenDataset, embed_regions
from slpd_core.runtime import generator, name_some
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.cuda_graph import GraphedStep
from slpd_core.ssl.distributed import to_device
from slpd_core.ssl.monitoring import effective_rank, fixed_sample
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.stage import PretrainingStage, shuffled_batches
from slpd_core.ssl.student_teacher import StudentTeacher, autocast
from slpd_core.ssl.trainer import fit


def train(
    dataset: TokenDataset, checkpoint: Checkpoint, *, tracker: str | None = None, **arguments: Any
) -> tuple[StudentTeacher, pd.DataFrame, np.ndarray]:
    """Train by Algorithm 1 of the paper, from the checkpoint on if there is one.

    Per epoch, `StageTwo.begin_epoch` clusters each slide (k-means) and matches the slides (eq. 3). Per step: `fit` →
    `train_epoch` → `SlpdObjective.backward` (eq. 1, 2, 4) → `chunked_cross_entropy` (H).

    Args:
        dataset: Tokens of the slides to train on.
        checkpoint: Of the run.
        tracker: wandb or mlflow, which gets the history too.
        arguments: Of `StageTwo.create`.

    Returns:
        Student and teacher, one history row per epoch, and the embeddings of the monitored regions
        (`fixed_sample`) before each epoch, float16 (epochs, n, D); without epochs those of the start, (1, n, D).

    Raises:
        ValueError: A batch does not divide evenly among the processes.
        RuntimeError: A loss is not finite.
    """
    stage = StageTwo.create(dataset, **arguments)
    history = fit(stage, checkpoint, tracker)
    monitored = torch.stack(stage.monitored).numpy() if stage.monitored else stage.embed_monitored()[None]
    return stage.networks, history, monitored.astype(np.float16, copy=False)


@dataclass
class StageTwo(PretrainingStage):
    """Stage two as the trainer runs it: before every epoch cluster each slide and match the slides, then distil.

    Attributes:
        augmentation: Of the crops' tokens, if there is one.
        prototypes: Of the epoch under way, or else of the last one.
        targets: Of the epoch under way.
        monitored: Embeddings of the monitored regions before each epoch, float16 (n, D).
    """

    unit: ClassVar[str] = "regions"
    config_key: ClassVar[str] = "pretrain"

    networks: StudentTeacher
    dataset: TokenDataset
    crops: CropParams
    clustering: ClusteringParams
    objective: SlpdObjective
    recipe: Recipe
    seed: int
    augmentation: CropAugmentation | None = None
    prototypes: Prototypes | None = None
    targets: EpochTargets | None = None
    monitored: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Have the kernels of a step started together, on a GPU."""
        networks = self.networks
        self.graphed: GraphedStep[Batch] = GraphedStep(
            super().backward, [*networks.student.parameters()], networks.device
        )

    @classmethod
    def create(
        cls,
        dataset: TokenDataset,
        *,
        seed: int,
        device: str = "cpu",
        network: NetworkParams | None = None,
        crops: CropParams | None = None,
        clustering: ClusteringParams | None = None,
        objective: SlpdObjective | None = None,
        recipe: Recipe | None = None,
    ) -> "StageTwo":
        """Build student and teacher, and move the tokens to the device if it has room for them.

        Args:
            dataset: Tokens of the slides to train on.
            seed: Alone decides all that is random.
            device: cpu or cuda.
            network: Encoder and head; like what follows, the paper's by default.
            crops: Of regions.
            clustering: Of slides, and their matching.
            objective: Losses.
            recipe: Epochs, batch size and schedules.

        Returns:
            The stage, before its first epoch.
        """
        crops, objective = crops or CropParams(), objective or SlpdObjective()
        networks = build_student_teacher(
            dataset.tokens.shape[-1],
            network or NetworkParams(),
            seed=seed,
            grid=crops.global_crop_size,
            centers=objective.center_of.values(),
            device=device,
        )
        clustering, recipe = clustering or ClusteringParams(), recipe or Recipe()
        offset = SlideOffset.estimate(dataset, crops.slide_offset, networks.device) if crops.slide_offset else None
        return cls(networks, dataset.to(device), crops, clustering, objective, recipe, seed, offset)

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.dataset.tokens)

    def begin_epoch(self, epoch: int) -> dict[str, float]:
        """Cluster each slide, match the slides and assign targets, if the epoch needs it; measure all of them."""
        dataset, clustering, device = self.dataset, self.clustering, self.networks.device.type
        has_prototypes = self.objective.alpha_intra > 0 or self.objective.alpha_inter > 0
        row: dict[str, float] = {}
        before, self.prototypes, self.targets = self.prototypes, None, None
        if has_prototypes and epoch >= clustering.prototype_start_epoch:
            clustered = embed_for_clustering(
                self.networks,
                dataset,
                cluster_space=self.objective.cluster_space,
                cluster_crop=clustering.cluster_crop,
            )
            self.prototypes = cluster_dataset(dataset, clustered, clustering, seed=self.seed, epoch=epoch)
            slide_of = slides_to_cluster(dataset, clustering)[0]
            row |= prototype_stats(dataset, slide_of, before, self.prototypes)
            groups = neighbor_groups(dataset, exclude_same_patient=clustering.exclude_same_patient)[dataset.slide_of]
            self.targets = assign_targets(
                self.prototypes,
                clustered,
                slide_of,
                groups,
                intra=self.objective.alpha_intra > 0,
                inter_target=self.objective.inter_target if self.objective.alpha_inter else None,
                device=device,
            )
            row |= target_stats(self.targets.rows)
        embeddings = self.embed_monitored()
        row["effective_rank"] = effective_rank(embeddings)
        self.monitored.append(torch.from_numpy(embeddings).half())
        return row

    def embed_monitored(self) -> np.ndarray:
        """Embed the monitored regions by the teacher, float32 (n, D)."""
        tokens = self.dataset.tokens[fixed_sample(len(self))]
        return embed_regions(self.networks.teacher.encoder, tokens, self.networks.device.type)

    def shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draw the batches of an epoch."""
        return shuffled_batches(len(self), self.recipe.batch_size, generator(self.seed, "batches", epoch))

    def load(self, epoch: int, batches: list[np.ndarray], first: int) -> Generator[Batch]:
        """Sample crops and look up targets of this process's share of each batch."""
        device = self.networks.device
        for i, regions in enumerate(batches[first:], start=first):
            rows = distributed.local_shard(np.arange(len(regions)))
            shard, rng = regions[rows], generator(self.seed, "crops", epoch, i)
            views = sample_crops(self.dataset.tokens, shard, rows, len(regions), self.crops, rng, device)
            if self.augmentation:
                views = self.augmentation.augment(views, rows, len(regions), rng)
            index = to_device(torch.from_numpy(shard), device)
            yield Batch(views, self.targets.for_batch(index) if self.targets else {})

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        """Distil a batch by `SlpdObjective.backward`, on a GPU replayed from a CUDA graph."""
        return self.graphed(batch)

    def end_epoch(self) -> dict[str, float]:
        """Drop the targets."""
        self.targets = None
        return {}

    def torch_seed(self, *keys: str | int) -> int:
        """Derive a seed for torch."""
        return torch_seed(self.seed, *keys)

    def describe(self, rows: np.ndarray) -> str:
        """Name the slides of a batch."""
        slides = sorted({self.dataset.slide_ids[slide] for slide in self.dataset.slide_of[rows]})
        return f", slides {name_some(slides)}"

    def state_dict(self) -> dict[str, Any]:
        """Collect prototypes, targets and monitored embeddings."""
        arrays = vars(self.prototypes).items() if self.prototypes else ()
        return {
            "prototypes": {name: torch.from_numpy(array) for name, array in arrays},
            "targets": vars(self.targets) if self.targets else None,
            "monitored": self.monitored,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore prototypes, targets and monitored embeddings."""
        arrays, targets, device = state["prototypes"], state["targets"], self.networks.device
        self.monitored = [*state["monitored"]]
        self.prototypes = Prototypes(**{name: tensor.numpy() for name, tensor in arrays.items()}) if arrays else None
        self.targets = None
        if targets:
            rows = {term: index.to(device) for term, index in targets["rows"].items()}
            self.targets = EpochTargets(targets["vectors"].to(device), rows)


def embed_for_clustering(
    networks: StudentTeacher,
    dataset: TokenDataset,
    *,
    cluster_space: Literal["embedding", "bottleneck"] = "embedding",
    cluster_crop: int | None = None,
    dtype: torch.dtype | None = None,
) -> np.ndarray:
    """Embed all regions by the teacher, to be clustered.

    Args:
        networks: The teacher.
        dataset: R regions.
        cluster_space: Embeddings, or the head's bottleneck.
        cluster_crop: Side in tokens of the center crop; None for the whole grid.
        dtype: Compute dtype; None for that of the networks on a GPU, and float32 on a CPU.

    Returns:
        float32 (R, D).
    """
    teacher, grid = networks.teacher, dataset.tokens.shape[1]
    side = cluster_crop or grid
    first = (grid - side) // 2
    crop, device = slice(first, first + side), networks.device
    dtype = dtype or (torch.float32 if device.type == "cpu" else networks.dtype)

    def embed(tokens: Tensor) -> Tensor:
        with autocast(dtype, device):
            embeddings: Tensor = teacher.encoder(tokens[:, crop, crop])
            return teacher.head.bottleneck(embeddings) if cluster_space == "bottleneck" else embeddings

    return embed_regions(embed, dataset.tokens, device.type)


def cluster_dataset(
    dataset: TokenDataset, clustered: np.ndarray, params: ClusteringParams, *, seed: int, epoch: int
) -> Prototypes:
    """Cluster and match the slides of a dataset.

    Args:
        dataset: N slides of R regions.
        clustered: float32 (R, D), of `embed_for_clustering`.
        params: Of clustering and matching.
        seed: Of the run.
        epoch: From 0.

    Returns:
        The prototypes of the epoch.
    """
    slide_of, slide_ids, M = slides_to_cluster(dataset, params)
    groups = neighbor_groups(dataset, exclude_same_patient=params.exclude_same_patient)
    return cluster_slides(
        clustered,
        slide_of,
        slide_ids,
        M=M,
        K=params.n_neighbors,
        restarts=params.kmeans_restarts,
        iterations=params.kmeans_iterations,
        seed=seed,
        epoch=epoch,
        min_regions=params.min_regions,
        groups=groups if params.clustering == "slide" else None,
        matching=params.matching,
        center_slides=params.center_slides,
    )
