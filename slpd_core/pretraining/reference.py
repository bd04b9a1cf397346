"""SLPD in plain torch, to be read: Algorithm 1 and equations 1 to 4 of Yu, Lin and Xu (MICCAI 2023).

The pipeline trains by `stage_two.py` and `objective.py`, which compute the same in blocks; tests hold them against this
page. Letters: N slides, R regions, M prototypes of a slide, K neighbors, B regions of a batch, D embedding, O outputs.
A network is an `encoder`, z = f(x), and a projection `head` g; H(a, b) = −a log b.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(a: Tensor, logits: Tensor) -> Tensor:
    """Return H(a, b) = −a log b of targets `a` and b = softmax(logits): (..., O) twice → (...)."""
    return -(a * F.log_softmax(logits, dim=-1)).sum(-1)


def self_loss(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return L_self, eq. 1: E H(g_t(ẑ), g_s(z)) over pairs of different crops; a, b: of each crop (B, O)."""
    return torch.stack([cross_entropy(q, p).mean() for i, q in enumerate(a) for j, p in enumerate(b) if i != j]).mean()


def prototype_loss(a: Tensor, b: Sequence[Tensor], exists: Tensor, *, skip_crop_k: bool = False) -> Tensor:
    """Return L_intra, eq. 2, of a target g_t(c), or L_inter, eq. 4, of K: E 1/K Σ_k H(g_t(ĉ_k), g_s(z)).

    a: (B, K, O). exists: bool (B, K). skip_crop_k: compare target k with all crops but the k-th (the authors' code).
    """
    H = [[cross_entropy(q, p) for j, p in enumerate(b) if not skip_crop_k or j != k] for k, q in enumerate(a.unbind(1))]
    mean_H = torch.stack([torch.stack(of_crops).mean(0) for of_crops in H], dim=1)  # (B, K)
    per_region = (mean_H * exists).sum(1) / exists.sum(1).clamp(min=1)  # 1/K Σ_k
    return per_region[exists.any(1)].mean() if exists.any() else 0 * per_region.sum()


def similarity(c_i: Tensor, c_j: Tensor) -> tuple[float, tuple[int, ...]]:
    """Return D(w_i, w_j) = max over σ of 1/M Σ_m cos(c_i^m, c_j^σ(m)), and σ*, eq. 3; c_i, c_j: (M, D)."""
    cos, m = F.normalize(c_i, dim=1) @ F.normalize(c_j, dim=1).T, torch.arange(len(c_i))
    return max((float(cos[m, torch.tensor(sigma)].mean()), sigma) for sigma in permutations(m.tolist()))


def lloyd(z: Tensor, starts: Sequence[Tensor], iterations: int) -> tuple[Tensor, Tensor]:
    """Return centers (M, D) and each row's center (L,): Lloyd's algorithm, best of some starts, rows (M,) of z."""
    results = []
    for start in starts:
        c = z[start]
        for _ in range(iterations):
            nearest = torch.cdist(z, c).argmin(1)
            c = torch.stack([z[nearest == m].mean(0) for m in range(len(c))])
        distance, nearest = torch.cdist(z, c).min(1)
        results.append((float((distance**2).sum()), c, nearest))
    return min(results, key=lambda result: result[0])[1:]


