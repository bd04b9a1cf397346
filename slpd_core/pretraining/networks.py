"""Student and teacher of stage two."""

from pathlib import Path

import torch

from slpd_core import config
from slpd_core.encoders import region_encoder
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.runtime import generator
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import Network, StudentTeacher

TERMS = ("self", "intra", "inter")


def center_name(section: config.PretrainRunConfig, term: str) -> str:
    """The name of the center of a term's targets."""
    return "prototypes" if section.shared_center and term != "self" else term


def build_student_teacher(section: config.PretrainRunConfig, token_dim: int, seed: int, device: str) -> StudentTeacher:
    """Student and teacher of a run: random weights that depend on the seed alone, or an encoder that others trained.

    Raises ValueError when that encoder is of another shape.
    """
    shape = (token_dim, section.embed_dim, section.depth, section.n_heads, section.global_crop_size)
    begin_with = region_encoder.load_region_weights(Path(section.init_from), shape) if section.init_from else None

    def build(drop_path: float) -> Network:
        encoder = RegionEncoder(*shape, drop_path)
        if begin_with:
            encoder.load_state_dict(begin_with)
        return Network(
            encoder, ProjectionHead(section.embed_dim, section.hidden_dim, section.bottleneck_dim, section.out_dim)
        )

    dtype = autocast_dtype(section.precision, device)
    centers = tuple(dict.fromkeys(center_name(section, term) for term in TERMS))
    return StudentTeacher.create(
        build, centers, torch_seed(seed, "weights"), device, drop_path=section.drop_path, dtype=dtype
    )


def autocast_dtype(precision: str, device: str) -> torch.dtype:
    """The dtype in which the networks multiply; auto: float32 on a CPU, on a GPU bfloat16 or, if it has none, float16.

    device: cpu or cuda.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def torch_seed(seed: int, *keys: str | int) -> int:
    return int(generator(seed, "pretrain", *keys).integers(1 << 62))
