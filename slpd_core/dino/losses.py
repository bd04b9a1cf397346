"""Cross-entropies H(a, b) = −a log b of teacher targets and student crops, the centre of the targets (DINO), KoLeo.

A cross-entropy is linear in its target, so the targets of a crop are summed first and the crop's log-softmax, the
costly part, is taken once for all losses.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core.dino import processes


def teacher_targets(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Softmax of the centred, sharpened teacher logits (DINO, sec. 3.1).

    logits: (..., out_dim); centre: (out_dim,).
    """
    return F.softmax((logits - centre) / temperature, dim=-1)


def update_centre(centre: Tensor, logits: Tensor, weights: Tensor, momentum: float) -> Tensor:
    """Move the centre towards the mean teacher logits (DINO, eq. 4); unchanged where no row counts.

    centre: (out_dim,); logits: (..., out_dim); weights: (...), 1 for a row that counts, else 0. The mean is over the
    rows of all processes.
    """
    count, total = weights.sum(), torch.einsum("...,...o->o", weights, logits)
    processes.add_up(count, total)
    mean = total / count.clamp(min=1)
    return torch.where(count > 0, centre * momentum + mean * (1 - momentum), centre)


def cross_entropy(targets: Tensor, log_probabilities: Tensor) -> Tensor:
    """H(a, b) of each row: (..., out_dim), (..., out_dim) → (...), without an array of the products."""
    return -torch.einsum("...o,...o->...", targets, log_probabilities)


def mean_entropy(targets: Tensor, weights: Tensor) -> Tensor:
    """Mean entropy in nats of the targets that count; nan where none does.

    targets: (..., out_dim); weights: (...), 1 for a row that counts, else 0. The mean is over the rows of all
    processes.
    """
    entropy = cross_entropy(targets, targets.clamp(min=1e-30).log())
    total, count = (entropy * weights).sum(), weights.sum()
    processes.add_up(total, count)
    return total / count


def self_loss(targets: Tensor, log_probabilities: Tensor) -> Tensor:
    """L_self: each student crop against the teacher's global crops of the same picture, but not against itself.

    DINO, eq. 3; SLPD, eq. 1.

    targets: (G, B, out_dim), teacher. log_probabilities: (G + local, B, out_dim), student, the G global crops first.
    Gives the mean over all pairs of crops and over the batch.
    """
    G, crops = len(targets), len(log_probabilities)
    all_pairs = cross_entropy(targets.sum(0), log_probabilities).sum(0)
    same_view = cross_entropy(targets, log_probabilities[:G]).sum(0)
    return (all_pairs - same_view).mean() / (G * (crops - 1))


def koleo_of_crops(embeddings: Tensor, n_crops: int) -> Tensor:
    """`koleo_loss` of the first crop of each picture, of the second ..., their mean (DINOv2).

    embeddings: (n_crops * B, D), crop after crop.
    """
    return torch.stack([koleo_loss(crop) for crop in embeddings.chunk(n_crops)]).mean()


def koleo_loss(embeddings: Tensor) -> Tensor:
    """How near each embedding lies to its nearest neighbour: the mean of -log of their distance, both at unit length.

    Kozachenko & Leonenko's estimate of entropy: keeps embeddings apart (Sablayrolles et al., ICLR 2019; DINOv2).

    embeddings: (B, D), this process's share of a batch; neighbours are sought among the rows of all processes.
    """
    own = F.normalize(embeddings.float(), dim=-1)
    everyone, first = processes.gathered(own)
    similarity = own.detach() @ everyone.detach().T
    similarity[torch.arange(len(own)), torch.arange(len(own)) + first] = -torch.inf
    distance = (own - everyone[similarity.argmax(1)]).norm(dim=-1)
    return -distance.clamp(min=1e-8).log().mean()
