"""The objective of stage two, L_total = L_self + α₁ L_intra + α₂ L_inter (paper, eq. 1, 2, 4), with its gradients.

With the defaults `reference.SLPD.losses` is the same in plain torch; here regions go through the networks in blocks.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core.pretraining.blocks import in_blocks
from slpd_core.pretraining.targets import BatchTargets, InterTarget
from slpd_core.ssl import distributed, losses
from slpd_core.ssl.half_weights import half_weights
from slpd_core.ssl.losses import LogitFactors
from slpd_core.ssl.student_teacher import StudentTeacher, autocast

TERMS = ("self", "intra", "inter")
# Of each term the loss, and the entropy of the teacher's targets, as the history names them.
LOSS_NAMES = {term: f"loss_{term}" for term in TERMS}
ENTROPIES = {"self": "teacher_entropy", "intra": "entropy_intra", "inter": "entropy_inter"}
METRICS = ("loss", *LOSS_NAMES.values(), "koleo", *ENTROPIES.values())


@dataclass(frozen=True)
class Batch:
    """A batch of B regions, or this process's share of it, on the device.

    Attributes:
        views: Global crops (G, B, g, g, C) and local crops (n, B, l, l, C).
        targets: Of the terms whose weight is not 0; empty for L_self alone.
    """

    views: list[Tensor]
    targets: BatchTargets

    def __len__(self) -> int:
        """Return the number of regions."""
        return self.views[0].shape[1]

    def tensors(self) -> list[Tensor]:
        """List crops and targets.

        Returns:
            Views, then vectors and existence of each term's targets.
        """
        return [*self.views, *(tensor for pair in self.targets.values() for tensor in pair)]


@dataclass(frozen=True)
class TeacherOutput:
    """All T targets per region of a batch, term after term.

    Attributes:
        logits: Factors of the teacher's logits, (B, T, d) and (O, d).
        centers: (T, O), as they were before the batch moved them.
        exists: Term -> (B, its targets), 1 where there is a target, else 0.
        pair_weights: Term -> (B, its targets, crops), of each pair of a target and a student crop in the term's loss.
    """

    logits: LogitFactors
    centers: Tensor
    exists: dict[str, Tensor]
    pair_weights: dict[str, Tensor]


@dataclass(frozen=True)
class SlpdObjective:
    """The objective of SLPD; the defaults are the paper's.

    Attributes:
        alpha_intra: α₁, weight of L_intra.
        alpha_inter: α₂, weight of L_inter.
        inter_target: Target of L_inter: the matched prototype of each nearest slide, the nearest region of each, or
            the nearest regions of all other slides (Table 2).
        cluster_space: Space of the prototypes: embeddings, or the head's bottleneck (authors' code).
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        center_momentum: Of the moving average.
        shared_center: Whether L_intra and L_inter share a center, which each of them moves (authors' code).
        skip_crop_k: Whether to skip the pair of crop k and target k (authors' code).
        koleo_weight: Of KoLeo, which keeps embeddings apart (DINOv2).
    """

    alpha_intra: float = 1.0
    alpha_inter: float = 1.0
    inter_target: InterTarget = "prototype"
    cluster_space: Literal["embedding", "bottleneck"] = "embedding"
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9
    shared_center: bool = False
    skip_crop_k: bool = False
    koleo_weight: float = 0.0

    @property
    def center_of(self) -> dict[str, str]:
        """Name of each term's center."""
        return {term: "prototypes" if self.shared_center and term != "self" else term for term in TERMS}

    @property
    def alphas(self) -> dict[str, float]:
        """Weight of each term in the loss: 1, α₁ and α₂."""
        return {"self": 1.0, "intra": self.alpha_intra, "inter": self.alpha_inter}

    def backward(self, networks: StudentTeacher, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch, backpropagate into the student and update the centers.

        Regions go through the networks block by block, in the memory of one: losses and gradients are sums over
        regions. KoLeo looks for neighbors in the whole batch, which then is one block.

        Args:
            networks: Student and teacher; the student gets the gradients, the centers move in place.
            batch: Crops and targets.

        Returns:
            METRICS, each (): a loss without targets is 0, the entropy of targets that no region has is nan.
        """
        teacher = self.teacher_output(networks, batch)
        learn = partial(self._student_backward, networks, batch, teacher)
        output = learn(len(batch)) if self.koleo_weight else in_blocks(learn, len(batch), networks.device)
        return self._metrics(teacher, *output)

    def _student_backward(
        self, networks: StudentTeacher, batch: Batch, teacher: TeacherOutput, block_regions: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Set the student's gradients; return cross-entropies (B, T, crops), entropies (B, T) and KoLeo."""
        student, device = networks.student, networks.device
        student.zero_grad()
        output_weight, terms = student.head.normalized_weight(), teacher.pair_weights.items()
        pair_weights = torch.cat([self.alphas[term] * weights for term, weights in terms], 1).to(output_weight.dtype)
        output_weight_leaf = output_weight.detach().requires_grad_(output_weight.requires_grad)
        n_global, outputs, global_embeddings = len(batch.views[0]), [], []
        for first in range(0, len(batch), block_regions):
            b = slice(first, first + block_regions)
            with autocast(networks.dtype, device), half_weights(student, networks.dtype):
                crops = [view[:, b].flatten(0, 1) for view in batch.views if len(view)]
                z = torch.cat([student.encoder(crop) for crop in crops])
                vectors = student.head.bottleneck(z)
            vectors = vectors.view(-1, len(pair_weights[b]), vectors.shape[1]).transpose(0, 1)
            g_s, g_t = LogitFactors(vectors, output_weight_leaf, self.student_temperature), teacher.logits.select(b)
            # Σ H(g_t(ẑ), g_s(z)) of eq. 1, Σ H(g_t(c), g_s(z)) of eq. 2, Σ H(g_t(ĉ_k), g_s(z)) of eq. 4, all at once.
            output = losses.chunked_cross_entropy(g_s, g_t, teacher.centers, pair_weights[b], networks.dtype)
            loss, global_z = output.loss, z[: n_global * len(vectors)]
            if self.koleo_weight:
                koleo = losses.koleo_of_crops(global_z, n_global)
                loss = loss + self.koleo_weight * koleo
            networks.scaler.scale(loss).backward()
            global_embeddings.append(global_z.detach().view(n_global, len(vectors), -1))
            outputs.append((output.cross_entropy, output.entropy))
        if output_weight_leaf.grad is not None:
            output_weight.backward(output_weight_leaf.grad)
        if not self.koleo_weight:  # logged all the same
            koleo = losses.koleo_of_crops(torch.cat(global_embeddings, 1).flatten(0, 1), n_global)
        cross_entropy, entropy = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return cross_entropy, entropy, koleo.detach()

    def teacher_output(self, networks: StudentTeacher, batch: Batch) -> TeacherOutput:
        """Run the teacher on a batch and update the centers.

        Term by term, a center is moved when its targets are taken: of a shared one, the next term sees it moved, as in
        the authors' code.

        Args:
            networks: Teacher and centers.
            batch: Crops and targets.

        Returns:
            The targets of all terms.
        """
        embed = partial(teacher_vectors, networks, batch, cluster_space=self.cluster_space)
        vectors = in_blocks(embed, len(batch), networks.device)
        output_weight = networks.teacher.head.normalized_weight()
        exists = {"self": torch.ones_like(vectors["self"][..., 0])}
        exists |= {term: exists_of_term for term, (_, exists_of_term) in batch.targets.items()}
        centers = []
        for term, rows in vectors.items():
            center = networks.centers[self.center_of[term]]
            centers.append(center.clone().expand(rows.shape[1], -1))
            center.copy_(losses.update_center(center, rows, output_weight, exists[term], self.center_momentum))
        logits = LogitFactors(torch.cat([*vectors.values()], 1), output_weight, self.teacher_temperature)
        return TeacherOutput(logits, torch.cat(centers), exists, weight_pairs(batch, skip_crop_k=self.skip_crop_k))

    def _metrics(
        self, teacher: TeacherOutput, cross_entropy: Tensor, entropy: Tensor, koleo: Tensor
    ) -> dict[str, Tensor]:
        """Sum up cross-entropies (B, T, crops) and entropies (B, T) term by term."""
        metrics = dict.fromkeys(METRICS, cross_entropy.new_zeros(()))
        metrics |= dict.fromkeys(ENTROPIES.values(), cross_entropy.new_full((), torch.nan))
        sizes = [weights.shape[1] for weights in teacher.pair_weights.values()]
        terms = zip(teacher.pair_weights.items(), cross_entropy.split(sizes, 1), entropy.split(sizes, 1), strict=True)
        for (term, weights), H, entropies in terms:
            metrics[LOSS_NAMES[term]] = (weights * H).sum()
            metrics[ENTROPIES[term]] = losses.masked_mean(entropies, teacher.exists[term])
        metrics["koleo"] = koleo
        metrics["loss"] = sum(
            (self.alphas[term] * metrics[LOSS_NAMES[term]] for term in teacher.pair_weights), self.koleo_weight * koleo
        )
        return metrics


def teacher_vectors(
    networks: StudentTeacher,
    batch: Batch,
    block_crops: int,
    *,
    cluster_space: Literal["embedding", "bottleneck"] = "embedding",
) -> dict[str, Tensor]:
    """Compute what a batch is distilled from, in the teacher's bottleneck.

    Args:
        networks: The teacher.
        batch: Crops and targets.
        block_crops: That go through the teacher at a time.
        cluster_space: Space of the targets.

    Returns:
        Term -> (B, targets, d), of length one: ẑ of the global crops for L_self, c for L_intra, ĉ_k for L_inter.
    """
    teacher, views = networks.teacher, batch.views[0]
    with torch.no_grad(), autocast(networks.dtype, views.device), half_weights(teacher, networks.dtype):
        parts = views.flatten(0, 1).split(block_crops)
        crop_vectors = torch.cat([teacher.head.bottleneck(teacher.encoder(part)) for part in parts])
        vectors = {"self": crop_vectors.view(*views.shape[:2], -1).transpose(0, 1)}
        for term, (values, _) in batch.targets.items():
            in_bottleneck = cluster_space == "bottleneck"
            vectors[term] = F.normalize(values, dim=-1) if in_bottleneck else teacher.head.bottleneck(values)
    return vectors


def weight_pairs(batch: Batch, *, skip_crop_k: bool = False) -> dict[str, Tensor]:
    """Weight the pairs of a target and a student crop, so that a term's loss is a sum over pairs.

    L_self: the mean over pairs of different crops and over the batch (eq. 1). L_intra and L_inter: the mean over a
    region's targets (1/K Σ_k of eq. 4), over the crops, and over the regions that have a target (eq. 2, 4).

    Args:
        batch: Crops and targets; of several processes a share each, whose mean is that of the whole batch.
        skip_crop_k: Whether to skip the pair of crop k and target k.

    Returns:
        Term -> (B, targets, crops); each sums to 1 over the batch, or to 0 where no region has a target.
    """
    B, device, (G, crops) = len(batch), batch.views[0].device, (len(batch.views[0]), sum(map(len, batch.views)))
    pair_weights = {"self": losses.cross_view_weights(G, crops, device).expand(B, G, crops) / B}
    for term, (_, exists) in batch.targets.items():
        count = exists.sum(1, keepdim=True)
        n_regions = (count > 0).sum().float()
        distributed.all_reduce_sum(n_regions)
        share = exists / count.clamp(min=1) * distributed.world_size() / n_regions.clamp(min=1)
        compared = torch.ones(exists.shape[1], crops, device=device)
        if skip_crop_k:
            compared.fill_diagonal_(0)
        pair_weights[term] = share[:, :, None] * compared / compared.sum(1, keepdim=True)
    return pair_weights
