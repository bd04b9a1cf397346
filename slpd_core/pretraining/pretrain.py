"""Stage two: SLPD pretraining of the region encoder (paper, sec. 2)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydantic import BaseModel, ConfigDict

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining.coverage import clustering_groups, describe_gaps
from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.pretraining.stage_two import cluster, embed_for_clustering, train
from slpd_core.pretraining.token_dataset import TokenDataset, read_token_dataset, training_slides
from slpd_core.runtime import log
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.distributed import launch_distributed
from slpd_core.ssl.slurm import NodeInfo, srun_per_node

VERSION = 8
MEMORY_SHARE = 0.7  # of a job's, that the tokens may take; the rest is for PyTorch


def empty_prototypes(cohort: TokenDataset, section: config.PretrainRunConfig) -> Prototypes:
    """Prototypes of a cohort none of whose slides has any."""
    _, names, _, M = clustering_groups(cohort, section)
    N, K = len(names), section.n_neighbors
    centers = np.zeros((N, M, section.embed_dim), np.float32)
    return Prototypes(centers, np.full(len(cohort.tokens), -1), np.full((N, K), -1), np.full((N, K, M), -1))


def prototype_arrays(
    cohort: TokenDataset, section: config.PretrainRunConfig, found: Prototypes | None
) -> dict[str, np.ndarray]:
    """What prototypes.h5 holds of N slides and R regions; found is None in a run without prototypes.

    A row a slide: slides (N,), their ids; prototypes float32 (N, M, D), zero where a slide has none; neighbors int64
    (N, K), rows of slides; matches int64 (N, K, M), the partner of each prototype in that neighbor. Where clustering
    is global, there is one such row, its id empty. A row a region: region_slide (R,), its slide's id; coords int64
    (R, 2), level-0 px; assignment int32 (R,), its prototype. -1 stands for none.
    """
    if found is None:
        found = empty_prototypes(cohort, section)
    slides = np.array(cohort.slide_ids)
    return {
        "slides": np.array(clustering_groups(cohort, section)[1]),
        "prototypes": found.centers,
        "neighbors": found.neighbors,
        "matches": found.matches,
        "region_slide": slides[cohort.slide_of],
        "coords": cohort.coords,
        "assignment": found.assignment.astype(np.int32),
    }


class RunSpec(BaseModel):
    """What a run is trained on, how, and on what; JSON takes it to other nodes.

    fold: of `folds_path`, whose training slides alone are seen; all slides without one. gpus: of each node, a process
    each. memory_mb: that the job may use on a node; tokens which fill it, or which several processes share, are mapped
    from a file in the system's temporary folder.
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

    @property
    def processes(self) -> int:
        """How many a node trains by."""
        return max(1, self.gpus) if self.device == "cuda" else 1

    @property
    def init_fingerprint(self) -> str:
        """The fingerprint of the weights that it begins with, if any."""
        return artifacts.file_fingerprint(Path(self.section.init_from)) if self.section.init_from else ""


@contextmanager
def open_run(training: RunSpec) -> Iterator[tuple[TokenDataset, Checkpoint]]:
    """The cohort in memory, or mapped while within, and the run's checkpoint."""
    own = training
    only = training_slides(own.folds_path, own.fold) if own.folds_path and own.fold is not None else None
    in_memory = 0 if own.processes > 1 else MEMORY_SHARE * own.memory_mb * 1e6
    with TemporaryDirectory() as scratch:
        cohort = read_token_dataset(own.ledger_path, own.tokens_dir, only, in_memory, Path(scratch))
        R, grid = cohort.tokens.shape[:2]
        log.info("%s regions of %d slides, grid %d", f"{R:,}", len(cohort.slide_ids), grid)
        for gap in describe_gaps(cohort, own.section):
            log.warning("%s", gap)
        made_by = own.section.model_dump() | {"seed": own.seed, "tokens": cohort.fingerprint, "version": VERSION}
        yield cohort, Checkpoint(own.checkpoint_path, made_by | {"begun_with": own.init_fingerprint})


def train_on_node(training: RunSpec, node: NodeInfo) -> None:
    """A node's part in training, which ends in the checkpoint."""
    with open_run(training) as (cohort, checkpoint):
        launch_distributed(
            train,
            training.processes,
            training.device,
            cohort,
            training.section,
            training.seed,
            training.device,
            checkpoint,
            node=node,
        )


def run(
    training: RunSpec,
    *,
    encoder_path: Path,
    history_path: Path,
    prototypes_path: Path,
    nodes: int = 1,
    threads: int = 1,
    log_path: str = "",
) -> None:
    """Pretrain one run, on several GPUs by a process each: writes the teacher's encoder, the history and the final
    prototypes.

    nodes: of the Slurm job; threads, log_path: of the job on each.
    """
    if nodes > 1:
        arguments = {"spec": training.model_dump(mode="json"), "threads": threads, "log_path": log_path}
        srun_per_node(nodes, "slpd_core.pretraining", arguments, threads)
    section, seed, device = training.section, training.seed, training.device
    with open_run(training) as (cohort, checkpoint):
        if nodes == 1 and training.processes > 1:
            launch_distributed(train, training.processes, device, cohort, section, seed, device, checkpoint)
        networks, history = train(cohort, section, seed, device, checkpoint)  # takes up what several have come to
        origin = (cohort.fingerprint, str(seed), training.init_fingerprint)
        gaps = describe_gaps(cohort, section)
        meta = artifacts.provenance("pretrain", VERSION, section.model_dump(), *origin)
        meta |= {"remarks": "\n".join(gaps), "ledger": cohort.ledger}
        found = None
        if section.uses_prototypes:
            clustered = embed_for_clustering(networks, cohort, section, device)
            found = cluster(cohort, clustered, section, seed, section.epochs)
        artifacts.write_arrays(prototypes_path, prototype_arrays(cohort, section, found), {}, meta)
        artifacts.write_both(history_path, "history", history, meta)
        region_encoder.write_region_encoder(encoder_path, networks.teacher.encoder, meta)
        training.checkpoint_path.unlink(missing_ok=True)
        for gap in gaps:
            log.warning("%s", gap)
