"""The frozen patch encoder: its weights, loaded or trained (stage one), and the settings that tokens depend on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.encoders import vit
from slpd_core.encoders.patch_encoder import build_encoder, load_weights
from slpd_core.encoders.precision import choose_precision
from slpd_core.encoders.pretrained_weights import HALF_RGB, PretrainedWeights
from slpd_core.pretraining import stage_one
from slpd_core.runtime import log
from slpd_core.ssl.distributed import launch_distributed

VERSION = 5
DECISIVE = ("patch_px", "input_px", "pooling", "mean", "std", "interpolate_offset")  # settings that decide the tokens


def _fingerprint(tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any], global_pool: str | None) -> str:
    """Hash the tensors and settings that decide the tokens, 32 hex digits: the same wherever the weights come from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}:".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    settings = {key: meta[key] for key in DECISIVE} | {
        "name": meta["name"].split(".")[0],  # a tag names weights
        "model_kwargs": {key: value for key, value in meta["model_kwargs"].items() if key != "global_pool"},
        "global_pool": global_pool,
    }
    return artifacts.fingerprint(
        "patch_encoder", str(VERSION), json.dumps(settings, sort_keys=True), digest.hexdigest()
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
        launch_distributed(stage_one.train, training.gpus, training.device, *how)
    networks, history = stage_one.train(*how)  # after several processes: takes up what they have come to
    state = {name: tensor.cpu() for name, tensor in networks.teacher.encoder.state_dict().items()}
    origin = f"trained on {len(training.patches_paths)} slides, seed {seed}"
    weights = PretrainedWeights(
        "dino",
        section.name,
        plan.model_kwargs,
        state,
        "patch_encoder.dino",
        origin,
        publisher_config={"mean": plan.mean, "std": plan.std},
    )
    return weights, history


def run(
    *, weights_path: Path, section: config.PatchEncoderConfig, seed: int, training: StageOneSpec | None = None
) -> None:
    """Write the encoder's weights and metadata, and for source dino its history.

    Args:
        weights_path: Of the safetensors file.
        section: Settings of the encoder.
        seed: Of random weights and of training.
        training: How source dino trains it.

    Raises:
        FileNotFoundError: The weights that the settings name are missing.
        ValueError: The weights do not fit the settings.
    """
    if training:
        weights, history = train_stage_one(section, training, seed)
        provenance = artifacts.provenance("patch_encoder", VERSION, training.recipe.model_dump(), weights.origin)
        artifacts.write_both(training.history_path, "history", history, provenance)
    else:
        section.require_weights()
        source = section.model_dump(include={"source", "name", "model_kwargs", "patch_px", "input_px"})
        weights = load_weights(**source, path=section.weights, seed=seed)
    settings = {"patch_px", "input_px", "pooling", "mean", "std", "interpolate_offset"}
    model, encoder_meta = build_encoder(weights, **section.model_dump(include=settings))
    tensors = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    meta = artifacts.provenance("patch_encoder", VERSION, section.model_dump(), weights.origin)
    meta |= {key: json.dumps(encoder_meta[key]) for key in (*artifacts.PATCH_ENCODER_META, "interpolate_offset")}
    meta |= {"origin": weights.origin, "origin_fingerprint": weights.file_fingerprint}
    if training:
        meta["recipe"] = json.dumps(training.recipe.model_dump())
    meta["fingerprint"] = _fingerprint(tensors, encoder_meta, getattr(model, "global_pool", None))
    artifacts.write_weights(weights_path, tensors, meta)
    if training:
        training.checkpoint_path.unlink(missing_ok=True)
    log.info("%s (%s, %s), tokens of %d", weights.name, section.source, weights.origin, encoder_meta["token_dim"])
