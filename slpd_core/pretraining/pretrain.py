"""Stage two: SLPD pretraining of the region encoder (paper, sec. 2)."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining.coverage import clustering_groups, describe_gaps, related_slides
from slpd_core.pretraining.crops import draw_views
from slpd_core.pretraining.epoch_state import Epoch, prototypes_of_state, prototypes_state
from slpd_core.pretraining.networks import multiplied_in, start_networks, torch_seed
from slpd_core.pretraining.objective import MEASURED, Batch, distil, find_targets
from slpd_core.pretraining.prototype_stats import watch_prototypes, watch_targets
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides
from slpd_core.pretraining.token_dataset import Cohort, embed_regions, read_cohort, training_slides
from slpd_core.runtime import TERMINATED, deferred_sigterm, generator, log, name_some
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.distributed import train_as_one
from slpd_core.ssl.monitoring import effective_rank, fixed_sample, knn_accuracy, to_tensorboard
from slpd_core.ssl.slurm import Place, on_each
from slpd_core.ssl.student_teacher import Networks, set_schedules, update
from slpd_core.ssl.trainer import batches, first_not_finite, take_steps
from slpd_core.ssl.transfer import sent

VERSION = 8
MEMORY_SHARE = 0.7  # of a job's, that the tokens may take; the rest is for PyTorch


def stop_if_not_finite(losses: Tensor, steps: list[np.ndarray], cohort: Cohort, epoch: int) -> None:
    """Raise RuntimeError at the first step whose loss is not finite, with its slides; waits for the device.

    losses: of the steps done so far; steps: the rows of all steps of the epoch.
    """
    if found := first_not_finite(losses):
        number, loss = found
        slides = sorted({cohort.slide_ids[slide] for slide in cohort.slide_of[steps[number]]})
        raise RuntimeError(
            f"loss {loss} in epoch {epoch}, step {number}, slides {name_some(slides)}: lower "
            "pretrain.base_lr or raise pretrain.teacher_temperature; the last checkpoint is kept"
        )


def train_epoch(
    networks: Networks,
    cohort: Cohort,
    section: config.PretrainRunConfig,
    begun: Epoch,
    seed: int,
    epoch: int,
    asked_to_stop: Callable[[], bool],
) -> bool:
    """One epoch over all regions, from the step it had come to; gives whether it came to its end.

    At the end its row has the means of MEASURED over the steps, an entropy's over those that had targets of it, and the
    schedules' last values. Raises RuntimeError at a loss that is not finite.
    """
    device, tokens = networks.centres["self"].device, cohort.tokens
    dtype = multiplied_in(section.precision, device.type)
    steps = batches(len(tokens), section.batch_size, generator(seed, "batches", epoch))

    def step(number: int) -> Tensor:
        regions = steps[number]
        torch.manual_seed(torch_seed(seed, "drop_path", epoch, number) + distributed.rank())
        schedule = set_schedules(
            networks,
            section,
            epoch * len(steps) + number,
            len(steps),
            len(regions),
            warmup_endpoint=section.warmup_endpoint,
        )
        share = distributed.own_share(np.arange(len(regions)))
        own, rng = regions[share], generator(seed, "crops", epoch, number)
        views = draw_views(tokens, own, share, len(regions), section, rng, device)
        wanted = begun.targets.of(sent(torch.from_numpy(own), device)) if begun.targets else {}
        found = distil(networks, Batch(views, wanted), section, dtype)
        update(networks, section, schedule["teacher_momentum"])
        begun.row |= schedule
        return torch.stack([found[name] for name in MEASURED])

    def look_at(losses: Tensor) -> None:
        stop_if_not_finite(losses, steps, cohort, epoch)

    if not take_steps(step, len(steps), begun.measured, look_at, asked_to_stop, f"epoch {epoch}"):
        return False
    means = torch.stack(begun.measured).nanmean(0)
    begun.row |= dict(zip(MEASURED, means.tolist(), strict=True))
    return True


def embed_for_clustering(
    networks: Networks, cohort: Cohort, section: config.PretrainRunConfig, device: str
) -> np.ndarray:
    """What is clustered of each region, by the teacher, of its whole grid or a centre crop of it: float32 (R, D)."""
    teacher, grid = networks.teacher, cohort.tokens.shape[1]
    side = section.cluster_crop or grid
    first = (grid - side) // 2
    crop = slice(first, first + side)

    def embed(tokens: Tensor) -> Tensor:
        embeddings = teacher.encoder(tokens[:, crop, crop])
        return teacher.head.bottleneck(embeddings) if section.cluster_space == "bottleneck" else embeddings

    return embed_regions(embed, cohort.tokens, device)


def cluster(
    cohort: Cohort, clustered: np.ndarray, section: config.PretrainRunConfig, seed: int, epoch: int
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


def train(
    cohort: Cohort, section: config.PretrainRunConfig, seed: int, device: str, checkpoint: Checkpoint
) -> tuple[Networks, pd.DataFrame]:
    """The algorithm of the paper: before every epoch cluster each slide and match the slides, then distil.

    Takes up the checkpoint where there is one. Gives the trained networks and one history row an epoch. Raises
    ValueError when a batch cannot be shared evenly among the processes.
    """
    distributed.require_even_shares(min(section.batch_size, len(cohort.tokens)), "pretrain.batch_size", "regions")
    networks = start_networks(section, cohort.tokens.shape[-1], seed, device)
    cohort = cohort.near(device)
    history, state = checkpoint.restore(networks, ["prototypes", "begun"])
    prototypes = prototypes_of_state(state) if state else None
    begun = Epoch.of_state(state["begun"], device) if state.get("begun") else None
    for epoch in range(len(history), section.epochs):
        started = time.monotonic()
        if begun is None:
            begun = begin_epoch(networks, cohort, section, seed, epoch, prototypes, device)
        before = len(begun.measured)
        with deferred_sigterm() as asked_to_stop:
            if not train_epoch(networks, cohort, section, begun, seed, epoch, asked_to_stop):
                checkpoint.save(networks, history, prototypes_state(prototypes) | {"begun": begun.state()})
                log.info("stopped in epoch %d after %d steps", epoch + 1, len(begun.measured))
                sys.exit(TERMINATED)
            history.append(begun.row)
            prototypes = begun.prototypes
            checkpoint.save(networks, history, prototypes_state(prototypes) | {"begun": None})
            to_tensorboard(checkpoint.path.with_name("tensorboard"), begun.row)
        done = (len(begun.measured) - before) * min(section.batch_size, len(cohort.tokens))
        rate, loss = done / (time.monotonic() - started), begun.row["loss"]
        log.info("epoch %d of %d: loss %.3f, %.1f regions/s", epoch + 1, section.epochs, loss, rate)
        begun = None
    return networks, pd.DataFrame(history)


def begin_epoch(
    networks: Networks,
    cohort: Cohort,
    section: config.PretrainRunConfig,
    seed: int,
    epoch: int,
    before: Prototypes | None,
    device: str,
) -> Epoch:
    """Cluster each slide and match the slides, if the epoch needs it; before: the last epoch's prototypes."""
    row: dict[str, float] = {"epoch": epoch, "uniform": math.log(section.out_dim)}
    prototypes = targets = None
    if section.uses_prototypes and epoch >= section.prototype_start_epoch:
        clustered = embed_for_clustering(networks, cohort, section, device)
        prototypes = cluster(cohort, clustered, section, seed, epoch)
        group_of = clustering_groups(cohort, section)[0]
        row |= watch_prototypes(cohort, group_of, before, prototypes)
        apart = related_slides(cohort, section)[cohort.slide_of]
        targets = find_targets(prototypes, clustered, group_of, section, device, apart)
        row |= watch_targets(targets.rows)
    sample = fixed_sample(len(cohort.tokens))
    sampled = embed_regions(networks.teacher.encoder, cohort.tokens[sample], device)
    row["effective_rank"] = effective_rank(sampled)
    slides = cohort.slide_of[sample]
    row["knn_accuracy"] = knn_accuracy(sampled, np.array(cohort.labels)[slides], np.array(cohort.patient_ids)[slides])
    return Epoch(row, prototypes, targets, [])


