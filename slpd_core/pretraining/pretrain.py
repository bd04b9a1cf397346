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
from slpd_core.dino.checkpoint import Checkpoint
from slpd_core.dino.networks import Networks, set_schedules, update
from slpd_core.dino.steps import batches, first_not_finite
from slpd_core.dino.watch import effective_rank, fixed_sample
from slpd_core.pretraining import region_encoder
from slpd_core.pretraining.cohort import Cohort, embed_regions, read_cohort
from slpd_core.pretraining.crops import draw_views
from slpd_core.pretraining.networks import TERMS, start_networks, torch_seed
from slpd_core.pretraining.objective import compute_losses, forward, move_centres, prototype_targets
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides
from slpd_core.pretraining.watch import watch_prototypes
from slpd_core.runtime import generator, log, progress

VERSION = 3
# Of history.csv: the means of an epoch's steps. The losses, and the entropy of the teacher's targets of each.
MEANS = ("loss", *TERMS, "teacher_entropy", "entropy_intra", "entropy_inter")


def stop_if_not_finite(losses: list[Tensor], todo: list[np.ndarray], cohort: Cohort, epoch: int) -> None:
    """Raise RuntimeError at a step whose loss is not finite, with its slides.

    losses: of the steps done so far; todo: the rows of all steps of the epoch.
    """
    if found := first_not_finite(losses, len(todo)):
        number, loss = found
        slides = sorted({cohort.slide_ids[slide] for slide in cohort.slide_of[todo[number]]})
        raise RuntimeError(
            f"loss {loss} in epoch {epoch}, step {number}, slides {', '.join(slides[:5])} ...: lower "
            "pretrain.base_lr or raise pretrain.teacher_temperature; the last checkpoint is kept"
        )


