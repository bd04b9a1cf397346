"""How fast this machine is at each stage, measured on noise of the right size."""

import time
from pathlib import Path

import numpy as np
import torch

from slpd_core import config
from slpd_core.encoders import patch_encoder as encoders
from slpd_core.encoders import vit_inference
from slpd_core.evaluation import classifiers
from slpd_core.pretraining import patch_encoder, pretrain, stage_one
from slpd_core.pretraining.networks import start_networks
from slpd_core.pretraining.token_dataset import Cohort
from slpd_core.slides import tokens

CPU_PATCHES, GPU_PATCHES = 16, 2048  # that are encoded to see how long one takes
CPU_BATCH = 16  # regions or patches a step of training; the rate is nearly that of a larger batch
SLIDES = 3  # that a classifier is trained on


def seconds_a_patch(weights_path: Path, section: config.TokenEncodingConfig, device: str) -> tuple[float, int, str]:
    """Seconds the patch encoder takes for a patch, by one thread on a CPU; the token's length, the precision."""
    meta = encoders.load(weights_path)[1]
    precision = vit_inference.choose_precision(section.precision, device, meta["token_dim"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encode = tokens.prepare(
            weights_path, precision=precision, device=device, batch_size=section.batch_size, compile=section.compile
        )
        side, count = meta["patch_px"], GPU_PATCHES if device == "cuda" else CPU_PATCHES
        patches = torch.zeros((count, side, side, 3), dtype=torch.uint8, device=device)
        encode.encode(patches)
        started = time.perf_counter()
        encode.encode(patches).cpu()
    finally:
        torch.set_num_threads(threads)
    return (time.perf_counter() - started) / count, int(meta["token_dim"]), precision


def time_batch(batch_size: int, device: str) -> int:
    return batch_size if device == "cuda" else min(batch_size, CPU_BATCH)


class Noise(stage_one.Patches):
    """Patches of stage one without a file."""

    def __init__(self, count: int, patch_px: int) -> None:
        self.count, self.patch_px = count, patch_px

    def __len__(self) -> int:
        return self.count

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """uint8 (rows, P, P, 3)."""
        return torch.randint(0, 256, (len(rows), self.patch_px, self.patch_px, 3), dtype=torch.uint8)


def patches_a_second(section: config.PatchEncoderConfig, recipe: config.StageOneConfig, device: str) -> float:
    """Patches that stage one trains on in a second."""
    batch = time_batch(recipe.batch_size, device)
    short = recipe.model_copy(update={"batch_size": batch, "epochs": 2, "warmup_epochs": 0})
    plan, noise = patch_encoder.plan_stage_one(section, short, 1, device), Noise(2 * batch, section.patch_px)
    networks = plan.start()
    for epoch in range(2):
        started = time.perf_counter()
        stage_one.train_epoch(networks, noise, plan, epoch, {}, [], lambda: False)
    return len(noise) / (time.perf_counter() - started)


def regions_a_second(section: config.PretrainRunConfig, grid: int, token_dim: int, device: str) -> float:
    """Regions that a pretraining run trains on in a second, its prototypes included."""
    batch = time_batch(section.batch_size, device)
    R = 2 * batch
    changes = {"batch_size": batch, "epochs": 2, "warmup_epochs": 0, "prototype_start_epoch": 0, "init_from": None}
    short = section.model_copy(update=changes)
    ids, slide_of = ["a", "b"], np.repeat([0, 1], batch)
    noise = torch.randn(R, grid, grid, token_dim).half()
    cohort = Cohort(noise, slide_of, np.zeros((R, 2), np.int64), ids, ids, "", ids).near(device)
    networks = start_networks(short, token_dim, 1, device)
    for epoch in range(2):
        started = time.perf_counter()
        begun = pretrain.begin_epoch(networks, cohort, short, 1, epoch, None, device)
        pretrain.train_epoch(networks, cohort, short, begun, 1, epoch, lambda: False)
    return R / (time.perf_counter() - started)


def seconds_a_slide(classifier: str, section: config.ClassifierTrainingConfig, rows: int, dim: int) -> float:
    """Seconds that a classifier takes to train on a slide once; rows: of its regions or patches, (rows, dim)."""
    slides = [str(number) for number in range(SLIDES)]
    feature = np.random.default_rng(0).standard_normal((max(1, rows), dim)).astype(np.float32)
    once, labels = section.model_copy(update={"epochs": 1}), np.arange(SLIDES) % 2
    started = time.perf_counter()
    classifiers.train(lambda _: feature, slides, labels, ["0", "1"], classifier, once, 0)
    return (time.perf_counter() - started) / SLIDES