@dataclass
class SLPD:
    """Student, teacher and what Algorithm 1 moves. tokens: (R, grid, grid, C); slide_of: (R,), each region's slide."""

    student: Any
    tokens: Tensor
    slide_of: Tensor
    M: int = 4
    K: int = 1
    alpha_intra: float = 1.0
    alpha_inter: float = 1.0
    n_global_crops: int = 2
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9
    clip_norm: float = 3.0
    kmeans_iterations: int = 10
    prototype_start_epoch: int = 0
    freeze_last_layer_epochs: int = 1
    skip_crop_k: bool = False

    def __post_init__(self) -> None:
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.center = dict.fromkeys(("self", "intra", "inter"), 0 * self.student.head.last_layer.detach()[:, 0])
        every = [*self.student.parameters()]
        decayed: dict[str, Any] = {"params": [p for p in every if p.ndim > 1]}
        self.optimizer = torch.optim.AdamW([decayed, {"params": [p for p in every if p.ndim == 1], "weight_decay": 0}])

    def train(
        self,
        epochs: int,
        draw_batches: Callable[[int], Sequence[Tensor]],
        draw_crops: Callable[[Tensor, int, int], Sequence[Tensor]],
        draw_starts: Callable[[int, int, int], Sequence[Tensor]],
        schedule: Callable[[int, int], tuple[float, float, float]],
    ) -> None:
        """Run Algorithm 1; randomness and schedules are arguments: a batch is rows (B,), a crop (B, side, side, C)."""
        for epoch in range(epochs):
            clustered = epoch >= self.prototype_start_epoch
            if clustered:  # slide-level clustering, then the matching of slides
                self.cluster(epoch, draw_starts)
                self.assign_targets()
            for step, regions in enumerate(draw_batches(epoch)):
                losses = self.losses(regions, draw_crops(regions, epoch, step), clustered=clustered)
                self.update(losses["loss"], *schedule(epoch, step), freeze=epoch < self.freeze_last_layer_epochs)

    @torch.no_grad()
    def embed(self) -> Tensor:
        """Return what is clustered, z of every region by the teacher: (R, D)."""
        z: Tensor = self.teacher.encoder(self.tokens)
        return z

    def cluster(self, epoch: int, draw_starts: Callable[[int, int, int], Sequence[Tensor]]) -> None:
        """Cluster the regions of each slide n into M prototypes: c[n] (M, D); m (R,), each region's prototype."""
        self.z, self.c, self.m = self.embed(), dict[int, Tensor](), torch.full_like(self.slide_of, -1)
        for n in self.slide_of.unique().tolist():
            rows = (self.slide_of == n).nonzero()[:, 0]
            if len(rows) >= self.M:
                starts = draw_starts(epoch, n, len(rows))
                self.c[n], self.m[rows] = lloyd(self.z[rows], starts, self.kmeans_iterations)

    def assign_targets(self) -> None:
        """Set each region's targets (R, 1 + K, D): its prototype c, and the matches ĉ_k of c in K slides."""
        self.targets = self.z.new_zeros(len(self.z), 1 + self.K, self.z.shape[1])
        self.exists = torch.zeros(self.targets.shape[:2], dtype=torch.bool)
        for n, c in self.c.items():
            near = sorted((*similarity(c, other), j) for j, other in self.c.items() if j != n)[::-1][: self.K]
            for region in (self.slide_of == n).nonzero()[:, 0].tolist():
                m = int(self.m[region])
                matched = [self.c[j][sigma[m]] for _, sigma, j in near]  # ĉ_k = c_j^σ*(m)
                self.targets[region, : 1 + len(near)] = torch.stack([c[m], *matched])
                self.exists[region, : 1 + len(near)] = True

    def losses(self, regions: Tensor, crops: Sequence[Tensor], *, clustered: bool = True) -> dict[str, Tensor]:
        """Return L_total = L_self + α1 L_intra + α2 L_inter of a batch, and its terms; the global crops come first."""
        b = [self.student(crop) / self.student_temperature for crop in crops]
        with torch.no_grad():
            logits = torch.stack([self.teacher(crop) for crop in crops[: self.n_global_crops]], dim=1)
        a = self.sharpen("self", logits, logits.new_ones(logits.shape[:2]) > 0)
        losses = {"self": self_loss(a.unbind(1), b)}  # eq. 1
        for term, k in {"intra": slice(0, 1), "inter": slice(1, None)}.items() if clustered else ():  # eq. 2, eq. 4
            c, exists = self.targets[regions, k], self.exists[regions, k]
            a = self.sharpen(term, self.project(c), exists)
            losses[term] = prototype_loss(a, b, exists, skip_crop_k=self.skip_crop_k)
        alpha = {"self": 1.0, "intra": self.alpha_intra, "inter": self.alpha_inter}
        return losses | {"loss": torch.stack([alpha[term] * loss for term, loss in losses.items()]).sum()}

    @torch.no_grad()
    def project(self, c: Tensor) -> Tensor:
        """Return g_t(c): (..., D) → (..., O)."""
        logits: Tensor = self.teacher.head(c)
        return logits

    def sharpen(self, term: str, logits: Tensor, exists: Tensor) -> Tensor:
        """Return the targets softmax((logits − center) / τ_t), then move the term's center (DINO, eq. 4)."""
        a: Tensor = ((logits - self.center[term]) / self.teacher_temperature).softmax(-1)
        if exists.any():
            batch = logits[exists].mean(0)
            self.center[term] = self.center_momentum * self.center[term] + (1 - self.center_momentum) * batch
        return a

    def update(self, loss: Tensor, lr: float, weight_decay: float, momentum: float, *, freeze: bool) -> None:
        """Move the student by AdamW, each gradient clipped by itself, then the teacher: θ_t ← λ θ_t + (1 − λ) θ_s."""
        self.optimizer.zero_grad()
        loss.backward()
        if freeze:
            self.student.head.last_layer.grad = None
        for gradient in (p.grad for p in self.student.parameters() if p.grad is not None):
            gradient *= min(1.0, self.clip_norm / (float(gradient.norm()) + 1e-6))
        self.optimizer.param_groups[0].update(lr=lr, weight_decay=weight_decay)
        self.optimizer.param_groups[1].update(lr=lr)
        self.optimizer.step()
        with torch.no_grad():
            for theta_t, theta_s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                theta_t.copy_(momentum * theta_t + (1 - momentum) * theta_s)
