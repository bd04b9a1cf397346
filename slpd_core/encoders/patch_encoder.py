"""The frozen patch encoder: a timm ViT with random weights, or those that the pipeline wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slpd_core import artifacts
from slpd_core.encoders import vit
from slpd_core.runtime import generator


def random_weights(name: str, input_px: int, seed: int, model_kwargs: Mapping[str, Any] | None = None) -> Any:
    """A model whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "patch_encoder").integers(1 << 62)))
        return vit.build_vit(name, input_px, model_kwargs)


def token_dim(model: Any, pooling: str) -> int:
    """Length of a patch's token.

    Raises ValueError when the encoder cannot be pooled so.
    """
    if pooling == "cls":
        return int(model.num_features)
    pool, has_cls = getattr(model, "global_pool", ""), getattr(model, "cls_token", None) is not None
    if pool != "token" or not has_cls:
        raise ValueError(
            f"patch_encoder.pooling: cls_mean needs an encoder whose own token is [CLS], this one's is {pool!r} "
            f"{'with' if has_cls else 'without'} a [CLS]; set pooling to cls, or name another ViT"
        )
    return 2 * int(model.num_features)


def load(weights_path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder that `run` wrote, in eval mode and frozen, and its metadata; `vit.forward` applies it."""
    tensors, meta = artifacts.read_weights(weights_path)
    parsed = metadata(meta)
    state = {key: torch.from_numpy(np.array(tensor)) for key, tensor in tensors.items()}
    model = vit.build_with_weights(parsed["name"], parsed["input_px"], parsed["model_kwargs"], state, str(weights_path))
    return model.eval().requires_grad_(False), parsed


def metadata(meta: artifacts.Meta) -> dict[str, Any]:
    """The encoder's own entries among the metadata of its weights, parsed, and their fingerprint.

    Raises ValueError naming the entries that are missing.
    """
    missing = [key for key in (*artifacts.PATCH_ENCODER_META, "fingerprint") if key not in meta]
    if missing:
        raise ValueError(
            f"the patch encoder's weights.safetensors lacks the metadata {missing}; delete the file and run snakemake "
            "again, or import foreign weights by patch_encoder.weights"
        )
    return {key: json.loads(meta[key]) for key in artifacts.PATCH_ENCODER_META} | {"fingerprint": meta["fingerprint"]}
