"""The objective of a batch: which prototypes its regions are distilled towards, and the three losses."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core import config
from slpd_core.dino import losses
from slpd_core.dino.networks import Networks, move_centre
from slpd_core.pretraining.losses import prototype_loss
from slpd_core.pretraining.networks import TERMS
from slpd_core.pretraining.prototypes import Prototypes

# A term of the loss -> the prototypes of each region of the batch (B, K, D), and 1 where there is one, else 0 (B, K).
Targets = dict[str, tuple[Tensor, Tensor]]


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


def forward(networks: Networks, views: list[Tensor], targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
    """Student and teacher on a batch; the part of a step that may run in half precision.

    views: global crops (G * B, g, g, C) and local crops (n * B, l, l, C), crop after crop. targets: empty for L_self
    alone. Gives the student's logits of all crops ((G + n) * B, out_dim), and the teacher's a term: of the global crops
    (G * B, out_dim) for self, of the prototypes (B, K, out_dim) for intra and inter.
    """
    student, teacher = networks.student, networks.teacher
    embeddings = torch.cat([student.encoder(view) for view in views if len(view)])
    with torch.no_grad():
        inputs = {"self": teacher.encoder(views[0])} | {term: values for term, (values, _) in targets.items()}
        logits = teacher.head(torch.cat([rows.flatten(0, -2) for rows in inputs.values()]))
        parts = logits.split([rows.shape[:-1].numel() for rows in inputs.values()])
    raw = {term: part.view(*rows.shape[:-1], -1) for (term, rows), part in zip(inputs.items(), parts, strict=True)}
    return student.head(embeddings), raw


def compute_losses(
    section: config.PretrainRun,
    centres: dict[str, Tensor],
    student: Tensor,
    teacher: dict[str, Tensor],
    targets: Targets,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The three losses of a batch (paper, eq. 1, 2, 4), of the logits that `forward` gave, in single precision.

    Gives each loss, zero for a term without targets, and the mean entropy of the teacher's targets of each term, nan
    for a term without any.
    """
    G, out_dim = section.n_global_crops, section.out_dim
    log_p = F.log_softmax(student / section.student_temperature, dim=-1)
    log_p = log_p.view(-1, len(teacher["self"]) // G, out_dim)
    wanted = {
        term: losses.teacher_targets(logits, centres[term], section.teacher_temperature)
        for term, logits in teacher.items()
    }
    found = dict.fromkeys(TERMS, log_p.new_zeros(()))
    entropies = dict.fromkeys(TERMS, log_p.new_full((), torch.nan))
    found["self"] = losses.self_loss(wanted["self"].view(G, -1, out_dim), log_p)
    for term, (_, weights) in targets.items():
        found[term] = prototype_loss(wanted[term], log_p, weights)
    for term, rows in wanted.items():
        counts = targets[term][1] if term in targets else rows.new_ones(rows.shape[:-1])
        entropies[term] = losses.mean_entropy(rows, counts)
    return found, entropies


def move_centres(networks: Networks, teacher: dict[str, Tensor], targets: Targets, momentum: float) -> None:
    """Move each term's centre towards the teacher's logits of this batch; prototypes that do not exist do not count."""
    for term, logits in teacher.items():
        move_centre(networks, term, logits, targets[term][1] if term in targets else None, momentum)
