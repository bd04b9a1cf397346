"""Losses: cross-entropies H(a, b) = −a log b of teacher targets and student crops, their center (DINO), KoLeo.

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
    """Factors of a network's logits: products of vectors and outputs, over a temperature.

    Attributes:
        vectors: (B, rows, d), of length one: rows per image.
        outputs: (O, d), of length one, so that products are cosines.
        temperature: τ.
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
    """A loss, and without gradients its parts.

    Attributes:
        loss: ().
        cross_entropy: (B, T, n), of each target and crop.
        entropy: (B, T), of each target, in nats.
    """

    loss: Tensor
    cross_entropy: Tensor
    entropy: Tensor


def chunked_cross_entropy(
    student: LogitFactors,
    teacher: LogitFactors,
    centers: Tensor,
    pair_weights: Tensor,
    dtype: torch.dtype = torch.float32,
) -> DistillationOutput:
    """Compute the weighted sum of H(g_t, g_s) over pairs of teacher targets and student crops of the same image.

    g_t = softmax((teacher − center) / τ_t), g_s = softmax(student / τ_s), H(a, b) = −a log b (paper, eq. 1, 2, 4; DINO,
    eq. 2). A cross-entropy is linear in its target, so a crop's targets are summed before they meet it.

    Args:
        student: n crops per image.
        teacher: T targets per image, without gradients.
        centers: (T, O), of the teacher's cosines (DINO, sec. 3.1).
        pair_weights: (B, T, n).
        dtype: Compute dtype of the networks. With half precision the factors of a product may be rounded, but logits
            stay in float32: over a temperature of 0.04, the rounding of a cosine near one would show in the targets.

    Returns:
        The loss and its parts.
    """
    before = torch.get_float32_matmul_precision()
    try:
        if dtype is not torch.float32:
            torch.set_float32_matmul_precision("medium")  # factors in bfloat16 on a CPU that has it, TF32 on a GPU
        return DistillationOutput(*_ChunkedCrossEntropy.apply(*student, teacher, centers, pair_weights))
    finally:
        torch.set_float32_matmul_precision(before)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradient with the loss: logits kept for later would fill the memory."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        outputs: Tensor,
        temperature: float,
        teacher: LogitFactors,
        centers: Tensor,
        pair_weights: Tensor,
    ) -> tuple[Tensor, ...]:
        (B, T, n), out_dim = pair_weights.shape, len(outputs)
        cross_entropy, entropy = torch.empty_like(pair_weights), pair_weights.new_empty(B, T)
        gradient = torch.empty_like(vectors)
        of_outputs = torch.zeros_like(outputs) if ctx.needs_input_grad[1] else None
        counts = pair_weights.sum(1)
        share = pair_weights / counts.clamp(min=torch.finfo(pair_weights.dtype).tiny)[:, None]
        weighted = vectors * (counts / temperature)[:, :, None]
        size = max(1, BLOCK_LOGITS[vectors.device.type] // ((n + 2 * T) * out_dim))
        for first in range(0, B, size):
            b = slice(first, first + size)
            student = LogitFactors(vectors[b], outputs, temperature)
            cross_entropy[b], entropy[b], towards = _block(student, teacher.select(b), centers, share[b])
            gradient[b] = (towards @ outputs).view(-1, n, outputs.shape[1])
            if of_outputs is not None:
                of_outputs.addmm_(towards.T, weighted[b].flatten(0, 1))
            del towards
        gradient *= (counts / temperature)[:, :, None]
        ctx.save_for_backward(gradient, of_outputs)
        ctx.mark_non_differentiable(cross_entropy, entropy)
        return (pair_weights * cross_entropy).sum(), cross_entropy, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, of_outputs = ctx.saved_tensors
        return gradient * loss, None if of_outputs is None else of_outputs * loss, None, None, None, None


def _block(
    student: LogitFactors, teacher: LogitFactors, centers: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute cross-entropies (b, T, n), targets' entropies (b, T) and p − Σ share q (b * n, O); share: (b, T, n)."""
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


def cross_view_weights(targets: int, crops: int, device: torch.device | None = None) -> Tensor:
    """Weight the pairs of L_self: each crop with all global crops but itself (DINO, eq. 3; paper, eq. 1).

    Args:
        targets: Global crops.
        crops: All crops; the global ones come first.
        device: Of the weights.

    Returns:
        (targets, crops), of sum 1.
    """
    weights = 1 - torch.eye(targets, crops, device=device)
    return weights / weights.sum()


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Average over all processes the values that count.

    Args:
        values: Of any shape.
        weights: Of the same shape, 1 where the value counts, else 0.

    Returns:
        The mean, (); nan where none counts.
    """
    total, count = (values * weights).sum(), weights.sum()
    distributed.all_reduce_sum(total, count)
    return total / count


def update_center(center: Tensor, vectors: Tensor, outputs: Tensor, weights: Tensor, momentum: float) -> Tensor:
    """Move a center towards the mean of the teacher's cosines over all processes (DINO, eq. 4).

    Cosines are linear in the vectors, so their mean is that of the mean vector.

    Args:
        center: (O,).
        vectors: (..., d).
        outputs: (O, d).
        weights: (...), 1 for a row that counts, else 0.
        momentum: Of the moving average.

    Returns:
        (O,), unchanged where no row counts.
    """
    count, total = weights.sum(), torch.einsum("...,...d->d", weights, vectors)
    distributed.all_reduce_sum(count, total)
    mean = outputs @ (total / count.clamp(min=1))
    return torch.where(count > 0, center * momentum + mean * (1 - momentum), center)


def koleo_of_crops(embeddings: Tensor, n_crops: int) -> Tensor:
    """Average `koleo_loss` of the first crop of each image, of the second, and so on (DINOv2).

    Args:
        embeddings: (n_crops * B, D), crop after crop.
        n_crops: Per image.

    Returns:
        The loss, ().
    """
    return torch.stack([koleo_loss(crop) for crop in embeddings.chunk(n_crops)]).mean()


def koleo_loss(embeddings: Tensor) -> Tensor:
    """Compute the mean of −log of the distance to the nearest neighbor, at unit length.

    Kozachenko & Leonenko's estimate of entropy: keeps embeddings apart (Sablayrolles et al., ICLR 2019; DINOv2).

    Args:
        embeddings: (B, D), this process's share of a batch; neighbors are sought among the rows of all processes.

    Returns:
        The loss, ().
    """
    local = F.normalize(embeddings.float(), dim=-1)
    gathered, first = distributed.all_gather(local)
    similarity = local.detach() @ gathered.detach().T
    similarity.diagonal(first).fill_(-torch.inf)  # each with itself
    distance: Tensor = (local - gathered[similarity.argmax(1)]).norm(dim=-1)
    return -distance.clamp(min=1e-8).log().mean()
