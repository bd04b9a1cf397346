"""The speed of this machine at each stage, measured on noise of the right size."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder_file import parse_metadata, read_patch_encoder
from slpd_core.encoders.precision import choose_precision
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import classifiers
from slpd_core.evaluation.training import Bags
from slpd_core.pretraining import patch_encoder, pretrain, stage_one
from slpd_core.pretraining.patch_dataset import PatchDataset
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.slides import tokenizer
from slpd_core.ssl.stage import PretrainingStage
from slpd_core.ssl.trainer import EpochState, train_epoch

CPU_PATCHES, GPU_PATCHES = 16, 2048  # encoded to time one
CPU_TRAINING_BATCH = 16  # regions or patches per training step; the rate is nearly that of a larger batch
TIMED_SLIDES = 3  # that a classifier is trained on


@dataclass(frozen=True)
class EncoderSpeed:
    """The measured speed of a patch encoder.

    Attributes:
        seconds_per_patch: Seconds to encode a patch, by one thread on a CPU.
        token_dim: Length of a token.
        precision: Precision in which it computes.
        patches_per_region: Patches of a region.
        weights_gb: Size of the files of its weights, GB.
    """

    seconds_per_patch: float
    token_dim: int
    precision: str
    patches_per_region: int
    weights_gb: float = 0.0


def describe_features(weights_path: Path, *, region_px: int) -> EncoderSpeed:
    """Describe another tool's features, which are read and not encoded.

    Args:
        weights_path: The patch encoder, as the stage writes it.
        region_px: Side of a region.

    Returns:
        The speed: no time per patch.
    """
    meta = parse_metadata(artifacts.read_weights(weights_path)[1])
    return EncoderSpeed(0.0, meta["token_dim"], "fp16", (region_px // meta["patch_px"]) ** 2)


def time_patch_encoder(
    weights_path: Path,
    *,
    region_px: int,
    device: str,
    precision: str = "auto",
    batch_size: int | str = "auto",
    compile: bool = False,
    weights_gb: float = 0.0,
) -> EncoderSpeed:
    """Time a patch encoder on blank patches.

    Args:
        weights_path: Its weights, as the patch_encoder stage writes them.
        region_px: Side of a region, px.
        device: "cuda" or "cpu".
        precision: As tokens.precision.
        batch_size: As tokens.batch_size.
        compile: As tokens.compile.
        weights_gb: Size of the files of its weights, GB.

    Returns:
        Its speed.

    Raises:
        ValueError: The weights file is broken.
    """
    meta = read_patch_encoder(weights_path)[1]
    chosen = choose_precision(precision, device, meta["token_dim"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encode = tokenizer.load_tokenizer(
            weights_path, precision=chosen, device=device, batch_size=batch_size, compile=compile
        )
        side, count = meta["patch_px"], GPU_PATCHES if device == "cuda" else CPU_PATCHES
        patches = torch.zeros((count, side, side, 3), dtype=torch.uint8, device=device)
        encode.encode(patches)
        started = time.perf_counter()
        encode.encode(patches).cpu()
        seconds = (time.perf_counter() - started) / count
    finally:
        torch.set_num_threads(threads)
    return EncoderSpeed(seconds, int(meta["token_dim"]), chosen, (region_px // side) ** 2, weights_gb)


class NoisePatches(PatchDataset):
    """Patches of stage one without a file.

    Args:
        count: How many.
        patch_px: Side of a patch, px.
    """

    def __init__(self, count: int, patch_px: int) -> None:
        self.count, self.patch_px = count, patch_px

    def __len__(self) -> int:
        return self.count

    def get(self, rows: np.ndarray) -> torch.Tensor:
        """Draw patches.

        Args:
            rows: As many rows as patches.

        Returns:
            Noise, uint8 (rows, patch_px, patch_px, 3).
        """
        return torch.randint(0, 256, (len(rows), self.patch_px, self.patch_px, 3), dtype=torch.uint8)


def time_epoch(stage: PretrainingStage) -> float:
    """Train two epochs and time the second; the first one warms up.

    Args:
        stage: One of pretraining.

    Returns:
        Patches or regions per second.
    """
    for epoch in range(2):
        started = time.perf_counter()
        train_epoch(stage, EpochState(epoch, stage.begin_epoch(epoch)))
    return len(stage) / (time.perf_counter() - started)


def time_stage_one(encoder: config.PatchEncoderConfig, recipe: config.StageOneConfig, device: str) -> float:
    """Time the training of a patch encoder.

    Args:
        encoder: Its settings.
        recipe: The settings of its training.
        device: "cuda" or "cpu".

    Returns:
        Patches trained on per second.
    """
    batch_size = training_batch(recipe.batch_size, device)
    short = recipe.model_copy(update={"batch_size": batch_size, "epochs": 2, "warmup_epochs": 0})
    noise, vit_params = NoisePatches(2 * batch_size, encoder.patch_px), patch_encoder.select_vit(encoder, short, device)
    arguments = patch_encoder.select_stage_one(short)
    return time_epoch(stage_one.StageOne.create(noise, vit_params, seed=1, device=device, **arguments))


def time_pretraining(run: config.PretrainRunConfig, grid: int, token_dim: int, device: str) -> float:
    """Time a pretraining run, its prototypes included.

    Args:
        run: Its settings.
        grid: Tokens along a side of a region.
        token_dim: Length of a token.
        device: "cuda" or "cpu".

    Returns:
        Regions trained on per second.
    """
    batch_size = training_batch(run.batch_size, device)
    n_regions = 2 * batch_size
    changes = {"batch_size": batch_size, "epochs": 2, "warmup_epochs": 0, "prototype_start_epoch": 0, "init_from": None}
    # Steps of one kind: on a GPU the second is captured as a graph, and those of the timed epoch replay it.
    short = run.model_copy(update=changes | {"freeze_last_layer_epochs": 0})
    ids, slide_of = ["a", "b"], np.repeat([0, 1], batch_size)
    noise = torch.randn(n_regions, grid, grid, token_dim).half()
    dataset = TokenDataset(noise, slide_of, np.zeros((n_regions, 2), np.int64), ids, ids, "")
    return time_epoch(StageTwo.create(dataset, seed=1, device=device, **pretrain.select_arguments(short)))


def time_classifier(classifier: str, n_instances: int, dim: int, **training: Any) -> float:
    """Time the training of a classifier.

    Args:
        classifier: Its name.
        n_instances: Regions or patches of a slide.
        dim: Length of their features.
        training: The keywords of `fit_classifier`, but for `epochs`.

    Returns:
        Seconds to train on a slide once.
    """
    feature = np.random.default_rng(0).standard_normal((max(1, n_instances), dim)).astype(np.float32)
    bags = Bags([str(i) for i in range(TIMED_SLIDES)], np.arange(TIMED_SLIDES) % 2)
    started = time.perf_counter()
    classifiers.fit_classifier(lambda _: feature, bags, Classification(("0", "1")), classifier, 0, epochs=1, **training)
    return (time.perf_counter() - started) / TIMED_SLIDES


def training_batch(batch_size: int, device: str) -> int:
    """Choose the batch size of a timed training.

    Args:
        batch_size: That of the settings.
        device: "cuda" or "cpu".

    Returns:
        The same on a GPU, at most CPU_TRAINING_BATCH on a CPU.
    """
    return batch_size if device == "cuda" else min(batch_size, CPU_TRAINING_BATCH)
