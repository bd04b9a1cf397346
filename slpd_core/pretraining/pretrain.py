"""Stage two: SLPD pretraining of the region encoder (paper, sec. 2)."""

import math
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import config, store
from slpd_core.pretraining import crops, losses, region_encoder
from slpd_core.pretraining.checkpoint import Checkpoint
from slpd_core.pretraining.cohort import Cohort, embed_regions, read_cohort
from slpd_core.pretraining.networks import TERMS, Networks, set_schedules, torch_seed, update
from slpd_core.pretraining.prototypes import Prototypes, cluster_slides, share_moved
from slpd_core.runtime import generator, log, progress

VERSION = 1


def prototype_targets(
    prototypes: Prototypes, slide_of: np.ndarray, regions: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The prototypes a batch is distilled towards, a pair (values, weights) a term.

    regions: int64 (B,), rows of the cohort. intra: c, the prototype each region is assigned to (paper, eq. 2),
    (B, 1, D); inter: its matched partners ĉ_k in the nearest slides (eq. 4), (B, K, D). Weights (B, 1) and (B, K) are 1
    where there is such a prototype, else 0.
    """
    slide, own = slide_of[regions], prototypes.assignment[regions]
    neighbour = prototypes.neighbours[slide]
    partner = prototypes.matches[slide, :, own]
    has, has_partner = own >= 0, (own[:, None] >= 0) & (neighbour >= 0)
    return {
        "intra": (prototypes.centres[slide, own][:, None], has[:, None].astype(np.float32)),
        "inter": (prototypes.centres[neighbour, partner], has_partner.astype(np.float32)),
    }


def compute_losses(
    networks: Networks,
    section: config.PretrainRun,
    views: list[Tensor],
    targets: dict[str, tuple[Tensor, Tensor]],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The three losses of a batch (paper, eq. 1, 2, 4).

    views: global crops (G * B, g, g, C) and local crops (n * B, l, l, C), crop after crop. targets: as
    `prototype_targets` gives them; empty for L_self alone. Gives the losses, the teacher logits that move each centre,
    and the teacher's mean entropy.
    """
    G = section.n_global_crops
    B = len(views[0]) // G
    student, teacher = networks.student, networks.teacher
    embeddings = torch.cat([student.encoder(view) for view in views if len(view)])
    log_p = F.log_softmax(student.head(embeddings).float() / section.student_temperature, dim=-1)
    log_p = log_p.view(-1, B, section.out_dim)
    zero = log_p.new_zeros(())
    with torch.no_grad():
        logits = {"self": teacher.head(teacher.encoder(views[0])).float()}
        wanted = losses.teacher_targets(logits["self"], networks.centres["self"], section.teacher_temperature)
        entropy = losses.cross_entropy(wanted, wanted.clamp(min=1e-30).log()).mean()
    found = {"self": losses.self_loss(wanted.view(G, B, -1), log_p), "intra": zero, "inter": zero}
    for term, (values, weights) in targets.items():
        with torch.no_grad():
            raw = teacher.head(values).float()
            logits[term] = raw[weights > 0]
            wanted = losses.teacher_targets(raw, networks.centres[term], section.teacher_temperature)
        found[term] = losses.prototype_loss(wanted, log_p, weights)
    return found, logits, entropy


def batches(n_regions: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of the cohort, shuffled, in batches; the last is left out unless it is the only one."""
    order = rng.permutation(n_regions)
    return [order[start : start + batch_size] for start in range(0, max(1, n_regions - batch_size + 1), batch_size)]


def draw_views(tokens: Tensor, section: config.PretrainRun, rng: np.random.Generator, device: str) -> list[Tensor]:
    """Global and local crops of a batch: tokens (B, grid * grid, C) → two stacks, crop after crop."""
    grid, B = round(tokens.shape[1] ** 0.5), len(tokens)
    tokens = tokens.to(device).float()
    views = []
    for number, side in ((section.n_global_crops, section.global_crop), (section.n_local_crops, section.local_crop)):
        where = crops.crop_indices(number * B, grid, side, section.hflip, rng)
        views.append(crops.cut(tokens, where.reshape(number, B, side, side)))
    return views


def train_epoch(
    networks: Networks,
    cohort: Cohort,
    section: config.PretrainRun,
    prototypes: Prototypes | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One epoch over all regions; gives the means of the losses and the schedules' last values.

    Raises RuntimeError at a loss that is not finite.
    """
    device = str(networks.centres["self"].device.type)
    torch.manual_seed(torch_seed(seed, "drop_path", epoch))
    todo = batches(len(cohort.tokens), section.batch_size, generator(seed, "batches", epoch))
    alphas = {"self": 1.0, "intra": section.alpha_intra, "inter": section.alpha_inter}
    rows, schedule = [], {}
    for number, regions in enumerate(progress(todo, len(todo), f"epoch {epoch}", "steps")):
        schedule = set_schedules(networks, section, epoch * len(todo) + number, len(todo))
        views = draw_views(cohort.tokens[regions], section, generator(seed, "crops", epoch, number), device)
        pairs = prototype_targets(prototypes, cohort.slide_of, regions) if prototypes else {}
        targets = {
            term: (torch.from_numpy(values).to(device), torch.from_numpy(weights).to(device))
            for term, (values, weights) in pairs.items()
            if alphas[term]
        }
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            terms, logits, entropy = compute_losses(networks, section, views, targets)
        total = terms["self"] + section.alpha_intra * terms["intra"] + section.alpha_inter * terms["inter"]
        if not torch.isfinite(total):
            slides = sorted({cohort.slide_ids[slide] for slide in cohort.slide_of[regions]})
            raise RuntimeError(
                f"loss {total.item()} in epoch {epoch}, step {number}, slides {', '.join(slides[:5])} ...: lower "
                "pretrain.base_lr or raise pretrain.teacher_temperature; the last checkpoint is kept"
            )
        update(networks, section, total, schedule["teacher_momentum"], epoch < section.freeze_last_layer_epochs)
        for term, values in logits.items():
            networks.centres[term] = losses.update_centre(networks.centres[term], values, section.centre_momentum)
        rows.append(torch.stack([total.detach(), *(terms[term].detach() for term in TERMS), entropy]))
    means = torch.stack(rows).mean(0).tolist()
    return dict(zip(("loss", *TERMS, "teacher_entropy"), means, strict=True)) | schedule


def effective_rank(embeddings: np.ndarray) -> float:
    """Exponential of the entropy of the normalised singular values of the centred embeddings (R, D)."""
    values = np.linalg.svd(embeddings - embeddings.mean(0), compute_uv=False)
    share = values / max(values.sum(), 1e-12)
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum()))


