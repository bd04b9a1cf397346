"""The frozen patch encoder: a timm ViT, its weights imported or seeded, and all the tokens stage must know of it."""

import difflib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from slpd_core import config, store
from slpd_core.runtime import generator, log

VERSION = 1


def build(name: str, patch_px: int) -> Any:
    """The timm ViT `name` without a head, for patches of `patch_px`; its [CLS] token is the patch's token.

    Raises ValueError when timm has no such model or when it does not take patches of this size.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"patch_encoder.name: timm has no model {name!r}; close ones: {', '.join(close) or 'none'}")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=patch_px)
    except (TypeError, AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"patch_encoder.name: {name!r} takes no patches of {patch_px} px ({reason}); name a ViT"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a .pth or .bin file without running what it may hold.

    Raises ValueError when the file is missing or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"patch_encoder.weights: no file {path}; download the model's weights from where its authors publish them "
            "and give their path, or set patch_encoder.source to random for an untrained baseline"
        )
    if path.suffix == ".safetensors":
        try:
            return {key: torch.from_numpy(tensor) for key, tensor in store.read_weights(path)[0].items()}
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"patch_encoder.weights: {path} is no whole safetensors file of a type numpy knows; "
                "download it again, or save its tensors as float32"
            ) from error
    try:
        found = store.read_torch(path)
    except ValueError as error:
        raise ValueError(f"patch_encoder.weights: {error}; convert it to a plain state dict") from error
    for key in ("state_dict", "model"):
        found = found[key] if isinstance(found, dict) and isinstance(found.get(key), dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise ValueError(
            f"patch_encoder.weights: {path} holds no state dict of tensors; save one with torch.save or safetensors"
        )
    return found


def resample_positions(positions: Tensor, model: Any) -> Tensor:
    """Positions of another square grid brought bicubically to the model's own; any others are left as they are.

    positions: (1, prefix + side * side, dim); prefix tokens ([CLS], registers) keep theirs, if they have any.
    """
    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    patches = positions.shape[1] - prefix if positions.ndim == 3 else 0
    if positions.shape == model.pos_embed.shape or patches <= 0 or math.isqrt(patches) ** 2 != patches:
        return positions
    return resample_abs_pos_embed(positions, model.patch_embed.grid_size, num_prefix_tokens=prefix)


def import_weights(model: Any, path: Path, name: str) -> None:
    """Load a local state dict strictly; positions of another grid are resampled, a classifier's head is left out.

    Raises ValueError naming the keys that do not fit.
    """
    state = {key: tensor for key, tensor in read_state_dict(path).items() if not key.startswith("head.")}
    own = model.state_dict()
    if "pos_embed" in state and "pos_embed" in own:
        state["pos_embed"] = resample_positions(state["pos_embed"], model)
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"patch_encoder.weights: {path} does not fit {name}: missing {missing[:3]} ({len(missing)}), "
            f"unexpected {unexpected[:3]} ({len(unexpected)}), other shape {sorted(shapes)[:3]} ({len(shapes)}); "
            "give the weights' own architecture in patch_encoder.name"
        )
    model.load_state_dict(state)


def random_weights(name: str, patch_px: int, seed: int) -> Any:
    """A model whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "patch_encoder").integers(1 << 62)))
        return build(name, patch_px)


def load(weights_path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder that `run` wrote, in eval mode, and its metadata.

    (patches, 3, patch_px, patch_px) normalised by `mean` and `std` → (patches, token_dim).
    """
    tensors, meta = store.read_weights(weights_path)
    parsed = metadata(meta)
    model = build(parsed["name"], parsed["patch_px"])
    model.load_state_dict({key: torch.from_numpy(np.array(tensor)) for key, tensor in tensors.items()})
    return model.eval().requires_grad_(False), parsed


def forward(model: Any, x: Tensor, pooling: str) -> Tensor:
    """The plain way: (B, 3, input_px, input_px) normalised → (B, token_dim).

    pooling: "cls", the model's own token; "cls_mean", [CLS] and the mean of the patch tokens, one after the other.
    """
    if pooling == "cls":
        return model(x)
    features = model.forward_features(x)
    return torch.cat([features[:, 0], features[:, model.num_prefix_tokens :].mean(1)], dim=-1)


def metadata(meta: store.Meta) -> dict[str, Any]:
    """The encoder's own entries among the metadata of its weights, parsed, and their fingerprint.

    Raises ValueError naming the entries that are missing.
    """
    missing = [key for key in (*store.PATCH_ENCODER_META, "fingerprint") if key not in meta]
    if missing:
        raise ValueError(
            f"the patch encoder's weights.safetensors lacks the metadata {missing}; delete the file and run snakemake "
            "again, or import foreign weights by patch_encoder.weights"
        )
    return {key: json.loads(meta[key]) for key in store.PATCH_ENCODER_META} | {"fingerprint": meta["fingerprint"]}


def run(*, weights_path: Path, section: config.PatchEncoder, seed: int) -> None:
    """Write the encoder's weights and metadata."""
    if section.source == "random":
        log.warning(
            "the patch encoder is random: an untrained baseline; for results give weights (patch_encoder.source)"
        )
        model, origin = random_weights(section.name, section.patch_px, seed), str(seed)
    else:
        path = Path(section.weights or "")
        model = build(section.name, section.patch_px)
        import_weights(model, path, section.name)
        origin = store.file_fingerprint(path)
    meta = store.provenance("patch_encoder", VERSION, section.model_dump(), origin)
    own = section.model_dump() | {"token_dim": model.num_features}
    meta |= {key: json.dumps(own[key]) for key in store.PATCH_ENCODER_META}
    store.write_weights(weights_path, {key: tensor.numpy() for key, tensor in model.state_dict().items()}, meta)
    log.info("%s (%s), tokens of %d", section.name, section.source, own["token_dim"])
