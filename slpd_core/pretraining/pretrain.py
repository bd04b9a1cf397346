"""The pretrain stage: one run of SLPD, from the tokens of the slides to a region encoder."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining.coverage import describe_gaps, slides_to_cluster
from slpd_core.pretraining.crops import CropParams
from slpd_core.pretraining.networks import NetworkParams
from slpd_core.pretraining.objective import SlpdObjective
from slpd_core.pretraining.prototypes import ClusteringParams, Prototypes
from slpd_core.pretraining.stage_two import cluster_dataset, embed_for_clustering, train
from slpd_core.pretraining.token_dataset import TokenDataset, read_token_dataset, training_slides
from slpd_core.runtime import log
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.distributed import SINGLE_NODE, launch_distributed
from slpd_core.ssl.monitoring import fixed_sample
from slpd_core.ssl.schedules import Recipe
from slpd_core.ssl.slurm import NodeInfo, srun_per_node

VERSION = 10
MEMORY_SHARE = 0.7  # of a job's, that the tokens may take; the rest is for PyTorch


def select_arguments(section: config.PretrainRunConfig) -> dict[str, Any]:
    """Sort the settings of a run into the keyword arguments of `stage_two.train`.

    Args:
        section: Of the run.

    Returns:
        Its `network`, `crops`, `clustering`, `objective` and `recipe`.
    """
    return {
        "network": section.extract(NetworkParams),
        "crops": section.extract(CropParams),
        "clustering": section.extract(ClusteringParams),
        "objective": section.extract(SlpdObjective),
        "recipe": section.extract(Recipe),
    }


def empty_prototypes(dataset: TokenDataset, params: ClusteringParams, dim: int) -> Prototypes:
    """Build the prototypes of a dataset none of whose slides has any.

    Args:
        dataset: N slides of R regions.
        params: Of clustering and matching.
        dim: D, of the prototypes.

    Returns:
        Zeros, and -1 for every index.
    """
    _, names, M = slides_to_cluster(dataset, params)
    N, K = len(names), params.n_neighbors
    centers = np.zeros((N, M, dim), np.float32)
    return Prototypes(centers, np.full(len(dataset.tokens), -1), np.full((N, K), -1), np.full((N, K, M), -1))


def prototype_arrays(dataset: TokenDataset, names: list[str], prototypes: Prototypes) -> dict[str, np.ndarray]:
    """Lay out prototypes.h5.

    Args:
        dataset: R regions.
        names: Of the N groups that were clustered: slide ids, or where clustering is global one empty name.
        prototypes: Of these.

    Returns:
        Per group: `slides` (N,), names; `prototypes` float32 (N, M, D), zero where there are none; `neighbors` int64
        (N, K), rows of slides; `matches` int64 (N, K, M), the partner of each prototype in that neighbor. Per region:
        `region_slide` (R,), its slide's id; `coords` int64 (R, 2), level-0 px; `assignment` int32 (R,), its prototype.
        -1 stands for none.
    """
    return {
        "slides": np.array(names),
        "prototypes": prototypes.centers,
        "neighbors": prototypes.neighbors,
        "matches": prototypes.matches,
        "region_slide": np.array(dataset.slide_ids)[dataset.slide_of],
        "coords": dataset.coords,
        "assignment": prototypes.assignment.astype(np.int32),
    }


class RunSpec(BaseModel):
    """What a run is trained on, how and where; JSON takes it to other nodes.

    Attributes:
        ledger_path: Of the slides.
        tokens_dir: Of their tokens.
        folds_path: Of the folds, if the run sees one fold's training slides alone.
        fold: Which one.
        checkpoint_path: Of the run.
        section: Its settings.
        seed: Alone decides all that is random.
        device: cpu or cuda.
        gpus: Of each node, one process per GPU.
        memory_mb: That the job may use on a node; tokens that fill it, or that several processes share, are mapped from
            a file in the system's temporary folder.
        tracker: wandb or mlflow, which gets the history too.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    ledger_path: Path
    tokens_dir: Path
    folds_path: Path | None = None
    fold: int | None = None
    checkpoint_path: Path
    section: config.PretrainRunConfig
    seed: int
    device: str
    gpus: int = 0
    memory_mb: float = math.inf
    tracker: str | None = None

    @property
    def processes(self) -> int:
        """Processes per node."""
        return max(1, self.gpus) if self.device == "cuda" else 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `stage_two.train`."""
        options = {"seed": self.seed, "device": self.device, "tracker": self.tracker}
        return options | select_arguments(self.section)

    @property
    def init_fingerprint(self) -> str:
        """Fingerprint of the weights that the run begins with, or ""."""
        return artifacts.file_fingerprint(Path(self.section.init_from)) if self.section.init_from else ""


def find_remarks(dataset: TokenDataset, section: config.PretrainRunConfig) -> list[str]:
    """Find what a reader of a run's results should know.

    Args:
        dataset: Slides and their regions.
        section: Settings of the run.

    Returns:
        Sentences: what the losses do not reach, or that nothing was trained.
    """
    if not section.epochs:
        return [f"Nothing was trained: the encoder is that of {Path(section.init_from or '').name} as it is."]
    return describe_gaps(dataset, section.extract(ClusteringParams), section.extract(SlpdObjective))


@contextmanager
def open_run(spec: RunSpec) -> Iterator[tuple[TokenDataset, Checkpoint]]:
    """Read the tokens of a run and open its checkpoint.

    Args:
        spec: Of the run.

    Yields:
        The dataset, in memory or mapped within the block, and the checkpoint.
    """
    section = spec.section
    only = training_slides(spec.folds_path, spec.fold) if spec.folds_path and spec.fold is not None else None
    in_memory = 0 if spec.processes > 1 else MEMORY_SHARE * spec.memory_mb * 1e6
    with TemporaryDirectory() as scratch:
        dataset = read_token_dataset(spec.ledger_path, spec.tokens_dir, only, in_memory, Path(scratch))
        R, grid = dataset.tokens.shape[:2]
        log.info("%s regions of %d slides, grid %d", f"{R:,}", len(dataset.slide_ids), grid)
        for remark in find_remarks(dataset, section):
            log.warning("%s", remark)
        run_config = section.model_dump() | {"seed": spec.seed, "tokens": dataset.fingerprint, "version": VERSION}
        yield dataset, Checkpoint(spec.checkpoint_path, run_config | {"begun_with": spec.init_fingerprint})


def train_on_node(spec: RunSpec, node: NodeInfo = SINGLE_NODE) -> None:
    """Train on a node's GPUs, one process each; the result is in the checkpoint.

    Args:
        spec: Of the run.
        node: This one of those that train together.
    """
    with open_run(spec) as (dataset, checkpoint):
        work = partial(train, **spec.arguments)
        launch_distributed(work, spec.processes, spec.device, dataset, checkpoint, node=node)


def run(
    spec: RunSpec,
    *,
    encoder_path: Path,
    history_path: Path,
    prototypes_path: Path,
    monitored_path: Path,
    nodes: int = 1,
    threads: int = 1,
    log_path: str = "",
) -> None:
    """Pretrain one run and write the teacher's encoder, the history and the final prototypes.

    Args:
        spec: Of the run.
        encoder_path: Of the encoder.
        history_path: Of the history, one row per epoch.
        prototypes_path: Of the prototypes.
        monitored_path: Of the monitored embeddings, before each epoch.
        nodes: Of the Slurm job.
        threads: Of the job on each node.
        log_path: Of the job.
    """
    if nodes > 1:
        arguments = {"spec": spec.model_dump(mode="json"), "threads": threads, "log_path": log_path}
        srun_per_node(nodes, "slpd_core.pretraining", arguments, threads)
    clustering, objective = spec.arguments["clustering"], spec.arguments["objective"]
    with open_run(spec) as (dataset, checkpoint):
        if nodes == 1 and spec.processes > 1:
            launch_distributed(partial(train, **spec.arguments), spec.processes, spec.device, dataset, checkpoint)
        # After several processes: loads what they have trained.
        networks, history, monitored = train(dataset, checkpoint, **spec.arguments)
        remarks = find_remarks(dataset, spec.section)
        origin = (dataset.fingerprint, str(spec.seed), spec.init_fingerprint)
        meta = artifacts.provenance("pretrain", VERSION, spec.section.model_dump(), *origin)
        meta |= {"remarks": "\n".join(remarks), "ledger": dataset.ledger}
        if spec.section.uses_prototypes:
            space, crop = objective.cluster_space, clustering.cluster_crop
            clustered = embed_for_clustering(networks, dataset, cluster_space=space, cluster_crop=crop)
            prototypes = cluster_dataset(dataset, clustered, clustering, seed=spec.seed, epoch=spec.section.epochs)
        else:
            prototypes = empty_prototypes(dataset, clustering, spec.section.embed_dim)
        names = slides_to_cluster(dataset, clustering)[1]
        artifacts.write_arrays(prototypes_path, prototype_arrays(dataset, names, prototypes), {}, meta)
        artifacts.write_both(history_path, "history", history, meta)
        slides = np.array(dataset.slide_ids)[dataset.slide_of[fixed_sample(len(dataset.tokens))]]
        artifacts.write_arrays(monitored_path, {"embeddings": monitored, "region_slide": slides}, {}, meta)
        region_encoder.write_region_encoder(encoder_path, networks.teacher.encoder, meta)
        spec.checkpoint_path.unlink(missing_ok=True)
        for remark in remarks:
            log.warning("%s", remark)