def no_prototypes(cohort: Cohort, section: config.PretrainRunConfig) -> Prototypes:
    """Prototypes of a cohort none of whose slides has any."""
    _, names, _, M = clustering_groups(cohort, section)
    N, K = len(names), section.n_neighbors
    centres = np.zeros((N, M, section.embed_dim), np.float32)
    return Prototypes(centres, np.full(len(cohort.tokens), -1), np.full((N, K), -1), np.full((N, K, M), -1))


def final_arrays(cohort: Cohort, section: config.PretrainRunConfig, found: Prototypes | None) -> dict[str, np.ndarray]:
    """What prototypes.h5 holds of N slides and R regions; found is None in a run without prototypes.

    A row a slide: slides (N,), their ids; prototypes float32 (N, M, D), zero where a slide has none; neighbours int64
    (N, K), rows of slides; matches int64 (N, K, M), the partner of each prototype in that neighbour. Where clustering
    is global, there is one such row, its id empty. A row a region: region_slide (R,), its slide's id; coords int64
    (R, 2), level-0 px; assignment int32 (R,), its prototype. -1 stands for none.
    """
    if found is None:
        found = no_prototypes(cohort, section)
    slides = np.array(cohort.slide_ids)
    return {
        "slides": np.array(clustering_groups(cohort, section)[1]),
        "prototypes": found.centres,
        "neighbours": found.neighbours,
        "matches": found.matches,
        "region_slide": slides[cohort.slide_of],
        "coords": cohort.coords,
        "assignment": found.assignment.astype(np.int32),
    }


