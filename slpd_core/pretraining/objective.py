"""The objective of a batch: what its regions are distilled towards, and the three losses."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import config
from slpd_core.dino import losses
from slpd_core.dino.networks import Networks, move_centre
from slpd_core.pretraining.losses import prototype_loss
from slpd_core.pretraining.networks import TERMS, centre_of
from slpd_core.pretraining.prototypes import Prototypes

# A term of the loss -> what each region of a batch is distilled towards (B, K, D), and 1 where there is such, else 0.
BatchTargets = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Targets:
    """What the regions of a cohort are distilled towards in an epoch, beside other crops of themselves.

    vectors: float32 (P, D), D being the length of what was clustered. rows: term -> int64 (R, K), the rows of `vectors`
    that a region is distilled towards, -1 where there is none. Both on the device.
    """

    vectors: Tensor
    rows: dict[str, Tensor]

    def of(self, regions: Tensor) -> BatchTargets:
        """Those of a batch, its regions given by their rows in the cohort."""
        chosen = {term: rows[regions] for term, rows in self.rows.items()}
        return {term: (self.vectors[rows.clamp(min=0)], (rows >= 0).float()) for term, rows in chosen.items()}


def find_targets(
    prototypes: Prototypes, clustered: np.ndarray, group_of: np.ndarray, section: config.PretrainRun, device: str
) -> Targets:
    """The targets of the terms that count: c, the prototype a region is assigned to (paper, eq. 2), and ĉ_k, its
    matched partners in the nearest slides (eq. 4), or there the regions nearest to it.

    clustered: float32 (R, D), of which the prototypes are means; group_of: int64 (R,), the slide of each region, or
    what else was clustered as one.
    """
    M, own = prototypes.centres.shape[1], prototypes.assignment
    vectors = prototypes.centres.reshape(-1, prototypes.centres.shape[2])
    rows = {}
    if section.alpha_intra:
        rows["intra"] = np.where(own >= 0, group_of * M + own, -1)[:, None]
    if section.alpha_inter and section.inter == "prototype":
        neighbour, partner = prototypes.neighbours[group_of], prototypes.matches[group_of, :, own]
        rows["inter"] = np.where((own[:, None] >= 0) & (neighbour >= 0), neighbour * M + partner, -1)
    elif section.alpha_inter:
        nearest = nearest_regions(clustered, prototypes.neighbours, group_of)
        rows["inter"] = np.where(nearest >= 0, len(vectors) + nearest, -1)
        vectors = np.concatenate([vectors, clustered])
    return Targets(
        torch.from_numpy(vectors).to(device), {term: torch.from_numpy(found).to(device) for term, found in rows.items()}
    )


def nearest_regions(clustered: np.ndarray, neighbours: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """For each region the most similar one, by cosine, in each of its slide's neighbours: int64 (R, K), -1 for none.

    The alternative to prototypes that the paper argues against (Table 2, inter-slide distillation by region).
    """
    unit = clustered / np.maximum(np.linalg.norm(clustered, axis=1, keepdims=True), 1e-12)
    own = [np.flatnonzero(group_of == group) for group in range(len(neighbours))]
    found = np.full((len(clustered), neighbours.shape[1]), -1)
    for group, rank in np.argwhere(neighbours >= 0):
        there = own[neighbours[group, rank]]
        found[own[group], rank] = there[(unit[own[group]] @ unit[there].T).argmax(1)]
    return found


def forward(
    networks: Networks, views: list[Tensor], targets: BatchTargets, in_bottleneck: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Student and teacher on a batch; the part of a step that may run in half precision.

    views: global crops (G * B, g, g, C) and local crops (n * B, l, l, C), crop after crop. targets: empty for L_self
    alone. in_bottleneck: whether they are vectors of the head's bottleneck, not embeddings. Gives the student's
    embeddings ((G + n) * B, D) and logits ((G + n) * B, out_dim) of all crops, and the teacher's logits a term: of the
    global crops (G * B, out_dim) for self, of the prototypes (B, K, out_dim) for intra and inter.
    """
    student, teacher = networks.student, networks.teacher
    embeddings = torch.cat([student.encoder(view) for view in views if len(view)])
    with torch.no_grad():
        parts = {"self": teacher.head.bottleneck(teacher.encoder(views[0]))}
        for term, (values, _) in targets.items():
            parts[term] = values if in_bottleneck else teacher.head.bottleneck(values)
        logits = teacher.head.outputs(torch.cat([part.flatten(0, -2) for part in parts.values()]))
        raw = logits.split([part.shape[:-1].numel() for part in parts.values()])
    return (
        embeddings,
        student.head(embeddings),
        {term: logits.view(*part.shape[:-1], -1) for (term, part), logits in zip(parts.items(), raw, strict=True)},
    )


def compute_losses(
    section: config.PretrainRun,
    networks: Networks,
    student: Tensor,
    teacher: dict[str, Tensor],
    targets: BatchTargets,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The three losses of a batch (paper, eq. 1, 2, 4), of the logits that `forward` gave, in single precision.

    Gives each loss, zero for a term without targets, and the mean entropy of the teacher's targets of each term, nan
    for a term without any. Term by term, the centre is moved when the targets have been taken: where terms share one,
    the next term sees it moved, as in the released code.
    """
    G, out_dim = section.n_global_crops, section.out_dim
    log_p = F.log_softmax(student / section.student_temperature, dim=-1)
    log_p = log_p.view(-1, len(teacher["self"]) // G, out_dim)
    found = dict.fromkeys(TERMS, log_p.new_zeros(()))
    entropies = dict.fromkeys(TERMS, log_p.new_full((), torch.nan))
    for term, logits in teacher.items():
        weights = targets[term][1] if term in targets else logits.new_ones(logits.shape[:-1])
        centre = centre_of(section, term)
        wanted = losses.teacher_targets(logits, networks.centres[centre], section.teacher_temperature)
        move_centre(networks, centre, logits, weights, section.centre_momentum)
        entropies[term] = losses.mean_entropy(wanted, weights)
        if term == "self":
            found[term] = losses.self_loss(wanted.view(G, -1, out_dim), log_p)
        else:
            found[term] = prototype_loss(wanted, log_p[int(section.skip_first_crop) :], weights)
    return found, entropies
