"""Published weights of ViTs: HIPT's checkpoint, a name timm knows, a repository of the Hugging Face hub, a file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from slpd_core import artifacts
from slpd_core.encoders import vit
from slpd_core.encoders.foreign_weights import read_state_dict
from slpd_core.encoders.hub import FOLDER, HUB, explain_hub_errors, find_file
from slpd_core.runtime import log

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # of a folder, first best
HALF_RGB = (0.5, 0.5, 0.5)
# HIPT's maintainer's word for its weights, though they were trained with ImageNet's; the offset is its ViT's own.
HIPT_CONFIG = {"mean": HALF_RGB, "std": HALF_RGB, "interpolate_offset": 0.1}
HIPT_SHA256 = "6960cd5a8657dc8bb214671aa0c6dbd3f5b698e84386884955836487ddc89e24"  # of the file, as its repository says
OTHER_HIPT = "hipt, another file"  # source of weights that are read as HIPT's, but are not those it published
TRIAL_PX = 224  # a multiple of the 7, 8, 14, 16 and 32 px that ViTs' tokens cover


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights of a ViT, and what is known of them.

    Attributes:
        source: "random", "hipt", OTHER_HIPT, "timm" or "dino".
        name: The timm architecture.
        model_kwargs: Further arguments of the architecture.
        state: The state dict, float32.
        key: Key and value of the config that led to them, for messages.
        origin: File, name on the hub, timm's name or seed.
        file_fingerprint: Of the file; "" if there is none or timm reads it.
        publisher_config: mean, std, input_size and interpolate_offset, as far as their publisher states them.
    """

    source: str
    name: str
    model_kwargs: dict[str, Any]
    state: dict[str, Tensor]
    key: str
    origin: str
    file_fingerprint: str = ""
    publisher_config: Mapping[str, Any] = field(default_factory=dict)


def load_hipt(
    path: Path, *, name: str = "vit_small_patch16_224", model_kwargs: Mapping[str, Any] | None = None
) -> PretrainedWeights:
    """Load HIPT's ViT256-16, the teacher of a DINO checkpoint.

    Args:
        path: Of vit256_small_dino.pth.
        name: The timm architecture.
        model_kwargs: Further arguments of the architecture.

    Returns:
        The weights; their source tells HIPT's published file from any other.

    Raises:
        ValueError: The file holds no state dict of tensors.
    """
    with path.open("rb") as file:
        is_published = hashlib.file_digest(file, "sha256").hexdigest() == HIPT_SHA256
    source = "hipt" if is_published else OTHER_HIPT
    weights = _load_file(source, name, vit.architecture_kwargs(model_kwargs or {}), path, HIPT_CONFIG)
    if not is_published:
        log.warning(
            "%s is not the file that HIPT published: results are not called those of its weights", weights.origin
        )
    return weights


def load_timm(
    name: str,
    *,
    path: Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    input_px: int | None = None,
) -> PretrainedWeights:
    """Load weights of a timm architecture: from a file, else those published under its name.

    Args:
        name: A name timm knows, hf-hub:OWNER/MODEL or local-dir:DIR.
        path: Of a state dict.
        model_kwargs: Further arguments of the architecture.
        input_px: Side of the input images.

    Returns:
        The weights.

    Raises:
        ValueError: The name, the arguments or the file are wrong.
        RuntimeError: The hub fails, or refuses access.
        FileNotFoundError: A file of the folder is missing.
    """
    is_published = name.startswith((HUB, FOLDER))
    model_config = _read_config(name) if is_published else {}
    architecture = model_config.get("architecture", name)
    kwargs = vit.architecture_kwargs({**model_config.get("model_args", {}), **(model_kwargs or {})})
    publisher_config = model_config.get("pretrained_cfg", model_config)
    if "global_pool" in publisher_config:
        kwargs = vit.architecture_kwargs({"global_pool": publisher_config["global_pool"], **kwargs})
    if not is_published and not path:
        _require_known(architecture)
    vit.build_vit(architecture, input_px or TRIAL_PX, kwargs, "meta")  # refuses other models before any download
    if path:
        return _load_file("timm", architecture, kwargs, path, publisher_config)
    if not is_published:
        return _load_known(architecture, kwargs)
    path, key = find_file(name, *WEIGHTS_FILES), f"patch_encoder.name: {name}"
    state = read_state_dict(path, key)
    fingerprint = artifacts.file_fingerprint(path)
    return PretrainedWeights("timm", architecture, kwargs, state, key, name, fingerprint, publisher_config)


def native_input_px(weights: PretrainedWeights) -> int:
    """Return the side of the images that weights were trained on: by their positions, else as the publisher states.

    Args:
        weights: The weights.

    Returns:
        px.

    Raises:
        ValueError: Neither states it.
    """
    side = vit.native_img_size(weights.state, vit.build_vit(weights.name, TRIAL_PX, weights.model_kwargs, "meta"))
    known = timm.get_pretrained_cfg(weights.name)
    height, width = weights.publisher_config.get("input_size", known.input_size if known else (3, 0, 1))[-2:]
    if side is None and height != width:
        raise ValueError(
            f"patch_encoder.input_px: null, but {weights.origin} does not state the side of its square images; give it"
        )
    return side or int(height)


def _load_file(
    source: str, name: str, model_kwargs: dict[str, Any], path: Path, publisher_config: Mapping[str, Any]
) -> PretrainedWeights:
    """Load a file that the config names."""
    state = read_state_dict(path, "patch_encoder.weights")
    fingerprint, key = artifacts.file_fingerprint(path), f"patch_encoder.weights: {path}"
    return PretrainedWeights(source, name, model_kwargs, state, key, path.name, fingerprint, publisher_config)


def _require_known(name: str) -> None:
    """Raise ValueError where timm knows the architecture but no weights by this name."""
    architecture = name.split(".")[0]
    names = timm.list_pretrained(f"{architecture}.*")
    if timm.is_model(name) and name not in (*names, architecture if names else ""):
        raise ValueError(
            f"patch_encoder.name: timm knows no weights of {name}, of {architecture} {', '.join(names) or 'none'}; "
            f"name one, give patch_encoder.weights, or a repository of the hub as {HUB}owner/model"
        )


def _load_known(name: str, model_kwargs: dict[str, Any]) -> PretrainedWeights:
    """Load the weights timm knows by this name, from its cache or the hub."""
    # num_classes is left as published: timm then loads strictly.
    key = f"patch_encoder.name: {name}"
    known = timm.get_pretrained_cfg(name)
    with explain_hub_errors(key, (known and known.hf_hub_id) or ""):
        try:
            model: Any = timm.create_model(name, pretrained=True, **vit.resolve_layer_classes(model_kwargs))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{key}: its weights do not fit patch_encoder.model_kwargs {model_kwargs} ({reason})"
            ) from error
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()
    }
    return PretrainedWeights("timm", name, model_kwargs, state, key, name, publisher_config=model.pretrained_cfg)


def _read_config(name: str) -> dict[str, Any]:
    """Read config.json of a timm model on the hub or in a folder: architecture, model_args, pretrained_cfg."""
    path = find_file(name, "config.json")
    try:
        model_config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(model_config["architecture"], str):
            return model_config
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise ValueError(
        f"patch_encoder.name: the config.json of {name} names no timm architecture; give the architecture in "
        "patch_encoder.name and the file in patch_encoder.weights"
    )