def watch(cohort: Cohort, before: Prototypes | None, now: Prototypes) -> dict[str, float]:
    """What to watch of the prototypes while training; shares, and the size of the smallest cluster."""
    has = now.assignment >= 0
    patients = np.array(cohort.patient_ids)
    slides, ranks = np.nonzero(now.neighbours >= 0)
    same = patients[slides] == patients[now.neighbours[slides, ranks]]
    clusters = np.bincount(cohort.slide_of[has] * now.centres.shape[1] + now.assignment[has])
    return {
        "share_without_prototypes": float((cohort.sizes() < now.centres.shape[1]).mean()),
        "smallest_cluster": float(clusters[clusters > 0].min()) if has.any() else math.nan,
        "same_patient_neighbours": float(same.mean()) if len(same) else math.nan,
        "moved": share_moved(before, now, cohort.slide_of) if before else math.nan,
    }


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
    networks = Networks.start(section, cohort.tokens.shape[2], seed, device)
    history, prototypes = checkpoint.restore(networks)
    for epoch in range(len(history), section.epochs):
        started = time.monotonic()
        embeddings = embed_regions(networks.teacher.encoder, cohort.tokens, device)
        row: dict[str, float] = {"epoch": epoch, "uniform": math.log(section.out_dim)}
        before, prototypes = prototypes, None
        if section.uses_prototypes and epoch >= section.self_only_epochs:
            prototypes = cluster(cohort, embeddings, section, seed, epoch)
            row |= watch(cohort, before, prototypes)
        row |= train_epoch(networks, cohort, section, prototypes, seed, epoch)
        row["effective_rank"] = effective_rank(embeddings)
        history.append(row)
        checkpoint.save(networks, history, prototypes)
        rate = len(cohort.tokens) / (time.monotonic() - started)
        log.info("epoch %d of %d: loss %.3f, %.1f regions/s", epoch + 1, section.epochs, row["loss"], rate)
    return networks, pd.DataFrame(history)


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
    log.info("%s regions of %d slides, grid %d", f"{len(cohort.tokens):,}", len(cohort.slide_ids), cohort.grid)
    made_by = section.model_dump() | {"seed": seed, "tokens": cohort.fingerprint, "version": VERSION}
    checkpoint = Checkpoint(checkpoint_path, made_by)
    networks, history = train(cohort, section, seed, device, checkpoint)
    meta = store.provenance("pretrain", VERSION, section.model_dump(), cohort.fingerprint, str(seed))
    encoder = networks.teacher.encoder
    final = cluster(cohort, embed_regions(encoder, cohort.tokens, device), section, seed, section.epochs)
    arrays = {f.name: getattr(final, f.name) for f in fields(Prototypes)}
    arrays |= {"slide_ids": np.array(cohort.slide_ids), "slide_of": cohort.slide_of, "coords": cohort.coords}
    store.write_arrays(prototypes_path, arrays, {}, meta)
    store.write_text(history_path, history.to_csv(index=False))
    region_encoder.save(encoder_path, encoder, meta)
    checkpoint_path.unlink(missing_ok=True)
