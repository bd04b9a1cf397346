"""Student and teacher, and how a step moves them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slpd_core import config
from slpd_core.pretraining.region_encoder import ProjectionHead, RegionEncoder
from slpd_core.pretraining.schedules import cosine, warmup_cosine
from slpd_core.runtime import generator

TERMS = ("self", "intra", "inter")


class Network(nn.Module):
    """A region encoder and the projection head g on top of it."""

    def __init__(self, section: config.PretrainRun, token_dim: int, drop_path: float) -> None:
        super().__init__()
        shape = (token_dim, section.embed_dim, section.depth, section.n_heads, section.global_crop)
        self.encoder = RegionEncoder(*shape, drop_path)
        self.head = ProjectionHead(section.embed_dim, section.hidden_dim, section.bottleneck_dim, section.out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, rows, columns, token_dim) → (B, out_dim)."""
        return self.head(self.encoder(tokens))


@dataclass
class Networks:
    """Student and teacher, each an encoder and its head, and what training moves along with them.

    centres: (out_dim,), one a term of the loss.
    """

    student: Network
    teacher: Network
    optimizer: torch.optim.AdamW
    centres: dict[str, Tensor]

    @classmethod
    def start(cls, section: config.PretrainRun, token_dim: int, seed: int, device: str) -> "Networks":
        """Random weights that depend on the seed alone; the teacher begins as the student's copy."""
        torch.manual_seed(torch_seed(seed, "weights"))
        student, teacher = (Network(section, token_dim, rate).to(device) for rate in (section.drop_path, 0.0))
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False).eval()
        parameters = list(student.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        centres = {term: torch.zeros(section.out_dim, device=device) for term in TERMS}
        return cls(student.train(), teacher, torch.optim.AdamW(groups), centres)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain values."""
        parts = {name: getattr(self, name).state_dict() for name in ("student", "teacher", "optimizer")}
        return parts | {"centres": self.centres}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        for name in ("student", "teacher", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for term, centre in self.centres.items():
            centre.copy_(state["centres"][term])


def torch_seed(seed: int, *keys: str | int) -> int:
    return int(generator(seed, "pretrain", *keys).integers(1 << 62))


def set_schedules(
    networks: Networks, section: config.PretrainRun, step: int, steps_per_epoch: int, batch_size: int
) -> dict[str, float]:
    """Learning rate, weight decay and teacher momentum of a step, set where they belong.

    batch_size: regions a step in fact, fewer than the setting in a cohort smaller than a batch.
    """
    steps = section.epochs * steps_per_epoch
    peak = section.base_lr * batch_size / 256
    values = {
        "lr": warmup_cosine(step, steps, section.warmup_epochs * steps_per_epoch, peak, section.min_lr),
        "weight_decay": cosine(step, steps, section.weight_decay, section.weight_decay_end),
        "teacher_momentum": cosine(step, steps, section.teacher_momentum, 1.0),
    }
    for group in networks.optimizer.param_groups:
        group["lr"] = values["lr"]
    networks.optimizer.param_groups[0]["weight_decay"] = values["weight_decay"]
    return values


def update(networks: Networks, section: config.PretrainRun, loss: Tensor, momentum: float, freeze_last: bool) -> None:
    """One step of the student by gradient, of the teacher by moving average."""
    networks.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if freeze_last:
        networks.student.head.last_layer.grad = None
    for parameter in networks.student.parameters():
        if parameter.grad is not None:
            nn.utils.clip_grad_norm_(parameter, section.clip_norm)
    networks.optimizer.step()
    with torch.no_grad():
        for mine, theirs in zip(networks.teacher.parameters(), networks.student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)
