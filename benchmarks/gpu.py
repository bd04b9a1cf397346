"""A step of stage two at the paper's size, change by change: kernels, agreement, time and memory on a GPU.

Kernels are counted on a CPU, in bfloat16, of the second step of an epoch: crops, targets, both networks, losses,
gradients, optimizer and teacher. Each operator that PyTorch dispatches counts one, but those that make views or empty
tensors; a GPU may start more than one for some of them. The batch is a thirty-second of 256, and so are the blocks.
With a GPU the changes are timed and compared there, too, in less than six minutes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import step
from slpd_core.encoders import region_encoder
from slpd_core.pretraining import blocks, objective
from slpd_core.pretraining.crops import sample_crops
from slpd_core.pretraining.objective import Batch
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams, reassigned_fraction
from slpd_core.pretraining.stage_two import StageTwo, cluster_dataset, embed_for_clustering
from slpd_core.pretraining.token_dataset import TokenDataset
from slpd_core.ssl import losses
from slpd_core.ssl.student_teacher import apply_schedules, update_networks

GRID, BATCH, SLIDES, REGIONS, EPOCH_REGIONS = 16, 256, 64, 4096, 62_852
SMALLER = 32  # times, where kernels are counted: batch and blocks
COUNTED = {"embed_dim": 48, "hidden_dim": 64, "bottleneck_dim": 32, "out_dim": 64}
ROUNDS = 20
NO_KERNELS = ("empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view", "_local_scalar_dense", "lift_fresh")


class Way(NamedTuple):
    """How a step is taken: regions per block, weights copied once or cast, replayed or not."""

    block: int
    copied: bool
    graphed: bool


WAYS = {
    "blocks of 128, weights cast": Way(128, copied=False, graphed=False),
    "one block of 256": Way(256, copied=False, graphed=False),
    "and weights copied once": Way(256, copied=True, graphed=False),
    "and replayed from a graph": Way(256, copied=True, graphed=True),
}


class KernelCount(TorchDispatchMode):
    """Counts the operators that start a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch has no types here
        self.total = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operator and call it."""
        (namespace, _, name), returns = operator._schema.name.partition("::"), operator._schema.returns
        is_view = returns and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        self.total += bool(namespace == "aten" and not is_view and name not in NO_KERNELS)
        return operator(*args, **(kwargs or {}))


def dataset(regions: int, dim: int, device: str) -> TokenDataset:
    """Draw regions of four kinds, with noise and an offset per slide."""
    rng, slide_of = np.random.default_rng(0), np.arange(regions) * min(SLIDES, regions // 8) // regions
    means = rng.normal(size=(4, dim))[rng.integers(0, 4, regions)] + 0.5 * rng.normal(size=(SLIDES, dim))[slide_of]
    tokens = torch.empty(regions, GRID, GRID, dim, dtype=torch.float16, device=device).normal_()
    tokens += torch.from_numpy(means).to(tokens)[:, None, None]
    ids = [f"slide-{i}" for i in range(slide_of[-1] + 1)]
    return TokenDataset(tokens, slide_of, np.zeros((regions, 2), np.int64), ids, ids, "f")


def start(batch_size: int, regions: int, device: str, drop_path: float = 0.1, **changes: int) -> StageTwo:
    """Begin the first epoch of the run slpd, in bfloat16."""
    update = {"precision": "bf16", "prototype_start_epoch": 0} | changes
    section = step.section_of(batch_size, drop_path).model_copy(update=update)
    stage = StageTwo.create(
        dataset(regions, step.TOKEN_DIM, device), seed=1, device=device, **select_arguments(section)
    )
    stage.begin_epoch(0)
    return stage


@contextmanager
def applied(way: Way, stage: StageTwo, smaller: int = 1) -> Iterator[None]:
    """Take steps in a way within the block."""
    device = stage.networks.device.type
    halves = nullcontext() if way.copied else patch.object(objective, "half_weights", lambda *_: nullcontext())
    with patch.dict(blocks.BLOCK_REGIONS, {device: max(1, way.block // smaller)}), halves:
        stage.graphed.enabled = way.graphed and device == "cuda"
        yield
    stage.graphed._kind, stage.graphed._replay = None, None


def steps(stage: StageTwo) -> Callable[[], None]:
    """Return a function that takes the next step, as the trainer does."""
    networks, recipe, batches = stage.networks, stage.recipe, stage.shuffle(0)

    def load() -> Iterator[Batch]:
        while True:
            yield from stage.load(0, batches, 0)

    loader = load()

    def take() -> None:
        values = apply_schedules(networks, recipe, 0, len(batches), len(batches[0]))
        metrics = stage.backward(next(loader))
        update_networks(networks, recipe.clip_norm, values["teacher_momentum"])
        torch.stack([*metrics.values()])

    return take


def count_kernels(way: Way) -> int:
    """Count the kernels of a step on a CPU."""
    per_region = losses.BLOCK_LOGITS["cuda"] // (65536 // COUNTED["out_dim"])
    logits = patch.dict(losses.BLOCK_LOGITS, {"cpu": per_region // SMALLER})
    attention = patch.object(region_encoder, "attend", F.scaled_dot_product_attention)  # one kernel, as on a GPU
    with patch.object(step, "TOKEN_DIM", COUNTED["embed_dim"]), logits, attention:
        stage = start(256 // SMALLER, 1024 // SMALLER, "cpu", **COUNTED)
        with applied(way, stage, SMALLER):
            take = steps(stage)
            take()
            with KernelCount() as count:
                take()
    return int(count.total)


def saved_mb() -> float:
    """Measure on a CPU what a region of a step keeps for the gradients, in MB: what four more regions add to four."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    sizes, attention = [], patch.object(region_encoder, "attend", F.scaled_dot_product_attention)
    for regions in (4, 8):
        stage = start(regions, 16, "cpu")
        batch = next(stage.load(0, stage.shuffle(0), 0))
        with attention, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            stage.backward(batch)
        sizes.append(sum(kept.values()) / 1e6)
        kept.clear()
    return (sizes[1] - sizes[0]) / 4


