"""SLPD in plain torch, to be read beside the paper: Algorithm 1 and equations 1 to 4 (Yu, Lin and Xu, MICCAI 2023).

The pipeline computes the same in blocks, by `stage_two.py` and `objective.py`; tests hold them against this page.
R regions, M prototypes per slide, K neighbors, D embedding, O outputs; a network is an `encoder` f, z = f(x), and a
`head` g. Equations are of one region, or of many at once; the expectation E over regions is taken in `SLPD.losses`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Crops = Sequence[Tensor] | Tensor


def mean(losses: Iterable[Tensor]) -> Tensor:
    """Return the mean of losses of one shape."""
    return torch.stack([*losses]).mean(0)


def cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    """Return H(a, b) = −a log b of targets `a` and the softmax of logits `b`: (..., O) → (...)."""
    return -(a * F.log_softmax(b, dim=-1)).sum(-1)


def self_loss(a: Crops, b: Crops) -> Tensor:
    """Return L_self, eq. 1: the mean H(g_t(ẑ), g_s(z)) of different crops; `a` of the global crops, `b` of all."""
    return mean(cross_entropy(q, p) for i, q in enumerate(a) for j, p in enumerate(b) if i != j)


def intra_loss(a: Tensor, b: Crops) -> Tensor:
    """Return L_intra, eq. 2: the mean H(g_t(c), g_s(z)) over crops; `a` of the region's prototype c."""
    return mean(cross_entropy(a, p) for p in b)


def similarity(c_i: Tensor, c_j: Tensor) -> tuple[float, tuple[int, ...]]:
    """Return D(w_i, w_j) = max over σ of 1/M Σ_m cos(c_i^m, c_j^σ(m)), and σ*, eq. 3; c_i, c_j: (M, D)."""
    cos, m = F.normalize(c_i, dim=1) @ F.normalize(c_j, dim=1).T, range(len(c_i))
    return max((float(cos[m, sigma].mean()), sigma) for sigma in permutations(m))


def inter_loss(a: Crops, b: Crops) -> Tensor:
    """Return L_inter, eq. 4: 1/K Σ_k H(g_t(ĉ_k), g_s(z)); `a` of the matched prototypes ĉ_k in K slides."""
    return mean(intra_loss(q, b) for q in a)


