"""Stage two: SLPD pretraining of the region encoder (paper, sec. 2)."""

import math
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slpd_core import config, store
from slpd_core.dino import processes
from slpd_core.dino.checkpoint import Checkpoint
from slpd_core.dino.networks import Networks, set_schedules, update
from slpd_core.dino.processes import train_as_one
from slpd_core.dino.steps import batches, first_not_finite
from slpd_core.dino.watch import effective_rank, fixed_sample
from slpd_core.pretraining import region_encoder
from slpd_core.pretraining.cohort import Cohort, embed_regions, read_cohort
from slpd_core.pretraining.crops import draw_views
from slpd_core.pretraining.networks import multiplied_in, start_networks, torch_seed
from slpd_core.pretraining.objective import MEASURED, Batch, Targets, distil, find_targets
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides
from slpd_core.pretraining.watch import watch_prototypes
from slpd_core.runtime import generator, log, progress

VERSION = 5


def stop_if_not_finite(losses: list[Tensor], steps: list[np.ndarray], cohort: Cohort, epoch: int) -> None:
    """Raise RuntimeError at a step whose loss is not finite, with its slides.

    losses: of the steps done so far; steps: the rows of all steps of the epoch.
    """
    if found := first_not_finite(losses, len(steps)):
        number, loss = found
        slides = sorted({cohort.slide_ids[slide] for slide in cohort.slide_of[steps[number]]})
        raise RuntimeError(
            f"loss {loss} in epoch {epoch}, step {number}, slides {', '.join(slides[:5])} ...: lower "
            "pretrain.base_lr or raise pretrain.teacher_temperature; the last checkpoint is kept"
        )