class Training(BaseModel):
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
    def begun_with(self) -> str:
        """The fingerprint of the weights that it begins with, if any."""
        return artifacts.file_fingerprint(Path(self.section.init_from)) if self.section.init_from else ""


@contextmanager
def prepared(training: Training) -> Iterator[tuple[Cohort, Checkpoint]]:
    """The cohort in memory, or mapped while within, and the run's checkpoint."""
    own = training
    only = training_slides(own.folds_path, own.fold) if own.folds_path and own.fold is not None else None
    in_memory = 0 if own.processes > 1 else MEMORY_SHARE * own.memory_mb * 1e6
    with TemporaryDirectory() as scratch:
        cohort = read_cohort(own.ledger_path, own.tokens_dir, only, in_memory, Path(scratch))
        R, grid = cohort.tokens.shape[:2]
        log.info("%s regions of %d slides, grid %d", f"{R:,}", len(cohort.slide_ids), grid)
        for gap in describe_gaps(cohort, own.section):
            log.warning("%s", gap)
        made_by = own.section.model_dump() | {"seed": own.seed, "tokens": cohort.fingerprint, "version": VERSION}
        yield cohort, Checkpoint(own.checkpoint_path, made_by | {"begun_with": own.begun_with})


def train_together(training: Training, place: Place) -> None:
    """A node's part in training, which ends in the checkpoint."""
    with prepared(training) as (cohort, checkpoint):
        train_as_one(
            train,
            training.processes,
            training.device,
            cohort,
            training.section,
            training.seed,
            training.device,
            checkpoint,
            place=place,
        )


def run(
    training: Training,
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
        arguments = {"training": training.model_dump(mode="json"), "threads": threads, "log_path": log_path}
        on_each(nodes, "slpd_core.pretraining", arguments, threads)
    section, seed, device = training.section, training.seed, training.device
    with prepared(training) as (cohort, checkpoint):
        if nodes == 1 and training.processes > 1:
            train_as_one(train, training.processes, device, cohort, section, seed, device, checkpoint)
        networks, history = train(cohort, section, seed, device, checkpoint)  # takes up what several have come to
        origin = (cohort.fingerprint, str(seed), training.begun_with)
        gaps = describe_gaps(cohort, section)
        meta = artifacts.provenance("pretrain", VERSION, section.model_dump(), *origin)
        meta |= {"remarks": "\n".join(gaps), "ledger": cohort.ledger}
        found = None
        if section.uses_prototypes:
            clustered = embed_for_clustering(networks, cohort, section, device)
            found = cluster(cohort, clustered, section, seed, section.epochs)
        artifacts.write_arrays(prototypes_path, final_arrays(cohort, section, found), {}, meta)
        artifacts.write_both(history_path, "history", history, meta)
        region_encoder.write_region_encoder(encoder_path, networks.teacher.encoder, meta)
        training.checkpoint_path.unlink(missing_ok=True)
        for gap in gaps:
            log.warning("%s", gap)
