"""A timm ViT without its head: built for one image size, with weights whose positions are resampled to it."""

import difflib
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import timm
import torch
from timm import layers
from torch import Tensor, nn

from slpd_core.config import PatchEncoderConfig
from slpd_core.config.published import close_names
from slpd_core.runtime import name_some

# Arguments for image size and classes, which are set here.
RESERVED_KWARGS = ("img_size", "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "num_classes")
MAX_DEPTH = 200  # blocks; the largest ViTs have about 50


def architecture_kwargs(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Select the arguments of the architecture, without image size and classes; no pooling becomes [CLS].

    Args:
        model_kwargs: As for timm.create_model.

    Returns:
        The arguments that are left.
    """
    kwargs = {key: value for key, value in model_kwargs.items() if key not in RESERVED_KWARGS and value is not None}
    return kwargs | ({"global_pool": "token"} if kwargs.get("global_pool") == "" else {})


def resolve_layer_classes(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Replace names of classes, as in {mlp_layer: SwiGLUPacked}, by the classes of timm.layers.

    Args:
        model_kwargs: As for timm.create_model.

    Returns:
        The arguments with classes.

    Raises:
        ValueError: timm.layers has no class of that name.
    """
    resolved = dict(model_kwargs)
    for key, value in model_kwargs.items():
        if key.endswith("_layer") and isinstance(value, str) and value[:1].isupper():
            if not hasattr(layers, value):
                close = difflib.get_close_matches(value, dir(layers), n=3)
                raise ValueError(
                    f"patch_encoder.model_kwargs.{key}: timm.layers has no {value!r}; close ones: "
                    f"{', '.join(close) or 'none'}; activations are written small, as in silu"
                )
            resolved[key] = getattr(layers, value)
    return resolved


def build_vit(
    name: str, input_px: int, model_kwargs: Mapping[str, Any] | None = None, device: str = "cpu", **training: Any
) -> Any:
    """Build a timm ViT without a head, with timm's random weights.

    Args:
        name: The timm architecture.
        input_px: Side of the input images.
        model_kwargs: Further arguments of the architecture, as for timm.create_model.
        device: "meta" builds shapes without memory.
        training: Further arguments of timm.create_model that only training needs.

    Returns:
        The model, (B, 3, input_px, input_px) to (B, dim).

    Raises:
        ValueError: timm has no such model, or it does not take these arguments or images of this size.
    """
    if not timm.is_model(name):
        close = [*close_names(name), *difflib.get_close_matches(name, timm.list_models(), n=3)]
        raise ValueError(f"patch_encoder.name: timm has no model {name!r}; close ones: {', '.join(close) or 'none'}")
    kwargs = architecture_kwargs(model_kwargs or {})
    _require_architecture(kwargs)
    try:
        with torch.device(device):
            model = timm.create_model(
                name, num_classes=0, img_size=input_px, **resolve_layer_classes(kwargs), **training
            )
    except (TypeError, AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"name a ViT, or correct patch_encoder.model_kwargs {kwargs}" if kwargs else "name a ViT"
        raise ValueError(
            f"patch_encoder.name: {name!r} takes no patches of {input_px} px ({reason}); {remedy}"
        ) from error
    side = patch_stride(model)
    if input_px % side:
        raise ValueError(
            f"patch_encoder.input_px: {input_px} is not a multiple of the {side} px that a token of {name} covers; "
            f"set it to {max(1, input_px // side) * side}"
        )
    return model


def _require_architecture(model_kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments, perhaps of a downloaded config.json, that are no part of an architecture."""
    for key in PatchEncoderConfig.NO_ARGUMENTS:
        if key in model_kwargs:
            raise ValueError(
                f"patch_encoder.model_kwargs: {key!r} is no part of an architecture; delete it, there or in the "
                "model's config.json"
            )
    depth = model_kwargs.get("depth", 1)
    if not isinstance(depth, int) or not 1 <= depth <= MAX_DEPTH:
        raise ValueError(
            f"patch_encoder.model_kwargs.depth: {depth!r} is no number of blocks within 1-{MAX_DEPTH}; correct it"
        )


def patch_stride(model: Any) -> int:
    """Return the side that one of a ViT's own tokens covers.

    Args:
        model: A timm model.

    Returns:
        px; 1 for a model without such tokens.
    """
    side = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(side if isinstance(side, int) else side[0])


def _grid_side(positions: Tensor, model: Any) -> tuple[int, int]:
    """Count prefix tokens with a position ([CLS], registers); return them and the grid's side, 0 unless square."""
    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    patches = positions.shape[1] - prefix if positions.ndim == 3 else 0
    side = math.isqrt(max(0, patches))
    return prefix, side if side * side == patches else 0


def native_img_size(state: Mapping[str, Tensor], model: Any) -> int | None:
    """Return the side of the images that a state dict's positions are for.

    Args:
        state: State dict of a ViT.
        model: The ViT of the same architecture, for any image size.

    Returns:
        px; None where the positions do not say.
    """
    return _grid_side(state["pos_embed"], model)[1] * patch_stride(model) or None if "pos_embed" in state else None


def resample_positions(positions: Tensor, model: Any, offset: float = 0.0) -> Tensor:
    """Resample positions of another square grid bicubically to the model's grid.

    Args:
        positions: (1, prefix + side * side, dim); prefix tokens ([CLS], registers) keep theirs.
        model: The ViT that takes them.
        offset: 0 resamples as timm, antialiased; else new position i is read at (i + 1/2) * side / (new side + offset)
            - 1/2, as in DINO's ViTs with 0.1.

    Returns:
        (1, prefix + new side ** 2, dim); positions of no square grid as they are.
    """
    prefix, side = _grid_side(positions, model)
    if positions.shape == model.pos_embed.shape or not side:
        return positions
    new = model.patch_embed.grid_size
    if not offset:
        resampled: Tensor = layers.resample_abs_pos_embed(positions, new, num_prefix_tokens=prefix)
        return resampled
    grid = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((new[0] + offset) / side, (new[1] + offset) / side)
    grid = nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat((positions[:, :prefix], grid.flatten(2).transpose(1, 2)), dim=1)


def build_vit_from_state(
    name: str,
    input_px: int,
    model_kwargs: Mapping[str, Any],
    state: Mapping[str, Tensor],
    origin: str,
    interpolate_offset: float = 0.0,
) -> Any:
    """Build a timm ViT without a head from a state dict, which must fit; positions of another grid are resampled.

    Args:
        name: The timm architecture.
        input_px: Side of the input images.
        model_kwargs: Further arguments of the architecture.
        state: The state dict; its head is dropped. The model takes over the tensors.
        origin: Of the weights, for messages: a key of the config and its value.
        interpolate_offset: As in `resample_positions`.

    Returns:
        The model, (B, 3, input_px, input_px) to (B, dim).

    Raises:
        ValueError: The state dict does not fit; names the keys.
    """
    model = build_vit(name, input_px, model_kwargs, "meta")
    state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    expected = model.state_dict()
    if "pos_embed" in state and "pos_embed" in expected:
        state["pos_embed"] = resample_positions(state["pos_embed"], model, interpolate_offset)
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"{origin} does not fit {name}: missing [{name_some(missing, 3)}], "
            f"unexpected [{name_some(unexpected, 3)}], other shape [{name_some(sorted(shapes), 3)}]; "
            "give the weights' own architecture in patch_encoder.name, and in patch_encoder.model_kwargs what their "
            "authors pass to timm.create_model"
        )
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        model = build_vit(name, input_px, model_kwargs)  # some ViTs compute tensors that no file holds
        model.load_state_dict(state)
    return model