def first_gradients(stage: StageTwo, batch: Batch, way: Way) -> tuple[float, Tensor]:
    """Compute loss and gradients of a batch; of a graph, those of its replay for a copy of the batch."""
    centers = {name: center.clone() for name, center in stage.networks.centers.items()}
    with applied(way, stage):
        for _ in range(3 if way.graphed else 1):
            again = {term: (values.clone(), exists.clone()) for term, (values, exists) in batch.targets.items()}
            loss = stage.backward(replace(batch, views=[view.clone() for view in batch.views], targets=again))["loss"]
            for name, center in centers.items():
                stage.networks.centers[name].copy_(center)
    gradients = step.gradients(stage.networks).clone()
    stage.networks.student.zero_grad()
    return loss.item(), gradients


def show_steps(device: str, regions: int, batch_size: int) -> None:
    """Print a line per way: agreement without drop path, then time and memory with it."""
    exact, stage = start(batch_size, regions, device, drop_path=0.0), start(batch_size, regions, device)
    batch = next(exact.load(0, exact.shuffle(0), 0))
    expected_loss, expected = first_gradients(exact, batch, next(iter(WAYS.values())))
    print("| way | loss off by | gradients off by | ms a step | GPU memory, MB | captured |")
    print("|---|---:|---:|---:|---:|---|")
    for name, way in WAYS.items():
        loss, gradients = first_gradients(exact, batch, way)
        away = (gradients - expected).norm() / expected.norm()
        with applied(way, stage):
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()  # a graph takes its memory when it is captured
            take = steps(stage)
            for _ in range(4):
                take()
            seconds = min(spent(take, device) for _ in range(ROUNDS))
            peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
            captured = "yes" if stage.graphed.enabled and stage.graphed._replay else "no"
        print(
            f"| {name} | {abs(loss / expected_loss - 1):.1e} | {away:.1e} | {seconds * 1e3:.1f} | {peak:.0f} | "
            f"{captured} |",
            flush=True,
        )
    print()


def spent(work: Callable[[], object], device: str) -> float:
    """Measure the seconds of some work, until the GPU is idle."""
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def show_crops(stage: StageTwo, device: str, batch_size: int) -> None:
    """Print whether crops of all augmentations are those of a CPU, and their time."""
    tokens, regions = stage.dataset.tokens, np.arange(batch_size)
    few, equal = tokens[:batch_size].cpu(), []

    def crops(tokens: Tensor, augment: Any, device: str) -> list[Tensor]:
        params, rng = replace(stage.crops, augment=augment), np.random.default_rng(0)
        return sample_crops(tokens, regions, regions, batch_size, params, rng, torch.device(device))

    for augment in ("none", "hflip", "dihedral"):
        ours, expected = crops(tokens, augment, device), crops(few, augment, "cpu")
        equal.append(all(torch.equal(a.cpu(), b) for a, b in zip(ours, expected, strict=True)))
    seconds = min(spent(lambda: crops(tokens, "hflip", device), device) for _ in range(ROUNDS))
    print(f"Crops of all augmentations equal to those of a CPU: {all(equal)}; {seconds * 1e3:.2f} ms a batch\n")


def show_prototypes(stage: StageTwo, device: str) -> None:
    """Print the time of prototypes for an epoch, and how many regions change theirs in bfloat16."""
    found, dtypes = {}, {"fp32": torch.float32, "bf16": torch.bfloat16}
    print("| embedding | s an epoch | k-means and matching, s an epoch | regions that change prototype |")
    print("|---|---:|---:|---:|")
    for name, dtype in dtypes.items():
        embed_for_clustering(stage.networks, stage.dataset, dtype=dtype)
        started = time.perf_counter()
        embeddings = embed_for_clustering(stage.networks, stage.dataset, dtype=dtype)
        embedded = time.perf_counter()
        found[name] = cluster_dataset(stage.dataset, embeddings, ClusteringParams(), seed=1, epoch=0)
        clustered, scale = time.perf_counter(), EPOCH_REGIONS / len(stage)
        moved = reassigned_fraction(found["fp32"], found[name], stage.dataset.slide_of)
        times = f"{(embedded - started) * scale:.2f} | {(clustered - embedded) * scale:.2f}"
        print(f"| {name} | {times} | {moved:.2%} |", flush=True)
    print()


def main(device: str | None = None) -> None:
    """Print kernels and memory, counted on a CPU; on a GPU, agreement and times of each change."""
    print("| way | kernels |\n|---|---:|")
    for name, way in WAYS.items():
        print(f"| {name} | {'1 for both passes' if way.graphed else count_kernels(way)} |", flush=True)
    print(f"\nKept for the gradients, a region: {saved_mb():.1f} MB\n")
    device = device or ("cuda" if torch.cuda.is_available() else None)
    if device is None:
        print("No GPU on this machine: times and agreement on a GPU were not measured.")
        return
    show_steps(device, REGIONS, BATCH)
    stage = start(BATCH, REGIONS, device)
    show_crops(stage, device, BATCH)
    show_prototypes(stage, device)
