"""Cross-entropies H(a, b) = −a log b of teacher targets and student crops, the center of the targets (DINO), KoLeo.

With 65,536 outputs the logits of a batch are what fills memory and, passed over again and again, what costs time. So
every loss here is one weighted sum of cross-entropies, and it is taken with its gradient a block of logits at a time.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from slpd_core.ssl import distributed

BLOCK_LOGITS = {"cpu": 2**26, "cuda": 2**28}  # that are worked on at a time; memory holds them twice for a moment


class LogitFactors(NamedTuple):
    """Logits of a network, not multiplied out yet: the products of vectors and outputs, over a temperature.

    vectors: (B, rows, d), some a picture. outputs: (O, d). Both of length one, so that products are cosines.
    """

    vectors: Tensor
    outputs: Tensor
    temperature: float

    def select(self, rows: slice) -> "LogitFactors":
        """Select those of some images.

        Args:
            rows: Of the batch.

        Returns:
            The same for these alone.
        """
        return self._replace(vectors=self.vectors[rows])


class DistillationOutput(NamedTuple):
    """A loss, and without gradients what it is made of.

    loss: (). cross_entropy: (B, T, n), of each target and crop. entropy: (B, T), of each target, in nats.
    """

    loss: Tensor
    cross_entropy: Tensor
    entropy: Tensor


def chunked_cross_entropy(
    student: LogitFactors, teacher: LogitFactors, centers: Tensor, pairs: Tensor, dtype: torch.dtype = torch.float32
) -> DistillationOutput:
    """The sum of H(softmax(teacher − center), softmax(student)) over pairs of targets and crops of the same picture.

    student: n crops a picture; teacher: T targets, without gradients. centers: (T, O), of the teacher's cosines (DINO,
    sec. 3.1). pairs: (B, T, n), how much each pair counts. dtype: of what the networks multiply; if it is of half
    precision, what is multiplied here may be rounded too, but never a product: over a temperature of 0.04, the rounding
    of a cosine near one would show in the targets.

    A cross-entropy is linear in its target, so a crop's targets are summed before they meet it.
    """
    before = torch.get_float32_matmul_precision()
    try:
        if dtype is not torch.float32:
            torch.set_float32_matmul_precision("medium")  # factors in bfloat16 on a CPU that has it, TF32 on a GPU
        return DistillationOutput(*_Distil.apply(*student, teacher, centers, pairs))
    finally:
        torch.set_float32_matmul_precision(before)


class _Distil(torch.autograd.Function):
    """The gradient is found with the loss: keeping the logits for later would keep all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        outputs: Tensor,
        temperature: float,
        teacher: LogitFactors,
        centers: Tensor,
        pairs: Tensor,
    ) -> tuple[Tensor, ...]:
        (B, T, n), out_dim = pairs.shape, len(outputs)
        cross_entropy, entropy = torch.empty_like(pairs), pairs.new_empty(B, T)
        gradient = torch.empty_like(vectors)
        of_outputs = torch.zeros_like(outputs) if ctx.needs_input_grad[1] else None
        counts = pairs.sum(1)
        share = pairs / counts.clamp(min=torch.finfo(pairs.dtype).tiny)[:, None]
        weighted = vectors * (counts / temperature)[:, :, None]
        size = max(1, BLOCK_LOGITS[vectors.device.type] // ((n + 2 * T) * out_dim))
        for first in range(0, B, size):
            b = slice(first, first + size)
            own = LogitFactors(vectors[b], outputs, temperature), teacher.select(b)
            cross_entropy[b], entropy[b], towards = _block(*own, centers, share[b])
            gradient[b] = (towards @ outputs).view(-1, n, outputs.shape[1])
            if of_outputs is not None:
                of_outputs.addmm_(towards.T, weighted[b].flatten(0, 1))
            del towards
        gradient *= (counts / temperature)[:, :, None]
        ctx.save_for_backward(gradient, of_outputs)
        ctx.mark_non_differentiable(cross_entropy, entropy)
        return (pairs * cross_entropy).sum(), cross_entropy, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, of_outputs = ctx.saved_tensors
        return gradient * loss, None if of_outputs is None else of_outputs * loss, None, None, None, None


def _block(
    student: LogitFactors, teacher: LogitFactors, centers: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of some pictures the cross-entropies (b, T, n), the targets' entropies (b, T) and the direction of the gradient.

    share: (b, T, n), how much of a crop's target is which. The direction is p − Σ share q, (b * n, out_dim).
    """
    (b, T, n), out_dim = share.shape, len(student.outputs)
    cosine = teacher.vectors.flatten(0, 1) @ teacher.outputs.T
    log_q = cosine.view(b, T, out_dim).sub_(centers).div_(teacher.temperature).log_softmax(-1)
    del cosine
    q = log_q.exp()
    entropy = -torch.einsum("bto,bto->bt", q, log_q)
    del log_q
    logits = (student.vectors / student.temperature).flatten(0, 1) @ student.outputs.T
    log_p = logits.view(b, n, out_dim).log_softmax(-1)
    del logits
    cross_entropy = -(q @ log_p.transpose(1, 2))
    return cross_entropy, entropy, log_p.exp_().baddbmm_(share.transpose(1, 2), q, alpha=-1).flatten(0, 1)


def cross_view_weights(targets: int, crops: int) -> Tensor:
    """The pairs of L_self (DINO, eq. 3; SLPD, eq. 1): each crop with all global crops but itself, (targets, crops).

    The teacher's targets are of the global crops, which are the first of the student's. A mean over the pairs.
    """
    pairs = 1 - torch.eye(targets, crops)
    return pairs / pairs.sum()


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of the values whose weight is 1, not 0, over all processes; nan where none is."""
    total, count = (values * weights).sum(), weights.sum()
    distributed.all_reduce_sum(total, count)
    return total / count


def update_center(center: Tensor, vectors: Tensor, outputs: Tensor, weights: Tensor, momentum: float) -> Tensor:
    """Move the center towards the mean teacher cosines (DINO, eq. 4); unchanged where no row counts.

    center: (O,); vectors: (..., d); outputs: (O, d); weights: (...), 1 for a row that counts, else 0. The mean is over
    the rows of all processes; the cosines being linear in the vectors, it is those of the mean vector.
    """
    count, total = weights.sum(), torch.einsum("...,...d->d", weights, vectors)
    distributed.all_reduce_sum(count, total)
    mean = outputs @ (total / count.clamp(min=1))
    return torch.where(count > 0, center * momentum + mean * (1 - momentum), center)


def koleo_of_crops(embeddings: Tensor, n_crops: int) -> Tensor:
    """`koleo_loss` of the first crop of each picture, of the second ..., their mean (DINOv2).

    embeddings: (n_crops * B, D), crop after crop.
    """
    return torch.stack([koleo_loss(crop) for crop in embeddings.chunk(n_crops)]).mean()


def koleo_loss(embeddings: Tensor) -> Tensor:
    """How near each embedding lies to its nearest neighbor: the mean of -log of their distance, both at unit length.

    Kozachenko & Leonenko's estimate of entropy: keeps embeddings apart (Sablayrolles et al., ICLR 2019; DINOv2).

    embeddings: (B, D), this process's share of a batch; neighbors are sought among the rows of all processes.
    """
    own = F.normalize(embeddings.float(), dim=-1)
    everyone, first = distributed.all_gather(own)
    similarity = own.detach() @ everyone.detach().T
    similarity.diagonal(first).fill_(-torch.inf)  # each with itself
    distance = (own - everyone[similarity.argmax(1)]).norm(dim=-1)
    return -distance.clamp(min=1e-8).log().mean()
