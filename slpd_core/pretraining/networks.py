"""Student and teacher of stage two."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from slpd_core.encoders import region_encoder
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.runtime import generator
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import Network, StudentTeacher

MatmulPrecision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class NetworkParams:
    """Region encoder (ViT-XS) and projection head; the defaults are the paper's.

    Attributes:
        embed_dim: D, length of an embedding.
        depth: Blocks of the encoder.
        n_heads: Of its attention.
        drop_path: Rate of stochastic depth, of the student alone.
        hidden_dim: Of the head's MLP.
        bottleneck_dim: Of the head.
        out_dim: Outputs of the head.
        precision: Of matrix products; see `autocast_dtype`.
        init_from: File of an encoder to begin with.
    """

    embed_dim: int = 192
    depth: int = 6
    n_heads: int = 6
    drop_path: float = 0.1
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    out_dim: int = 65536
    precision: MatmulPrecision = "auto"
    init_from: str | None = None


def build_student_teacher(
    token_dim: int,
    params: NetworkParams,
    *,
    seed: int,
    grid: int = 14,
    centers: Iterable[str] = ("self", "intra", "inter"),
    device: str = "cpu",
) -> StudentTeacher:
    """Build student and teacher with random weights, or with an encoder that others trained.

    Args:
        token_dim: Length of a token.
        params: Of encoder and head.
        seed: Alone decides random weights.
        grid: Tokens along a side of what positions are learned for: the global crop.
        centers: Their names.
        device: cpu or cuda.

    Returns:
        Both, equal at the start.

    Raises:
        ValueError: The encoder to begin with is of another shape.
    """
    shape = (token_dim, params.embed_dim, params.depth, params.n_heads, grid)
    weights = region_encoder.load_region_weights(Path(params.init_from), shape) if params.init_from else None

    def build(drop_path: float) -> Network:
        encoder = RegionEncoder(*shape, drop_path)
        if weights:
            encoder.load_state_dict(weights)
        return Network(
            encoder, ProjectionHead(params.embed_dim, params.hidden_dim, params.bottleneck_dim, params.out_dim)
        )

    return StudentTeacher.create(
        build,
        tuple(dict.fromkeys(centers)),
        torch_seed(seed, "weights"),
        device,
        drop_path=params.drop_path,
        dtype=autocast_dtype(params.precision, device),
    )


def autocast_dtype(precision: MatmulPrecision, device: str) -> torch.dtype:
    """Choose the dtype in which networks multiply.

    Args:
        precision: auto is float32 on a CPU, bfloat16 on a GPU, or float16 if it has no bfloat16.
        device: cpu or cuda.

    Returns:
        The dtype.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def torch_seed(seed: int, *keys: str | int) -> int:
    """Derive a seed for torch from the run's seed and the use.

    Args:
        seed: Of the run.
        keys: The use, such as ("drop_path", epoch, step).

    Returns:
        The seed.
    """
    return int(generator(seed, "pretrain", *keys).integers(1 << 62))
