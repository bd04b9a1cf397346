"""The patch encoder's file, as the stage patch_encoder writes it; reading one of a plain ViT imports no timm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slpd_core import artifacts
from slpd_core.encoders.plain_vit import PlainVit

PLAIN_VIT = "plain_vit"  # entry of the metadata: arguments of `PlainVit`; missing where the model stays timm's


def read_patch_encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read the encoder that the stage patch_encoder wrote; `vit_inference.forward_pooled` applies it.

    Args:
        path: Of its weights.safetensors.

    Returns:
        The ViT, frozen and in eval mode, and its metadata, as from `parse_metadata`.

    Raises:
        ValueError: The file is broken, or holds no patch encoder.
    """
    tensors, meta = artifacts.read_weights(path)
    parsed = parse_metadata(meta)
    state = {key: torch.from_numpy(np.array(tensor)) for key, tensor in tensors.items()}
    if PLAIN_VIT in meta:
        return PlainVit(state, **json.loads(meta[PLAIN_VIT])), parsed
    from slpd_core.encoders import vit  # imports timm and torchvision: more than a second

    model = vit.build_vit_from_state(parsed["name"], parsed["input_px"], parsed["model_kwargs"], state, str(path))
    return model.eval().requires_grad_(False), parsed


def parse_metadata(meta: artifacts.Meta) -> dict[str, Any]:
    """Parse the metadata of a patch encoder's file.

    Args:
        meta: Metadata of the file.

    Returns:
        PATCH_ENCODER_META, as values, and the fingerprint.

    Raises:
        ValueError: Entries are missing; names them.
    """
    missing = [key for key in (*artifacts.PATCH_ENCODER_META, "fingerprint") if key not in meta]
    if missing:
        raise ValueError(
            f"the patch encoder's weights.safetensors lacks the metadata {missing}; delete the file and run snakemake "
            "again, or import foreign weights by patch_encoder.weights"
        )
    return {key: json.loads(meta[key]) for key in artifacts.PATCH_ENCODER_META} | {"fingerprint": meta["fingerprint"]}
