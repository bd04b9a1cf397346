"""Student and teacher, and how a step moves them."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slpd_core.ssl import distributed
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.schedules import Recipe

STATEFUL = ("student", "teacher", "optimizer", "scaler")  # that have a state_dict


class Network(nn.Module):
    """An encoder and the projection head g on top of it.

    Args:
        encoder: Of patches or of regions.
        head: Takes its embeddings.
    """

    encoder: Any

    def __init__(self, encoder: nn.Module, head: ProjectionHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Args:
            x: As the encoder takes it.

        Returns:
            (B, out_dim).
        """
        logits: Tensor = self.head(self.encoder(x))
        return logits

    def linear_layers(self) -> list[nn.Linear]:
        """List the linear layers whose weights are multiplied whole.

        Returns:
            All but the encoder's `sliced_layers`.
        """
        sliced = getattr(self.encoder, "sliced_layers", ())
        return [layer for layer in self.modules() if isinstance(layer, nn.Linear) and layer not in sliced]


class BuildNetwork(Protocol):
    """Builds a network."""

    def __call__(self, drop_path: float) -> Network:
        """Build a network with random weights.

        Args:
            drop_path: Rate of stochastic depth.

        Returns:
            The network.
        """
        ...


@dataclass
class StudentTeacher:
    """Student and teacher, and the state that training moves along with them.

    Attributes:
        student: Trained by gradients.
        teacher: Its moving average.
        optimizer: Of the student.
        centers: Name -> (out_dim,), of the teacher's targets, one per term of the loss or shared.
        scaler: Of losses whose gradients would underflow in float16.
        dtype: That both compute in.
    """

    student: Network
    teacher: Network
    optimizer: torch.optim.AdamW
    centers: dict[str, Tensor]
    scaler: torch.amp.GradScaler
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """The device of both."""
        return next(iter(self.centers.values())).device

    @classmethod
    def create(
        cls,
        build: BuildNetwork,
        terms: tuple[str, ...],
        seed: int,
        device: str = "cpu",
        *,
        drop_path: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> "StudentTeacher":
        """Build student and teacher with random weights; the teacher begins as the student's copy.

        Args:
            build: Builds either.
            terms: Names of the centers.
            seed: Alone decides the weights.
            device: cpu or cuda.
            drop_path: Rate of stochastic depth, of the student alone.
            dtype: That they will compute in.

        Returns:
            Both, with a new optimizer and centers of 0.
        """
        torch.manual_seed(seed)
        student, teacher = (build(drop_path=rate).to(device) for rate in (drop_path, 0.0))
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False).eval()
        parameters = list(student.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        centers = {term: torch.zeros(len(student.head.last_layer), device=device) for term in terms}
        scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)
        return cls(student.train(), teacher, torch.optim.AdamW(groups, fused=True), centers, scaler, dtype)

    def state_dict(self) -> dict[str, Any]:
        """Collect all that a resumed run needs.

        Returns:
            Tensors and plain values, nested.
        """
        parts = {name: getattr(self, name).state_dict() for name in STATEFUL}
        return parts | {"centers": self.centers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, also one of another precision, which may lack the scaler's.

        Args:
            state: As `state_dict` returned it.
        """
        for name in STATEFUL:
            if name != "scaler" or state[name]:
                getattr(self, name).load_state_dict(state[name])
        for term, center in self.centers.items():
            center.copy_(state["centers"][term])


def apply_schedules(
    networks: StudentTeacher, recipe: Recipe, step: int, steps_per_epoch: int, batch_size: int
) -> dict[str, float]:
    """Set learning rate and weight decay of a step, and freeze the head's last layer in the first epochs.

    Args:
        networks: Whose optimizer and student are set.
        recipe: The schedules.
        step: From 0, over all epochs.
        steps_per_epoch: Of the data.
        batch_size: Of the step.

    Returns:
        The values of `Recipe.at`.
    """
    values = recipe.at(step, steps_per_epoch, batch_size)
    for group in networks.optimizer.param_groups:
        group["lr"] = values["lr"]
    networks.optimizer.param_groups[0]["weight_decay"] = values["weight_decay"]
    networks.student.head.last_layer.requires_grad_(step >= recipe.freeze_last_layer_epochs * steps_per_epoch)
    return values


def update_networks(networks: StudentTeacher, clip_norm: float, momentum: float) -> None:
    """Move the student by its gradients, which are used up, and the teacher by moving average.

    Args:
        networks: Student and teacher.
        clip_norm: Largest norm of a parameter's gradient.
        momentum: Of the teacher.
    """
    parameters: list[Any] = list(networks.student.parameters())
    distributed.all_reduce_gradients(parameters)
    networks.scaler.unscale_(networks.optimizer)
    clip_grads_per_parameter([parameter.grad for parameter in parameters if parameter.grad is not None], clip_norm)
    networks.scaler.step(networks.optimizer)
    networks.scaler.update()
    networks.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch._foreach_lerp_(list(networks.teacher.parameters()), parameters, 1 - momentum)


def clip_grads_per_parameter(gradients: list[Tensor], max_norm: float) -> None:
    """Scale each gradient down to a largest norm; DINO clips parameter by parameter.

    Args:
        gradients: Changed in place.
        max_norm: Of each.
    """
    if gradients:
        factors = (max_norm / (torch.stack(torch._foreach_norm(gradients)) + 1e-6)).clamp(max=1)
        torch._foreach_mul_(gradients, factors.unbind())


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Multiply matrices in half precision within a block; float32 changes nothing.

    Args:
        dtype: Of the products.
        device: Of the matrices.

    Returns:
        The context.
    """
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