def lloyd(z: Tensor, starts: Iterable[Tensor], iterations: int) -> tuple[Tensor, Tensor]:
    """Return centers (M, D) and each row's center (L,): Lloyd's k-means, the best of some starts, rows (M,) of z."""
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
    """Algorithm 1; tokens: (R, grid, grid, C), slide_of: (R,). Randomness and schedules are arguments of `train`."""

    student: Any
    tokens: Tensor
    slide_of: Tensor
    M: int = 4
    K: int = 1
    alpha_intra: float = 1.0
    alpha_inter: float = 1.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9
    clip_norm: float = 3.0
    kmeans_iterations: int = 10
    freeze_last_layer_epochs: int = 1

    def __post_init__(self) -> None:
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.center = dict.fromkeys(("self", "intra", "inter"), torch.zeros(len(self.student.head.last_layer)))
        self.optimizer = torch.optim.AdamW([p for p in self.student.parameters() if p.ndim > 1])
        vectors = [p for p in self.student.parameters() if p.ndim == 1]
        self.optimizer.add_param_group({"params": vectors, "weight_decay": 0.0})

    def train(
        self,
        epochs: int,
        draw_starts: Callable[[int, int, int], Iterable[Tensor]],
        draw_batches: Callable[[int], Iterable[tuple[Tensor, Sequence[Tensor]]]],
        schedule: Callable[[int, int], tuple[float, float, float]],
    ) -> None:
        """Run Algorithm 1; a batch is regions (B,) and their crops, each (B, side, side, C), two global ones first."""
        for epoch in range(epochs):
            self.cluster(epoch, draw_starts)
            self.assign_targets()
            self.student.head.last_layer.requires_grad_(epoch >= self.freeze_last_layer_epochs)
            for step, (regions, crops) in enumerate(draw_batches(epoch)):
                self.update(self.losses(regions, crops)["loss"], *schedule(epoch, step))

    @torch.no_grad()
    def cluster(self, epoch: int, draw_starts: Callable[[int, int, int], Iterable[Tensor]]) -> None:
        """Cluster the regions of each slide n: z (R, D), prototypes c[n] (M, D), m (R,), each region's prototype."""
        self.z, self.c, self.m = self.embed(), dict[int, Tensor](), torch.full_like(self.slide_of, -1)
        for n in self.slide_of.unique().tolist():
            rows = (self.slide_of == n).nonzero()[:, 0]
            if len(rows) >= self.M:
                starts = draw_starts(epoch, n, len(rows))
                self.c[n], self.m[rows] = lloyd(self.z[rows], starts, self.kmeans_iterations)

    def embed(self) -> Tensor:
        """Return z = f_t(x) of every region: (R, D)."""
        z: Tensor = self.teacher.encoder(self.tokens)
        return z

    def assign_targets(self) -> None:
        """Set each region's targets: its prototype c (1, D), and the ĉ_k matched to c in K slides (K, D), or none."""
        self.intra, self.inter = ([self.z[:0]] * len(self.z) for _ in range(2))
        for n, c in self.c.items():
            near = sorted((*similarity(c, other), j) for j, other in self.c.items() if j != n)[::-1][: self.K]
            matched = torch.stack([c, *(self.c[j][list(sigma)] for _, sigma, j in near)], dim=1)  # (M, 1 + K, D)
            for region in (self.slide_of == n).nonzero()[:, 0].tolist():
                self.intra[region], self.inter[region] = matched[self.m[region]].split([1, len(near)])

    def losses(self, regions: Tensor, crops: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return L_total = L_self + α1 L_intra + α2 L_inter of a batch as "loss", and its terms."""
        b = torch.stack([self.student(crop) / self.student_temperature for crop in crops])  # (crops, B, O)
        with torch.no_grad():
            z_hat = torch.stack([self.teacher(crop) for crop in crops[:2]])
        L_self = self_loss(self.sharpen("self", z_hat), b).mean()
        L_intra = self.prototype_loss("intra", intra_loss, [self.intra[region] for region in regions], b)
        L_inter = self.prototype_loss("inter", inter_loss, [self.inter[region] for region in regions], b)
        loss = L_self + self.alpha_intra * L_intra + self.alpha_inter * L_inter
        return {"loss": loss, "self": L_self, "intra": L_intra, "inter": L_inter}

    def prototype_loss(self, term: str, equation: Callable[..., Tensor], c: list[Tensor], b: Tensor) -> Tensor:
        """Return E of eq. 2 or 4 over the regions of a batch that have targets; c: of each region (its targets, D)."""
        a = self.sharpen(term, self.project(torch.cat(c))).split([len(rows) for rows in c])
        losses = [equation(q, p) for q, p in zip(a, b.unbind(1), strict=True) if len(q)]
        return torch.stack(losses).mean() if losses else torch.zeros(())

    @torch.no_grad()
    def project(self, c: Tensor) -> Tensor:
        """Return g_t(c): (..., D) → (..., O)."""
        logits: Tensor = self.teacher.head(c)
        return logits

    def sharpen(self, term: str, logits: Tensor) -> Tensor:
        """Return the targets softmax((logits − center) / τ_t), and move the term's center (DINO, eq. 4)."""
        a = F.softmax((logits - self.center[term]) / self.teacher_temperature, dim=-1)
        if len(logits):
            batch = logits.flatten(0, -2).mean(0)
            self.center[term] = self.center_momentum * self.center[term] + (1 - self.center_momentum) * batch
        return a

    def update(self, loss: Tensor, lr: float, weight_decay: float, momentum: float) -> None:
        """Move the student by AdamW, each gradient clipped by itself, then the teacher: θ_t ← λ θ_t + (1 − λ) θ_s."""
        self.optimizer.zero_grad()
        loss.backward()
        for theta_s in self.student.parameters():
            torch.nn.utils.clip_grad_norm_(theta_s, self.clip_norm)
        self.optimizer.param_groups[0].update(lr=lr, weight_decay=weight_decay)
        self.optimizer.param_groups[1].update(lr=lr)
        self.optimizer.step()
        with torch.no_grad():
            for theta_t, theta_s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                theta_t.copy_(momentum * theta_t + (1 - momentum) * theta_s)
