"""The objective of a batch: what its regions are distilled towards, and the three losses with their gradients."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import config
from slpd_core.pretraining.matching import nearest_regions, nearest_regions_of_all
from slpd_core.pretraining.networks import TERMS, center_name
from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.ssl import distributed, losses
from slpd_core.ssl.distributed import to_device
from slpd_core.ssl.losses import LogitFactors
from slpd_core.ssl.student_teacher import StudentTeacher, move_center

# What is measured of a batch: the loss, its parts, and the entropy of the teacher's targets of each term.
ENTROPIES = {"self": "teacher_entropy", "intra": "entropy_intra", "inter": "entropy_inter"}
LOSSES = {term: f"loss_{term}" for term in TERMS}
METRIC_NAMES = ("loss", *LOSSES.values(), "koleo", *ENTROPIES.values())
BLOCK_REGIONS = {"cpu": 32, "cuda": 128}  # that go through a network at a time
# A term of the loss -> what each region of a batch is distilled towards (B, K, D), and 1 where there is such, else 0.
BatchTargets = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EpochTargets:
    """What the regions of a cohort are distilled towards in an epoch, beside other crops of themselves.

    vectors: float32 (P, D), D being the length of what was clustered. rows: term -> int64 (R, K), the rows of `vectors`
    that a region is distilled towards, -1 where there is none. Both on the device.
    """

    vectors: Tensor
    rows: dict[str, Tensor]

    def for_batch(self, regions: Tensor) -> BatchTargets:
        """Those of a batch, its regions given by their rows in the cohort."""
        chosen = {term: rows[regions] for term, rows in self.rows.items()}
        return {term: (self.vectors[rows.clamp(min=0)], (rows >= 0).float()) for term, rows in chosen.items()}


def assign_targets(
    prototypes: Prototypes,
    clustered: np.ndarray,
    group_of: np.ndarray,
    section: config.PretrainRunConfig,
    device: str,
    apart: np.ndarray,
) -> EpochTargets:
    """Find the targets of the terms that count, c and ĉ_k (paper, eq. 2, 4) or regions in place of the latter.

    c is the prototype a region is assigned to, ĉ_k its matched partner in the k-th nearest slide. In their place stand
    the regions nearest to it, in each of these slides or in all slides but its own.

    Args:
        clustered: float32 (R, D), of which the prototypes are means.
        group_of: int64 (R,), the slide of each region, or what else was clustered as one.
        apart: int64 (R,); regions of equal value, of a slide or of a patient, are no neighbors.
    """
    M, own = prototypes.centers.shape[1], prototypes.assignment
    vectors = prototypes.centers.reshape(-1, prototypes.centers.shape[2])
    rows = {}
    if section.alpha_intra:
        rows["intra"] = np.where(own >= 0, group_of * M + own, -1)[:, None]
    if section.alpha_inter and section.inter_target == "prototype":
        neighbor, partner = prototypes.neighbors[group_of], prototypes.matches[group_of, :, own]
        rows["inter"] = np.where((own[:, None] >= 0) & (neighbor >= 0), neighbor * M + partner, -1)
    elif section.alpha_inter:
        if section.inter_target == "region":
            nearest = nearest_regions(clustered, prototypes.neighbors, group_of)
        else:
            nearest = nearest_regions_of_all(clustered, apart, section.n_neighbors)
        rows["inter"] = np.where(nearest >= 0, len(vectors) + nearest, -1)
        vectors = np.concatenate([vectors, clustered])
    return EpochTargets(
        torch.from_numpy(vectors).to(device), {term: torch.from_numpy(found).to(device) for term, found in rows.items()}
    )


@dataclass(frozen=True)
class Batch:
    """A batch of B regions, or this process's share of it, on the device.

    views: global crops (G, B, g, g, C) and local crops (n, B, l, l, C). targets: of the terms that count, empty for
    L_self alone.
    """

    views: list[Tensor]
    targets: BatchTargets

    def __len__(self) -> int:
        return self.views[0].shape[1]


def distil(
    networks: StudentTeacher, batch: Batch, section: config.PretrainRunConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Give the student the gradients of a batch's loss (paper, eq. 1, 2, 4), and move the centers.

    dtype: of what encoders and perceptrons multiply; the losses are in single precision. Term by term, the center is
    moved when the targets have been taken: where terms share one, the next term sees it moved, as in the released code.

    Gives MEASURED of the batch: the losses, zero for a term without targets, and the mean entropy of the teacher's
    targets of each term, nan for a term without any.
    """
    vectors, pairs = teacher_targets(networks, batch, section, dtype), pair_weights(section, batch)
    outputs, momentum = networks.teacher.head.normalized_weight(), section.center_momentum
    counted = {term: weights for term, (_, weights) in batch.targets.items()}
    counted["self"] = torch.ones_like(vectors["self"][..., 0])
    center = {
        term: move_center(networks, center_name(section, term), rows, outputs, counted[term], momentum)
        for term, rows in vectors.items()
    }
    weight = {"self": 1.0, "intra": section.alpha_intra, "inter": section.alpha_inter}
    all_pairs = torch.cat([weight[term] * pairs[term] for term in vectors], 1).to(outputs.dtype)
    teacher = LogitFactors(torch.cat([*vectors.values()], 1), outputs, section.teacher_temperature)
    centers = torch.cat([center[term].expand(rows.shape[1], -1) for term, rows in vectors.items()])
    cross_entropy, entropy, koleo = through_student(networks, batch, section, dtype, teacher, centers, all_pairs)
    found = dict.fromkeys(METRIC_NAMES, cross_entropy.new_zeros(()))
    found |= dict.fromkeys(ENTROPIES.values(), cross_entropy.new_full((), torch.nan))
    sizes = [rows.shape[1] for rows in vectors.values()]
    for term, own, entropies in zip(vectors, cross_entropy.split(sizes, 1), entropy.split(sizes, 1), strict=True):
        found[LOSSES[term]] = (pairs[term] * own).sum()
        found[ENTROPIES[term]] = losses.masked_mean(entropies, counted[term])
    found["koleo"] = koleo
    found["loss"] = sum((weight[term] * found[LOSSES[term]] for term in vectors), section.koleo_weight * koleo)
    return found


