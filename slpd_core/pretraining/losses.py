"""The loss that SLPD adds to DINO's: student crops against prototypes (paper, eq. 2 and 4)."""

import torch
from torch import Tensor

from slpd_core.dino import processes
from slpd_core.dino.losses import cross_entropy


def prototype_loss(targets: Tensor, log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """L_intra or L_inter: every student crop of a region against prototypes (eq. 2 and 4).

    targets: (B, K, out_dim), g_t of K prototypes a region (K = 1 for L_intra). log_probabilities: (crops, B, out_dim).
    weights: (B, K), 1 where the prototype exists, else 0. Averages over a region's prototypes, over the crops and over
    the regions that have a prototype; zero when none has. Several processes have a share of the batch each, and the
    mean of what they get is that of the whole batch.
    """
    count = weights.sum(1)
    wanted = torch.einsum("bk,bko->bo", weights / count.clamp(min=1)[:, None], targets)
    loss = cross_entropy(wanted, log_probabilities).mean(0)
    has = (count > 0).to(loss.dtype)
    regions = has.sum()
    processes.add_up(regions)
    return (loss * has).sum() * processes.count() / regions.clamp(min=1)