def train_epoch(
    networks: Networks,
    cohort: Cohort,
    section: config.PretrainRun,
    targets: Targets | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One epoch over all regions; gives the means of MEASURED over its steps and the schedules' last values.

    The entropy of a term is that of the steps that had targets of it, nan where none had. Raises RuntimeError at a loss
    that is not finite.
    """
    device, tokens = networks.centres["self"].device, cohort.tokens
    dtype = multiplied_in(section.precision, device.type)
    torch.manual_seed(torch_seed(seed, "drop_path", epoch) + processes.rank())
    steps = batches(len(tokens), section.batch_size, generator(seed, "batches", epoch))
    rows: list[Tensor] = []
    totals, schedule = [], {}
    for number, regions in enumerate(progress(steps, len(steps), f"epoch {epoch}", "steps")):
        schedule = set_schedules(networks, section, epoch * len(steps) + number, len(steps), len(regions))
        share = processes.own_share(np.arange(len(regions)))
        own = torch.from_numpy(regions[share])
        rng = generator(seed, "crops", epoch, number)
        views = draw_views(tokens, own.to(tokens.device), share, len(regions), section, rng)
        batch = Batch([view.to(device) for view in views], targets.of(own.to(device)) if targets else {})
        measured = distil(networks, batch, section, dtype)
        update(networks, section, schedule["teacher_momentum"])
        rows.append(torch.stack([measured[name] for name in MEASURED]))
        processes.add_up(rows[-1])
        totals.append(rows[-1][0])
        stop_if_not_finite(totals, steps, cohort, epoch)
    means = torch.stack(rows).nanmean(0) / processes.count()
    return dict(zip(MEASURED, means.tolist(), strict=True)) | schedule


def embed_for_clustering(networks: Networks, cohort: Cohort, section: config.PretrainRun, device: str) -> np.ndarray:
    """What is clustered of each region, by the teacher, of its whole grid or a centre crop of it: float32 (R, D)."""
    teacher, grid = networks.teacher, cohort.tokens.shape[1]
    side = section.cluster_crop or grid
    first = (grid - side) // 2
    crop = slice(first, first + side)

    def embed(tokens: Tensor) -> Tensor:
        embeddings = teacher.encoder(tokens[:, crop, crop])
        return teacher.head.bottleneck(embeddings) if section.cluster_space == "bottleneck" else embeddings

    return embed_regions(embed, cohort.tokens, device)


def groups(cohort: Cohort, section: config.PretrainRun) -> tuple[np.ndarray, list[str], list[str], int]:
    """What is clustered as one: the group of each region, the groups' names and patients, and their prototypes.

    The slides, or where clustering is global, the cohort with as many prototypes as its slides would have had.
    """
    if section.clustering == "slide":
        return cohort.slide_of, cohort.slide_ids, cohort.patient_ids, section.n_prototypes
    total = min(section.n_prototypes * len(cohort.slide_ids), len(cohort.tokens))
    return np.zeros_like(cohort.slide_of), [""], [""], total


def cluster(cohort: Cohort, clustered: np.ndarray, section: config.PretrainRun, seed: int, epoch: int) -> Prototypes:
    """The prototypes of an epoch; clustered: float32 (R, D)."""
    group_of, names, patients, M = groups(cohort, section)
    return cluster_slides(
        clustered,
        group_of,
        names,
        M=M,
        K=section.n_neighbours,
        restarts=section.kmeans_restarts,
        iterations=section.kmeans_iterations,
        seed=seed,
        epoch=epoch,
        min_regions=section.min_regions,
        group=np.unique(patients, return_inverse=True)[1] if section.exclude_same_patient else None,
        matching=section.matching,
    )


def train(
    cohort: Cohort, section: config.PretrainRun, seed: int, device: str, checkpoint: Checkpoint
) -> tuple[Networks, pd.DataFrame]:
    """The algorithm of the paper: before every epoch cluster each slide and match the slides, then distil.

    Takes up the checkpoint where there is one. Gives the trained networks and one history row an epoch. Raises
    ValueError when a batch cannot be shared evenly among the processes.
    """
    processes.require_even_shares(min(section.batch_size, len(cohort.tokens)), "pretrain.batch_size", "regions")
    networks = start_networks(section, cohort.tokens.shape[-1], seed, device)
    cohort = cohort.near(device)
    sample = fixed_sample(len(cohort.tokens))
    history, arrays = checkpoint.restore(networks, [field.name for field in fields(Prototypes)])
    prototypes = Prototypes(**arrays) if arrays else None
    for epoch in range(len(history), section.epochs):
        started = time.monotonic()
        row: dict[str, float] = {"epoch": epoch, "uniform": math.log(section.out_dim)}
        before, prototypes, targets = prototypes, None, None
        if section.uses_prototypes and epoch >= section.self_only_epochs:
            clustered = embed_for_clustering(networks, cohort, section, device)
            prototypes = cluster(cohort, clustered, section, seed, epoch)
            group_of = groups(cohort, section)[0]
            row |= watch_prototypes(cohort, group_of, before, prototypes)
            targets = find_targets(prototypes, clustered, group_of, section, device)
        sampled = embed_regions(networks.teacher.encoder, cohort.tokens[sample], device)
        row |= train_epoch(networks, cohort, section, targets, seed, epoch)
        row["effective_rank"] = effective_rank(sampled)
        history.append(row)
        checkpoint.save(networks, history, vars(prototypes) if prototypes else {})
        rate = len(cohort.tokens) / (time.monotonic() - started)
        log.info("epoch %d of %d: loss %.3f, %.1f regions/s", epoch + 1, section.epochs, row["loss"], rate)
    return networks, pd.DataFrame(history)


def no_prototypes(cohort: Cohort, section: config.PretrainRun) -> Prototypes:
    """Prototypes of a cohort none of whose slides has any."""
    _, names, _, M = groups(cohort, section)
    N, K = len(names), section.n_neighbours
    centres = np.zeros((N, M, section.embed_dim), np.float32)
    return Prototypes(centres, np.full(len(cohort.tokens), -1), np.full((N, K), -1), np.full((N, K, M), -1))


def final_arrays(cohort: Cohort, section: config.PretrainRun, found: Prototypes | None) -> dict[str, np.ndarray]:
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
        "slides": np.array(groups(cohort, section)[1]),
        "prototypes": found.centres,
        "neighbours": found.neighbours,
        "matches": found.matches,
        "region_slide": slides[cohort.slide_of],
        "coords": cohort.coords,
        "assignment": found.assignment.astype(np.int32),
    }


def run(
    *,
    ledger_path: Path,
    tokens_dir: Path,
    encoder_path: Path,
    history_path: Path,
    prototypes_path: Path,
    checkpoint_path: Path,
    section: config.PretrainRun,
    seed: int,
    device: str,
    gpus: int = 0,
) -> None:
    """Pretrain one run, on several GPUs by a process each: writes the teacher's encoder, the history and the final
    prototypes.
    """
    cohort = read_cohort(ledger_path, tokens_dir)
    R, grid = cohort.tokens.shape[:2]
    log.info("%s regions of %d slides, grid %d", f"{R:,}", len(cohort.slide_ids), grid)
    begun_with = store.file_fingerprint(Path(section.init_from)) if section.init_from else ""
    made_by = section.model_dump() | {"seed": seed, "tokens": cohort.fingerprint, "version": VERSION}
    checkpoint = Checkpoint(checkpoint_path, made_by | {"begun_with": begun_with})
    if gpus > 1 and device == "cuda":
        cohort.tokens.share_memory_()
        train_as_one(train, gpus, device, cohort, section, seed, device, checkpoint)
    networks, history = train(cohort, section, seed, device, checkpoint)  # takes up what several have come to
    meta = store.provenance("pretrain", VERSION, section.model_dump(), cohort.fingerprint, str(seed), begun_with)
    encoder = networks.teacher.encoder
    found = None
    if section.uses_prototypes:
        clustered = embed_for_clustering(networks, cohort, section, device)
        found = cluster(cohort, clustered, section, seed, section.epochs)
    store.write_arrays(prototypes_path, final_arrays(cohort, section, found), {}, meta)
    store.write_text(history_path, history.to_csv(index=False))
    region_encoder.save(encoder_path, encoder, meta)
    checkpoint_path.unlink(missing_ok=True)