def teacher_targets(
    networks: StudentTeacher, batch: Batch, section: config.PretrainRunConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What a batch is distilled towards, as vectors of the teacher's bottleneck: term -> (B, rows, d).

    For L_self the global crops, for the others the prototypes.
    """
    teacher, views = networks.teacher, batch.views[0]
    with torch.no_grad(), autocast(dtype, views.device):
        parts = views.flatten(0, 1).split(BLOCK_REGIONS[views.device.type])
        crops = torch.cat([teacher.head.bottleneck(teacher.encoder(part)) for part in parts])
        found = {"self": crops.view(*views.shape[:2], -1).transpose(0, 1)}
        for term, (values, _) in batch.targets.items():
            inside = section.cluster_space == "bottleneck"
            found[term] = F.normalize(values, dim=-1) if inside else teacher.head.bottleneck(values)
    return found


def pair_weights(section: config.PretrainRunConfig, batch: Batch) -> dict[str, Tensor]:
    """How much each pair of a target and a student crop counts in a term's loss: term -> (B, targets, crops).

    L_self: the mean over the pairs and the batch (paper, eq. 1). L_intra and L_inter (eq. 2, 4): the mean over a
    region's prototypes, over the crops, and over the regions that have a prototype; all zero where none has. The
    released code leaves crop k out for the k-th prototype, as DINO leaves a crop out for itself. Several processes have
    a share of the batch each, and the mean of what they get is that of the whole batch.
    """
    B, G, crops = len(batch), section.n_global_crops, section.n_global_crops + section.n_local_crops
    device = batch.views[0].device
    found = {"self": to_device(losses.cross_view_weights(G, crops), device).expand(B, G, crops) / B}
    for term, (_, weights) in batch.targets.items():
        count = weights.sum(1, keepdim=True)
        regions = (count > 0).sum().float()
        distributed.all_reduce_sum(regions)
        share = weights / count.clamp(min=1) * distributed.world_size() / regions.clamp(min=1)
        compared = torch.ones(weights.shape[1], crops)
        if section.skip_crop_k:
            compared.fill_diagonal_(0)
        compared = to_device(compared, device)
        found[term] = share[:, :, None] * compared / compared.sum(1, keepdim=True)
    return found


def through_student(
    networks: StudentTeacher,
    batch: Batch,
    section: config.PretrainRunConfig,
    dtype: torch.dtype,
    teacher: LogitFactors,
    centers: Tensor,
    pairs: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The student's gradients of the sum of all pairs' cross-entropies and of KoLeo.

    Block of regions by block, in the memory of one: losses and gradients are sums over regions, and but for the order
    of drop path's draws and of additions they do not depend on the blocks. KoLeo looks for neighbors in the whole
    batch, which then is one block.

    teacher: of T rows; centers: (T, out_dim); pairs: (B, T, crops). Gives the cross-entropies (B, T, crops), the
    targets' entropies (B, T) and KoLeo of the global crops.
    """
    student, B, G = networks.student, len(batch), section.n_global_crops
    outputs = student.head.normalized_weight()
    rows = outputs.detach().requires_grad_(outputs.requires_grad)
    size = B if section.koleo_weight else BLOCK_REGIONS[centers.device.type]
    found, global_crops = [], []
    for first in range(0, B, size):
        b = slice(first, first + size)
        with autocast(dtype, centers.device):
            crops = [view[:, b].flatten(0, 1) for view in batch.views if len(view)]
            embeddings = torch.cat([student.encoder(part) for part in crops])
            own = student.head.bottleneck(embeddings)
        own = own.view(-1, len(pairs[b]), own.shape[1]).transpose(0, 1)
        distilled = losses.chunked_cross_entropy(
            LogitFactors(own, rows, section.student_temperature),
            teacher._replace(vectors=teacher.vectors[b]),
            centers,
            pairs[b],
            dtype,
        )
        loss, views = distilled.loss, embeddings[: G * len(own)]
        if section.koleo_weight:
            koleo = losses.koleo_of_crops(views, G)
            loss = loss + section.koleo_weight * koleo
        networks.scaler.scale(loss).backward()
        global_crops.append(views.detach().view(G, len(own), -1))
        found.append((distilled.cross_entropy, distilled.entropy))
    if rows.grad is not None:
        outputs.backward(rows.grad)
    if not section.koleo_weight:  # watched all the same
        koleo = losses.koleo_of_crops(torch.cat(global_crops, 1).flatten(0, 1), G)
    cross_entropy, entropy = (torch.cat(parts) for parts in zip(*found, strict=True))
    return cross_entropy, entropy, koleo.detach()


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Within it, matrices are multiplied in a dtype of half precision; float32 leaves everything as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
