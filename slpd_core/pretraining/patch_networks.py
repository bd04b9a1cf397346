"""Student and teacher of stage one: a ViT of timm's with a projection head, and how it takes pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slpd_core.encoders import vit
from slpd_core.encoders.pretrained_weights import HALF_RGB
from slpd_core.runtime import generator
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import Network, StudentTeacher


@dataclass(frozen=True)
class VitParams:
    """A ViT of timm's with a projection head, and how its pixels are normalized.

    Attributes:
        name: Of the architecture.
        input_px: Side of the images that positions are learned for.
        model_kwargs: Of the architecture.
        mean: Of RGB in 0..1.
        std: Of RGB in 0..1.
        drop_path: Rate of stochastic depth, of the student alone.
        hidden_dim: Of the head's MLP.
        bottleneck_dim: Of the head.
        out_dim: Outputs of the head.
        half: Whether to compute in bfloat16.
    """

    name: str
    input_px: int
    model_kwargs: dict[str, Any]
    mean: tuple[float, float, float] = HALF_RGB
    std: tuple[float, float, float] = HALF_RGB
    drop_path: float = 0.1
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    out_dim: int = 65536
    half: bool = False

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize images as the encoder takes them.

        Args:
            pixels: (..., 3, h, w), RGB in 0..1.

        Returns:
            The same shape.
        """
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def build_patch_student_teacher(params: VitParams, *, seed: int, device: str = "cpu") -> StudentTeacher:
    """Build student and teacher with random weights.

    Args:
        params: Of encoder and head.
        seed: Alone decides the weights.
        device: cpu or cuda.

    Returns:
        Both, equal at the start.
    """

    def build(drop_path: float) -> Network:
        encoder = vit.build_vit(
            params.name, params.input_px, params.model_kwargs, drop_path_rate=drop_path, dynamic_img_size=True
        )
        if params.half and device == "cpu":  # torch's fused attention is five times slower there
            for part in (part for part in encoder.modules() if hasattr(part, "fused_attn")):
                part.fused_attn = False
        head = ProjectionHead(encoder.num_features, params.hidden_dim, params.bottleneck_dim, params.out_dim)
        return Network(encoder, head)

    dtype = torch.bfloat16 if params.half else torch.float32
    return StudentTeacher.create(
        build, ("self",), patch_torch_seed(seed, "weights"), device, drop_path=params.drop_path, dtype=dtype
    )


def patch_torch_seed(seed: int, *keys: str | int) -> int:
    """Derive a seed for torch from the run's seed and a purpose.

    Args:
        seed: Of the run.
        keys: The purpose.

    Returns:
        The seed.
    """
    return int(generator(seed, "dino_patches", *keys).integers(1 << 62))


@torch.inference_mode()
def embed_patches(
    networks: StudentTeacher, pixels: Tensor, params: VitParams, side_px: int, batch_size: int = 32
) -> np.ndarray:
    """Encode patches by the teacher.

    Args:
        networks: The teacher.
        pixels: uint8 (n, P, P, 3).
        params: Say how pixels are normalized.
        side_px: That patches are resized to.
        batch_size: Patches per pass.

    Returns:
        float32 (n, token_dim).
    """
    tokens = []
    for batch in pixels.split(batch_size):
        floats = batch.to(networks.device).permute(0, 3, 1, 2).float() / 255
        floats = F.interpolate(floats, (side_px, side_px), mode="bilinear", antialias=True)
        tokens.append(networks.teacher.encoder(params.normalize(floats)).cpu())
    return torch.cat(tokens).numpy()