def train_epoch(
    networks: Networks,
    cohort: Cohort,
    section: config.PretrainRun,
    prototypes: Prototypes | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One epoch over all regions; gives MEANS and the schedules' last values.

    The entropy of a term is that of the steps that had targets of it, nan where none had. Raises RuntimeError at a loss
    that is not finite.
    """
    device = str(networks.centres["self"].device.type)
    torch.manual_seed(torch_seed(seed, "drop_path", epoch))
    todo = batches(len(cohort.tokens), section.batch_size, generator(seed, "batches", epoch))
    alphas = {"self": 1.0, "intra": section.alpha_intra, "inter": section.alpha_inter}
    rows, totals, schedule = [], [], {}
    for number, regions in enumerate(progress(todo, len(todo), f"epoch {epoch}", "steps")):
        schedule = set_schedules(networks, section, epoch * len(todo) + number, len(todo), len(regions))
        views = draw_views(cohort.tokens[regions], section, generator(seed, "crops", epoch, number), device)
        pairs = prototype_targets(prototypes, cohort.slide_of, regions) if prototypes else {}
        targets = {
            term: (torch.from_numpy(values).to(device), torch.from_numpy(weights).to(device))
            for term, (values, weights) in pairs.items()
            if alphas[term]
        }
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            student, teacher = forward(networks, views, targets)
        terms, entropies = compute_losses(section, networks.centres, student, teacher, targets)
        total = terms["self"] + section.alpha_intra * terms["intra"] + section.alpha_inter * terms["inter"]
        update(networks, section, total, schedule["teacher_momentum"], epoch < section.freeze_last_layer_epochs)
        move_centres(networks, teacher, targets, section.centre_momentum)
        rows.append(torch.stack([total, *terms.values(), *entropies.values()]).detach())
        totals.append(rows[-1][0])
        stop_if_not_finite(totals, todo, cohort, epoch)
    return dict(zip(MEANS, torch.stack(rows).nanmean(0).tolist(), strict=True)) | schedule


def cluster(cohort: Cohort, embeddings: np.ndarray, section: config.PretrainRun, seed: int, epoch: int) -> Prototypes:
    """The prototypes of an epoch, from the teacher's embeddings of whole regions."""
    return cluster_slides(
        embeddings,
        cohort.slide_of,
        cohort.slide_ids,
        M=section.n_prototypes,
        K=section.n_neighbours,
        restarts=section.kmeans_restarts,
        iterations=section.kmeans_iterations,
        seed=seed,
        epoch=epoch,
    )


def train(
    cohort: Cohort, section: config.PretrainRun, seed: int, device: str, checkpoint: Checkpoint
) -> tuple[Networks, pd.DataFrame]:
    """The algorithm of the paper: before every epoch cluster each slide and match the slides, then distil.

    Takes up the checkpoint where there is one. Gives the trained networks and one history row an epoch.
    """
    networks = start_networks(section, cohort.tokens.shape[-1], seed, device)
    sample = fixed_sample(len(cohort.tokens))
    history, arrays = checkpoint.restore(networks, [field.name for field in fields(Prototypes)])
    prototypes = Prototypes(**arrays) if arrays else None
    for epoch in range(len(history), section.epochs):
        started = time.monotonic()
        row: dict[str, float] = {"epoch": epoch, "uniform": math.log(section.out_dim)}
        before, prototypes = prototypes, None
        if section.uses_prototypes and epoch >= section.self_only_epochs:
            embeddings = embed_regions(networks.teacher.encoder, cohort.tokens, device)
            prototypes = cluster(cohort, embeddings, section, seed, epoch)
            row |= watch_prototypes(cohort, before, prototypes)
            sampled = embeddings[sample]
        else:
            sampled = embed_regions(networks.teacher.encoder, cohort.tokens[sample], device)
        row |= train_epoch(networks, cohort, section, prototypes, seed, epoch)
        row["effective_rank"] = effective_rank(sampled)
        history.append(row)
        checkpoint.save(networks, history, vars(prototypes) if prototypes else {})
        rate = len(cohort.tokens) / (time.monotonic() - started)
        log.info("epoch %d of %d: loss %.3f, %.1f regions/s", epoch + 1, section.epochs, row["loss"], rate)
    return networks, pd.DataFrame(history)


def no_prototypes(cohort: Cohort, section: config.PretrainRun) -> Prototypes:
    """Prototypes of a cohort none of whose slides has any."""
    N, M, K = len(cohort.slide_ids), section.n_prototypes, section.n_neighbours
    centres = np.zeros((N, M, section.embed_dim), np.float32)
    return Prototypes(centres, np.full(len(cohort.tokens), -1), np.full((N, K), -1), np.full((N, K, M), -1))


def final_arrays(cohort: Cohort, section: config.PretrainRun, found: Prototypes | None) -> dict[str, np.ndarray]:
    """What prototypes.h5 holds of N slides and R regions; found is None in a run without prototypes.

    A row a slide: slides (N,), their ids; prototypes float32 (N, M, D), zero where a slide has none; neighbours int64
    (N, K), rows of slides; matches int64 (N, K, M), the partner of each prototype in that neighbour. A row a region:
    region_slide (R,), its slide's id; coords int64 (R, 2), level-0 px; assignment int16 (R,), its prototype. -1 stands
    for none.
    """
    if found is None:
        found = no_prototypes(cohort, section)
    slides = np.array(cohort.slide_ids)
    return {
        "slides": slides,
        "prototypes": found.centres,
        "neighbours": found.neighbours,
        "matches": found.matches,
        "region_slide": slides[cohort.slide_of],
        "coords": cohort.coords,
        "assignment": found.assignment.astype(np.int16),
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
) -> None:
    """Pretrain one run: writes the teacher's encoder, the history and the final prototypes."""
    cohort = read_cohort(ledger_path, tokens_dir)
    R, grid = cohort.tokens.shape[:2]
    log.info("%s regions of %d slides, grid %d", f"{R:,}", len(cohort.slide_ids), grid)
    made_by = section.model_dump() | {"seed": seed, "tokens": cohort.fingerprint, "version": VERSION}
    checkpoint = Checkpoint(checkpoint_path, made_by)
    networks, history = train(cohort, section, seed, device, checkpoint)
    meta = store.provenance("pretrain", VERSION, section.model_dump(), cohort.fingerprint, str(seed))
    encoder = networks.teacher.encoder
    found = None
    if section.uses_prototypes:
        found = cluster(cohort, embed_regions(encoder, cohort.tokens, device), section, seed, section.epochs)
    store.write_arrays(prototypes_path, final_arrays(cohort, section, found), {}, meta)
    store.write_text(history_path, history.to_csv(index=False))
    region_encoder.save(encoder_path, encoder, meta)
    checkpoint_path.unlink(missing_ok=True)
