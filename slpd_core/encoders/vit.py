"""A timm ViT without its head: built for pictures of one size and filled with weights, its positions resampled."""

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
from slpd_core.runtime import name_some

# Arguments that only say for which pictures or classes; both are settled here.
SETTLED = ("img_size", "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "num_classes")
MAX_DEPTH = 200  # blocks; the largest ViTs have about 50


def architecture_kwargs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make the architecture, without those of picture size and classes; unpooled means [CLS]."""
    own = {key: value for key, value in arguments.items() if key not in SETTLED and value is not None}
    return own | ({"global_pool": "token"} if own.get("global_pool") == "" else {})


def resolve_layer_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with names of classes, as in {mlp_layer: SwiGLUPacked}, replaced by timm.layers' own."""
    found = dict(arguments)
    for key, value in arguments.items():
        if key.endswith("_layer") and isinstance(value, str) and value[:1].isupper():
            if not hasattr(layers, value):
                close = difflib.get_close_matches(value, dir(layers), n=3)
                raise ValueError(
                    f"patch_encoder.arguments.{key}: timm.layers has no {value!r}; close ones: "
                    f"{', '.join(close) or 'none'}; activations are written small, as in silu"
                )
            found[key] = getattr(layers, value)
    return found


def build(
    name: str, input_px: int, arguments: Mapping[str, Any] | None = None, device: str = "cpu", **training: Any
) -> Any:
    """The timm ViT `name` without a head, for pictures of `input_px`; (B, 3, input_px, input_px) → (B, dim).

    device: "meta" gives the shapes without memory. training: what timm is told besides, to train it.
    Raises ValueError when timm has no such model, or when it does not take these arguments or pictures of this size.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"patch_encoder.name: timm has no model {name!r}; close ones: {', '.join(close) or 'none'}")
    given = architecture_kwargs(arguments or {})
    _require_architecture(given)
    try:
        with torch.device(device):
            model = timm.create_model(
                name, num_classes=0, img_size=input_px, **resolve_layer_classes(given), **training
            )
    except (TypeError, AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"name a ViT, or correct patch_encoder.arguments {given}" if given else "name a ViT"
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


def _require_architecture(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError where arguments, which a downloaded config.json may give, are more than an architecture's."""
    for key in PatchEncoderConfig.NO_ARGUMENTS:
        if key in arguments:
            raise ValueError(
                f"patch_encoder.arguments: {key!r} is no part of an architecture; delete it, there or in the model's "
                "config.json"
            )
    depth = arguments.get("depth", 1)
    if not isinstance(depth, int) or not 1 <= depth <= MAX_DEPTH:
        raise ValueError(
            f"patch_encoder.arguments.depth: {depth!r} is no number of blocks within 1-{MAX_DEPTH}; correct it"
        )


def forward(model: Any, x: Tensor, pooling: str) -> Tensor:
    """Patches to tokens: (B, 3, input_px, input_px), normalised float, to (B, token_dim).

    pooling: "cls" is the model's own, its [CLS]; "cls_mean" is [CLS], then the mean of the patch tokens.
    """
    if pooling == "cls":
        return model(x)
    tokens = model.forward_features(x)
    return torch.cat((tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(dim=1)), dim=1)


def patch_stride(model: Any) -> int:
    """Side of what one of the encoder's own tokens covers, px; 1 where it has no such tokens."""
    side = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(side if isinstance(side, int) else side[0])


def _grid_side(positions: Tensor, model: Any) -> tuple[int, int]:
    """Prefix tokens with a position ([CLS], registers), and the side of the positions' grid: 0 unless it is square."""
    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    patches = positions.shape[1] - prefix if positions.ndim == 3 else 0
    side = math.isqrt(max(0, patches))
    return prefix, side if side * side == patches else 0


def native_img_size(state: Mapping[str, Tensor], model: Any) -> int | None:
    """Side of the pictures that the positions in `state` are for, px; None where they do not say."""
    return _grid_side(state["pos_embed"], model)[1] * patch_stride(model) or None if "pos_embed" in state else None


def resample_positions(positions: Tensor, model: Any, offset: float = 0.0) -> Tensor:
    """Positions of another square grid brought bicubically to the model's own; any others are left as they are.

    positions: (1, prefix + side * side, dim); prefix tokens ([CLS], registers) keep theirs, if they have any.
    offset: 0 is timm's way, antialiased; else new position i is read at (i + 1/2) * side / (new side + offset) - 1/2,
    as ViTs of DINO do with 0.1.
    """
    prefix, side = _grid_side(positions, model)
    if positions.shape == model.pos_embed.shape or not side:
        return positions
    new = model.patch_embed.grid_size
    if not offset:
        return layers.resample_abs_pos_embed(positions, new, num_prefix_tokens=prefix)
    grid = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((new[0] + offset) / side, (new[1] + offset) / side)
    grid = nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat((positions[:, :prefix], grid.flatten(2).transpose(1, 2)), dim=1)


def build_with_weights(
    name: str, input_px: int, arguments: Mapping[str, Any], state: Mapping[str, Tensor], origin: str, offset: float = 0
) -> Any:
    """The ViT `name` with the weights `state`, strictly; positions of another grid are resampled, a head is left out.

    The model takes over the tensors. origin: where they come from, for messages: a key of the config and its value.
    Raises ValueError naming the keys that do not fit.
    """
    model = build(name, input_px, arguments, "meta")
    state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    own = model.state_dict()
    if "pos_embed" in state and "pos_embed" in own:
        state["pos_embed"] = resample_positions(state["pos_embed"], model, offset)
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"{origin} does not fit {name}: missing [{name_some(missing, 3)}], "
            f"unexpected [{name_some(unexpected, 3)}], other shape [{name_some(sorted(shapes), 3)}]; "
            "give the weights' own architecture in patch_encoder.name, and in patch_encoder.arguments what their "
            "authors pass to timm.create_model"
        )
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        model = build(name, input_px, arguments)  # some ViTs compute tensors that no file holds
        model.load_state_dict(state)
    return model
