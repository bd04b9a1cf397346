"""The frozen patch encoder: a timm ViT, its weights seeded or imported, and all the tokens stage must know of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.encoders import pretrained_weights, vit
from slpd_core.encoders.patch_encoder import random_weights, token_dim
from slpd_core.encoders.precision import choose_precision
from slpd_core.encoders.pretrained_weights import HALF_RGB, PretrainedWeights
from slpd_core.pretraining import stage_one
from slpd_core.runtime import log
from slpd_core.ssl.distributed import train_as_one

VERSION = 5
HIPTS_KIND = "hipt, another file"  # the source of weights that are read as HIPT's, but are not those it published
DECISIVE = ("patch_px", "input_px", "pooling", "mean", "std", "interpolate_offset")


def fingerprint(tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> str:
    """Hash what decides the tokens, 32 hex digits: the tensors as loaded, and the settings they are used with.

    The same weights have the same one from the hub, a folder or a file.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}:".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return artifacts.fingerprint(
        "patch_encoder", str(VERSION), json.dumps(settings, sort_keys=True), digest.hexdigest()
    )


def fingerprint_config(own: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The settings that decide the tokens, named the same whoever publishes the weights."""
    model_kwargs = {key: value for key, value in own["model_kwargs"].items() if key != "global_pool"}
    pool = getattr(model, "global_pool", None)
    architecture = own["name"].split(".")[0]  # a tag names weights
    return {key: own[key] for key in DECISIVE} | {
        "name": architecture,
        "model_kwargs": model_kwargs,
        "global_pool": pool,
    }


def resolve_config(section: config.PatchEncoderConfig, found: PretrainedWeights) -> dict[str, Any]:
    """The section with the encoder's own values where it has null.

    Raises ValueError when the encoder does not say how its pixels were normalised.
    """
    own = section.model_dump() | {"name": found.name, "model_kwargs": found.model_kwargs}
    if own["input_px"] is None:
        own["input_px"] = pretrained_weights.native_input_px(found) if section.source == "timm" else section.patch_px
    if own["interpolate_offset"] is None:
        own["interpolate_offset"] = found.publisher_config.get("interpolate_offset", 0.0)
    for key in ("mean", "std"):
        if own[key] is None and found.publisher_config.get(key) is None:
            raise ValueError(f"patch_encoder.{key}: null, but {found.origin} names none; give what its authors publish")
        own[key] = [float(value) for value in own[key] or found.publisher_config[key]]
    return own


def load_source(section: config.PatchEncoderConfig, seed: int) -> PretrainedWeights:
    """What the source offers: the weights read, or for a random encoder its description alone."""
    section.require_weights()
    if section.source == "hipt":
        return pretrained_weights.load_hipt(
            Path(section.weights or ""), name=section.name, model_kwargs=section.model_kwargs
        )
    if section.source == "timm":
        weights = Path(section.weights) if section.weights else None
        return pretrained_weights.load_timm(
            section.name, weights=weights, model_kwargs=section.model_kwargs, input_px=section.input_px
        )
    model_kwargs = vit.architecture_kwargs(section.model_kwargs)
    return PretrainedWeights(
        section.name, model_kwargs, {}, "", f"seed {seed}", publisher_config={"mean": HALF_RGB, "std": HALF_RGB}
    )


@dataclass(frozen=True)
class StageOneSpec:
    """What source dino trains with, and where it leaves its history and the checkpoint it goes on from."""

    recipe: config.StageOneConfig
    patches_paths: list[Path]
    history_path: Path
    checkpoint_path: Path
    device: str = "cpu"
    gpus: int = 0


def plan_stage_one(
    section: config.PatchEncoderConfig, recipe: config.StageOneConfig, seed: int, device: str
) -> stage_one.Plan:
    """How stage one trains the section's encoder.

    Raises ValueError when a crop's side is not a multiple of the encoder's own patches.
    """
    model_kwargs, input_px = vit.architecture_kwargs(section.model_kwargs), section.input_px or section.patch_px
    shape = vit.build_vit(section.name, input_px, model_kwargs, "meta")
    side, width = vit.patch_stride(shape), int(shape.num_features)
    for key in ("global_crop_px", "local_crop_px"):
        if (crop_px := getattr(recipe, key)) % side:
            raise ValueError(
                f"patch_encoder.dino.{key}: {crop_px} is not a multiple of the {side} px that a token of "
                f"{section.name} covers; set it to {max(1, crop_px // side) * side}"
            )
    return stage_one.Plan(
        name=section.name,
        input_px=input_px,
        model_kwargs=model_kwargs,
        mean=section.mean or HALF_RGB,
        std=section.std or HALF_RGB,
        recipe=recipe,
        seed=seed,
        device=device,
        half=choose_precision("auto", device, width) == "bf16",
    )


def train_stage_one(
    section: config.PatchEncoderConfig, training: StageOneSpec, seed: int
) -> tuple[PretrainedWeights, pd.DataFrame]:
    """The teacher that stage one trains, and its history, one row an epoch; on several GPUs by a process each."""
    plan = plan_stage_one(section, training.recipe, seed, training.device)
    how = (training.patches_paths, plan, training.checkpoint_path)
    if training.gpus > 1 and training.device == "cuda":
        train_as_one(stage_one.train, training.gpus, training.device, *how)
    networks, history = stage_one.train(*how)  # after several processes: takes up what they have come to
    state = {name: tensor.cpu() for name, tensor in networks.teacher.encoder.state_dict().items()}
    origin = f"trained on {len(training.patches_paths)} slides, seed {seed}"
    weights = PretrainedWeights(
        section.name,
        plan.model_kwargs,
        state,
        "patch_encoder.dino",
        origin,
        publisher_config={"mean": plan.mean, "std": plan.std},
    )
    return weights, history


def build(section: config.PatchEncoderConfig, found: PretrainedWeights, seed: int) -> tuple[Any, dict[str, Any]]:
    """Build the encoder from its weights.

    Args:
        section: The settings.
        found: What the source offers, as `load_source` or `train_stage_one` returns.
        seed: Of a random encoder.

    Returns:
        The timm ViT, and its metadata: PATCH_ENCODER_META and interpolate_offset, as values.

    Raises:
        ValueError: The weights do not fit the architecture, or do not say how pixels are normalized.
    """
    own = resolve_config(section, found)
    if section.source == "hipt" and not pretrained_weights.is_hipts(Path(section.weights or "")):
        own["source"] = HIPTS_KIND
        log.warning("%s is not the file that HIPT published: results are not called those of its weights", found.origin)
    if section.source == "random":
        log.warning(
            "the patch encoder is random: an untrained baseline; for results give weights (patch_encoder.source)"
        )
        model = random_weights(found.name, own["input_px"], seed, found.model_kwargs)
    else:
        model = vit.build_with_weights(
            found.name, own["input_px"], found.model_kwargs, found.state, found.key, own["interpolate_offset"]
        )
    own["token_dim"] = token_dim(model, section.pooling)
    return model, own


def run(
    *, weights_path: Path, section: config.PatchEncoderConfig, seed: int, training: StageOneSpec | None = None
) -> None:
    """Write the encoder's weights and metadata; training: for source dino, whose history is written too."""
    if training:
        found, history = train_stage_one(section, training, seed)
        made_by = artifacts.provenance("patch_encoder", VERSION, training.recipe.model_dump(), found.origin)
        artifacts.write_both(training.history_path, "history", history, made_by)
    else:
        found = load_source(section, seed)
    model, own = build(section, found, seed)
    tensors = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    meta = artifacts.provenance("patch_encoder", VERSION, section.model_dump(), found.origin)
    meta |= {key: json.dumps(own[key]) for key in (*artifacts.PATCH_ENCODER_META, "interpolate_offset")}
    meta |= {"origin": found.origin, "origin_fingerprint": found.file_fingerprint}
    if training:
        meta["recipe"] = json.dumps(training.recipe.model_dump())
    meta["fingerprint"] = fingerprint(tensors, fingerprint_config(own, model))
    artifacts.write_weights(weights_path, tensors, meta)
    if training:
        training.checkpoint_path.unlink(missing_ok=True)
    log.info("%s (%s, %s), tokens of %d", found.name, section.source, found.origin, own["token_dim"])
