"""The frozen patch encoder: its weights, loaded or trained (stage one), and the settings that tokens depend on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.artifacts.coordinate_files import FEATURE_ENDINGS, FEATURE_READERS
from slpd_core.encoders import vit
from slpd_core.encoders.patch_encoder import build_encoder, load_weights
from slpd_core.encoders.patch_encoder_file import PLAIN_VIT
from slpd_core.encoders.plain_vit import describe_plain_vit
from slpd_core.encoders.precision import choose_precision
from slpd_core.encoders.pretrained_weights import HALF_RGB, PretrainedWeights
from slpd_core.pretraining import stage_one
from slpd_core.pretraining.dino_objective import DinoObjective
from slpd_core.pretraining.patch_augmentations import PatchCropParams
from slpd_core.pretraining.patch_networks import VitParams
from slpd_core.runtime import log
from slpd_core.ssl.distributed import launch_distributed
from slpd_core.ssl.schedules import Recipe

VERSION = 6
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


def _describe_features(section: config.PatchEncoderConfig) -> artifacts.Meta:
    """Describe an encoder that another tool ran, as metadata without weights; its first file tells their length."""
    folder, endings = Path(section.path or ""), FEATURE_ENDINGS[section.format or ""]
    path = next((path for path in sorted(folder.iterdir()) if path.name.endswith(endings)), None)
    if path is None:
        raise FileNotFoundError(
            f"patch_encoder.path: {folder} has no {' or '.join(endings)}; give the folder that holds the features"
        )
    features = FEATURE_READERS[path.suffix](path)
    name, token_dim = features.encoder or section.name, int(features.vectors.shape[-1])
    values: dict[str, Any] = {
        "name": name,
        "source": section.source,
        "model_kwargs": {},
        "patch_px": section.patch_px,
        "input_px": section.patch_px,
        "pooling": section.pooling,
        "mean": section.mean or HALF_RGB,
        "std": section.std or HALF_RGB,
        "token_dim": token_dim,
    }
    meta = artifacts.provenance("patch_encoder", VERSION, section.model_dump(), name)
    meta |= {key: json.dumps(value) for key, value in values.items()}
    return meta | {
        "fingerprint": artifacts.fingerprint("features", str(VERSION), name, str(token_dim), str(section.patch_px))
    }


@dataclass(frozen=True)
class StageOneSpec:
    """What source dino is trained on, how and where.

    Attributes:
        recipe: Settings of stage one.
        patches_paths: Of the slides' patches.
        history_path: Of its history, one row per epoch.
        checkpoint_path: Of the run.
        device: cpu or cuda.
        gpus: One process per GPU.
        tracker: wandb or mlflow, which gets the history too.
    """

    recipe: config.StageOneConfig
    patches_paths: list[Path]
    history_path: Path
    checkpoint_path: Path
    device: str = "cpu"
    gpus: int = 0
    tracker: str | None = None


def select_vit(section: config.PatchEncoderConfig, recipe: config.StageOneConfig, device: str) -> VitParams:
    """Select what stage one trains from the settings.

    Args:
        section: Of the patch encoder.
        recipe: Of stage one.
        device: cpu or cuda.

    Returns:
        Encoder, head and precision.

    Raises:
        ValueError: A crop's side is not a multiple of the encoder's own patches.
    """
    model_kwargs, input_px = vit.architecture_kwargs(section.model_kwargs), section.input_px or section.patch_px
    shape = vit.build_vit(section.name, input_px, model_kwargs, "meta")
    stride = vit.patch_stride(shape)
    for key in ("global_crop_px", "local_crop_px"):
        if (crop_px := getattr(recipe, key)) % stride:
            raise ValueError(
                f"patch_encoder.dino.{key}: {crop_px} is not a multiple of the {stride} px that a token of "
                f"{section.name} covers; set it to {max(1, crop_px // stride) * stride}"
            )
    return VitParams(
        name=section.name,
        input_px=input_px,
        model_kwargs=model_kwargs,
        mean=section.mean or HALF_RGB,
        std=section.std or HALF_RGB,
        drop_path=recipe.drop_path,
        hidden_dim=recipe.hidden_dim,
        bottleneck_dim=recipe.bottleneck_dim,
        out_dim=recipe.out_dim,
        half=choose_precision("auto", device, int(shape.num_features)) == "bf16",
    )


def select_stage_one(recipe: config.StageOneConfig) -> dict[str, Any]:
    """Sort the settings of stage one into keyword arguments of `stage_one.train`.

    Args:
        recipe: The settings.

    Returns:
        Its `crops`, `objective` and `recipe`.
    """
    return {
        "crops": recipe.extract(PatchCropParams),
        "objective": recipe.extract(DinoObjective),
        "recipe": recipe.extract(Recipe),
    }


def train_stage_one(vit_params: VitParams, spec: StageOneSpec, seed: int) -> tuple[PretrainedWeights, pd.DataFrame]:
    """Train the encoder, on several GPUs by one process each.

    Args:
        vit_params: Encoder and head.
        spec: What it is trained on.
        seed: Alone decides all that is random.

    Returns:
        The teacher's weights, and one history row per epoch.
    """
    options: dict[str, Any] = {"seed": seed, "device": spec.device, "tracker": spec.tracker}
    train: Callable[..., Any] = partial(stage_one.train, **options, **select_stage_one(spec.recipe))
    arguments = (spec.patches_paths, vit_params, spec.checkpoint_path)
    if spec.gpus > 1 and spec.device == "cuda":
        launch_distributed(train, spec.gpus, spec.device, *arguments)
    networks, history = train(*arguments)  # after several processes: loads what they have trained
    state = {name: tensor.cpu() for name, tensor in networks.teacher.encoder.state_dict().items()}
    weights = PretrainedWeights(
        "dino",
        vit_params.name,
        vit_params.model_kwargs,
        state,
        "patch_encoder.dino",
        f"trained on {len(spec.patches_paths)} slides, seed {seed}",
        publisher_config={"mean": vit_params.mean, "std": vit_params.std},
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
        ValueError: The settings do not say where the weights come from, or these do not fit the settings.
    """
    section.require_source()
    if section.source == "features":
        section.require_weights()
        meta = _describe_features(section)
        artifacts.write_weights(weights_path, {}, meta)
        log.info("tokens of %s from the features in %s", meta["token_dim"], section.path)
        return
    if training:
        vit_params = select_vit(section, training.recipe, training.device)
        weights, history = train_stage_one(vit_params, training, seed)
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
    plain = describe_plain_vit(model.eval())
    meta |= {PLAIN_VIT: json.dumps(plain)} if plain else {}
    if training:
        meta["recipe"] = json.dumps(training.recipe.model_dump())
    meta["fingerprint"] = _fingerprint(tensors, encoder_meta, getattr(model, "global_pool", None))
    artifacts.write_weights(weights_path, tensors, meta)
    if training:
        training.checkpoint_path.unlink(missing_ok=True)
    log.info("%s (%s, %s), tokens of %d", weights.name, section.source, weights.origin, encoder_meta["token_dim"])
