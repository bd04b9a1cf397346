"""The frozen patch encoder: weights from any source, built into a timm ViT.

`load_weights` reads weights that others published, `build_encoder` makes a model of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slpd_core.encoders import vit
from slpd_core.encoders.pretrained_weights import HALF_RGB, PretrainedWeights, load_hipt, load_timm, native_input_px
from slpd_core.runtime import generator, log


def load_weights(
    source: str,
    name: str = "vit_small_patch16_224",
    *,
    path: str | Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    patch_px: int = 256,
    input_px: int | None = None,
    seed: int = 1,
) -> PretrainedWeights:
    """Load the weights of a patch encoder.

    Args:
        source: "random" (drawn from the seed), "hipt" or "timm".
        name: The timm architecture; with "timm" also hf-hub:OWNER/MODEL or local-dir:DIR.
        path: Of the checkpoint for "hipt", of a state dict for "timm"; None: the weights published under the name.
        model_kwargs: Further arguments of the architecture, as for timm.create_model.
        patch_px, input_px: As in `build_encoder`.
        seed: Of random weights.

    Returns:
        The weights.

    Raises:
        ValueError: The source, the name, the arguments or the file are wrong.
        FileNotFoundError: There is no such file.
        RuntimeError: The hub fails, or refuses access.
    """
    if source == "hipt":
        if path is None:
            raise ValueError("patch_encoder.weights: null, but source is hipt; give the path of vit256_small_dino.pth")
        return load_hipt(Path(path), name=name, model_kwargs=model_kwargs)
    if source == "timm":
        return load_timm(name, path=Path(path) if path else None, model_kwargs=model_kwargs, input_px=input_px)
    if source != "random":
        raise ValueError(
            f"source: {source!r} loads no weights; give random, hipt or timm, or read the weights.safetensors that the "
            "stage patch_encoder wrote (load_patch_encoder)"
        )
    log.warning("the patch encoder is random: an untrained baseline; for results give weights (patch_encoder.source)")
    kwargs = vit.architecture_kwargs(model_kwargs or {})
    state = build_random_vit(name, input_px or patch_px, model_kwargs=kwargs, seed=seed).state_dict()
    normalization = {"mean": HALF_RGB, "std": HALF_RGB}
    return PretrainedWeights("random", name, kwargs, state, "", f"seed {seed}", publisher_config=normalization)


def build_random_vit(
    name: str, input_px: int, *, model_kwargs: Mapping[str, Any] | None = None, seed: int = 1
) -> nn.Module:
    """Build a ViT with random weights, which depend on the seed alone.

    Args:
        name: The timm architecture.
        input_px: Side of the input images.
        model_kwargs: Further arguments of the architecture.
        seed: Of the weights.

    Returns:
        The model.

    Raises:
        ValueError: As `vit.build_vit`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "patch_encoder").integers(1 << 62)))
        model: nn.Module = vit.build_vit(name, input_px, model_kwargs)
    return model


def build_encoder(
    weights: PretrainedWeights,
    *,
    patch_px: int = 256,
    input_px: int | None = None,
    pooling: str = "cls",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolate_offset: float | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a patch encoder from its weights.

    Args:
        weights: Of `load_weights`, or trained.
        patch_px: Side of a patch within the region (paper: 256).
        input_px: Side that a patch is resized to; None: the encoder's own for "timm", else patch_px.
        pooling: A patch's token: "cls" ([CLS]; paper) or "cls_mean" ([CLS], then the mean of the other tokens).
        mean, std: Normalization of RGB in 0..1, three numbers each; None: the encoder's own.
        interpolate_offset: Added to the grid when positions are resampled; None: 0.1 for "hipt", else 0.

    Returns:
        The timm ViT, and its metadata: PATCH_ENCODER_META and interpolate_offset, as values.

    Raises:
        ValueError: The weights do not fit the architecture, or do not state how pixels are normalized.
    """
    if input_px is None:
        input_px = native_input_px(weights) if weights.source == "timm" else patch_px
    if interpolate_offset is None:
        interpolate_offset = weights.publisher_config.get("interpolate_offset", 0.0)
    meta = {
        "source": weights.source,
        "name": weights.name,
        "model_kwargs": weights.model_kwargs,
        "patch_px": patch_px,
        "input_px": input_px,
        "pooling": pooling,
        "mean": _resolve_normalization("mean", mean, weights),
        "std": _resolve_normalization("std", std, weights),
        "interpolate_offset": interpolate_offset,
    }
    model = vit.build_vit_from_state(
        weights.name, input_px, weights.model_kwargs, weights.state, weights.key, interpolate_offset
    )
    return model, meta | {"token_dim": token_dim(model, pooling)}


def _resolve_normalization(key: str, values: Sequence[float] | None, weights: PretrainedWeights) -> list[float]:
    """Return the mean or std of RGB in 0..1: as given, else as the publisher states it."""
    values = weights.publisher_config.get(key) if values is None else values
    if values is None:
        raise ValueError(f"patch_encoder.{key}: null, but {weights.origin} names none; give what its authors publish")
    if len(values) != 3:
        raise ValueError(f"patch_encoder.{key}: {list(values)} are not three numbers, for red, green and blue")
    return [float(value) for value in values]


def token_dim(model: Any, pooling: str) -> int:
    """Return the length of a patch's token.

    Args:
        model: A timm ViT.
        pooling: "cls" or "cls_mean".

    Returns:
        The length.

    Raises:
        ValueError: The encoder does not allow it.
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
