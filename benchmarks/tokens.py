"""Encoding a region of 4096 px, 256 patches through a ViT-S/16: ours against the published way and against the floor.

The floor is multiplying alone: the operations the network needs, over the best rate at which this machine multiplies
matrices in the same run. The region is one of the demo's drawing; weights are random. Ours come in float16, as they are
stored: that alone is an error of 2e-4.
"""

import os
import tempfile
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import cv2
import numpy as np
import timm
import torch
from torch.nn import functional as F
from torchvision import transforms

from benchmarks.slides import settings
from benchmarks.timing import best_seconds, in_own_process
from slpd_core import artifacts, config
from slpd_core.demo.picture import draw_slide_pixels
from slpd_core.encoders.frozen_layers import FrozenLinear
from slpd_core.encoders.precision import DTYPES, single_threaded_pool
from slpd_core.encoders.vit_inference import optimize_for_inference
from slpd_core.pretraining import patch_encoder
from slpd_core.runtime import generator, keep_freed_memory
from slpd_core.slides import encoding as encoding_module
from slpd_core.slides import patch_pixels, tokenizer, tokens
from slpd_core.slides.encoding import SlideTask, encode_slides
from slpd_core.wsi.region_reader import RegionReader
from slpd_core.wsi.writer import write_slide

REGION_PX, PATCH_PX = 4096, 256
NAME = "vit_small_patch16_224"
WIDTH, DEPTH, TOKENS, EMBEDDED = 384, 12, 257, 768  # of that network at 256 px
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PUBLISHED_BATCH = 256
MOST_MB = 3000
CALLS = 4  # of a multiplication in a row
SQUARE = 2048  # a shape beside those of the network, at which multiplying is fast
GPU_SECONDS, READING_SECONDS = 0.01, 0.1  # of a region, simulated
FED_SLIDES, FED_THREADS = (60, 10, 1) * 6, (1, 8, 16)
LAYERS = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))


def operations(last_block_whole: bool = False) -> float:
    """Count floating-point operations per patch; the last block computes [CLS] alone, but all its keys and values."""
    multiplied = sum(inside * outside for inside, outside in LAYERS)
    block = 2 * TOKENS * multiplied + 4 * TOKENS**2 * WIDTH
    first = 2 * TOKENS * 2 * WIDTH**2 + 2 * (multiplied - 2 * WIDTH**2) + 4 * TOKENS * WIDTH
    embedding = 2 * (TOKENS - 1) * EMBEDDED * WIDTH
    return embedding + (DEPTH - 1) * block + (block if last_block_whole else first)


def network() -> torch.nn.Module:
    """Build the network with seeded weights; a new one each time, as `optimize_for_inference` changes it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return timm.create_model(NAME, num_classes=0, img_size=PATCH_PX).eval().requires_grad_(False)


def published(patches: np.ndarray, device: str) -> Callable[[], torch.Tensor]:
    """Encode by ToTensor and Normalize, then timm with unfused attention, fp32, 256 patches at a time."""
    model = network().to(device)
    blocks: Any = model.blocks
    for block in blocks:
        block.attn.fused_attn = False
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    @torch.inference_mode()
    def encode() -> torch.Tensor:
        batch = torch.stack([prepare(patch) for patch in patches])
        return torch.cat([model(part.to(device)) for part in batch.split(PUBLISHED_BATCH)]).cpu()

    return encode


def autocast(patches: np.ndarray, device: str) -> Callable[[], torch.Tensor]:
    """Encode the same images by timm as it is, under autocast to bf16, in the package's batches."""
    model = network().to(device)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    @torch.inference_mode()
    def encode() -> torch.Tensor:
        batch = torch.stack([prepare(patch) for patch in patches])
        with torch.autocast(device, torch.bfloat16):
            parts = batch.split(tokenizer.CPU_BATCH_SIZE if device == "cpu" else PUBLISHED_BATCH)
            return torch.cat([model(part.to(device)).float() for part in parts]).cpu()

    return encode


def ours(region: np.ndarray, precision: str, device: str) -> Callable[[], torch.Tensor]:
    """Encode a region's pixels as the stage does."""
    frozen = optimize_for_inference(network(), mean=MEAN, std=STD, precision=precision, device=device)
    encode = tokenizer.RegionTokenizer(frozen, PATCH_PX, PATCH_PX, device, tokenizer.TRIAL_BATCH_SIZE)
    encode.batch_size = tokenizer.choose_batch_size("auto", encode)
    return lambda: torch.from_numpy(next(encode([region]))).float()


def multiplications(device: str) -> dict[tuple[str, str], tuple[Callable[[], object], float]]:
    """List ways to multiply by precision and shape, with the operations of a call; on a CPU in all its threads."""
    ways: dict[tuple[str, str], tuple[Callable[[], object], float]] = {}
    items = tokenizer.CPU_BATCH_SIZE * TOKENS
    shapes = {f"{inside} x {outside}": (items, inside, outside) for inside, outside in LAYERS}
    threads = torch.get_num_threads() if device == "cpu" else 1
    pool = single_threaded_pool(threads)

    def in_all(layer: torch.nn.Module, x: torch.Tensor) -> None:
        list(pool.map(multiply, [layer] * threads, [x] * threads))

    for precision in ("fp32", "bf16"):
        dtype = DTYPES[precision]
        for name, (rows, inside, outside) in {**shapes, f"{SQUARE} x {SQUARE}": (SQUARE,) * 3}.items():
            weight, x = (torch.randn(size, inside, device=device) for size in (outside, rows))
            layer, x = FrozenLinear(weight, None, dtype), x.to(dtype)
            ways[precision, name] = (
                partial(in_all, layer, x),
                2.0 * rows * inside * outside * threads * CALLS,
            )
    return ways


@torch.inference_mode()
def multiply(layer: torch.nn.Module, x: torch.Tensor) -> None:
    """Call a layer several times and wait for the GPU."""
    for _ in range(CALLS):
        layer(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def peaks(device: str, rounds: int = 8) -> dict[str, tuple[float, str]]:
    """Measure the best rate per precision, operations per second, and the shape that reached it."""
    ways = multiplications(device)
    seconds = best_seconds({key: way for key, (way, _) in ways.items()}, rounds)
    rates = {key: work / seconds[key] for key, (_, work) in ways.items()}
    best = {}
    for precision in ("fp32", "bf16"):
        key = max((key for key in rates if key[0] == precision), key=rates.__getitem__)
        best[precision] = rates[key], key[1]
    return best


def agreement(encoded: torch.Tensor, expected: torch.Tensor) -> str:
    """Format the relative error, and the median cosine with the mean token removed."""
    centred = encoded - encoded.mean(0), expected - expected.mean(0)
    return f"{(encoded - expected).norm() / expected.norm():.1e} | {F.cosine_similarity(*centred).median():.4f}"


def timed(
    way: Callable[..., Callable[[], torch.Tensor]], arguments: tuple[object, ...], device: str, keep: bool, rounds: int
) -> tuple[torch.Tensor, float]:
    """Encode a region by a way and time it; keep: keep freed memory in the process, as the jobs do."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    encode = way(*arguments, device)
    encoded = encode()
    return encoded, best_seconds({"it": encode}, rounds)["it"]


def encoding(picture: np.ndarray, device: str, rounds: int) -> None:
    """Print the table of a device; each way runs in a new process, one after the other, and all of them twice."""
    patches = patch_pixels.cut_patches(torch.from_numpy(picture), PATCH_PX).numpy()
    before = peaks(device)
    ways = {
        "published: eager, fp32, batch 256": ("fp32", published, (patches,), False),
        "the same, keeping freed memory": ("fp32", published, (patches,), True),
        "timm under autocast": ("bf16", autocast, (patches,), False),
        "ours, fp32": ("fp32", ours, (picture, "fp32"), True),
        "ours, bf16": ("bf16", ours, (picture, "bf16"), True),
    }
    results, seconds = {}, dict.fromkeys(ways, float("inf"))
    for _ in range(2):
        for name, (_, way, arguments, keep) in ways.items():
            (results[name], spent), _ = in_own_process(timed, way, arguments, device, keep, rounds)
            seconds[name] = min(seconds[name], spent)
    after = peaks(device)
    rates = {precision: max(before[precision], after[precision]) for precision in before}
    baseline = next(iter(ways))
    print(
        f"Encoding on {device}, {operations() / 1e9:.2f} GFLOP a patch ({operations(True) / 1e9:.2f} with the last "
        f"block whole), {torch.get_num_threads()} threads; multiplying at best "
        + ", ".join(f"{precision} {rate / 1e9:.0f} GFLOP/s ({shape})" for precision, (rate, shape) in rates.items())
        + "\n\n| way | seconds a region | ratio | of the multiplying peak | relative error | centred cosine |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for name, (precision, *_) in ways.items():
        peak = operations() * len(patches) / seconds[name] / rates[precision][0]
        ratio = seconds[baseline] / seconds[name]
        print(
            f"| {name} | {seconds[name]:.2f} | {ratio:.2f} | {peak:.0%} | "
            f"{agreement(results[name], results[baseline])} |"
        )
    print(flush=True)


class SimulatedGpu(tokenizer.RegionTokenizer):
    """A tokenizer whose device works for `GPU_SECONDS` on each region, one after another, by the clock alone."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity(), PATCH_PX, PATCH_PX, "cpu", 1)
        self.tokens = torch.zeros(((REGION_PX // PATCH_PX) ** 2, WIDTH), dtype=torch.float16)
        self.free: deque[torch.Tensor] = deque()
        self.began = self.idle_from = 0.0

    def pinned_like(self, region: np.ndarray) -> torch.Tensor:
        """Return a buffer that is free again, as PyTorch hands out pinned memory."""
        return self.free.popleft() if self.free else torch.empty(region.shape, dtype=torch.uint8)

    def _start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Any]:
        self.began = self.began or time.perf_counter()
        self.idle_from = done = max(time.perf_counter(), self.idle_from) + GPU_SECONDS

        def wait() -> None:
            time.sleep(max(0.0, done - time.perf_counter()))
            self.free.append(pixels)

        return self.tokens, Namespace(synchronize=wait)


class SimulatedReader(RegionReader):
    """A reader that returns the same pixels after `READING_SECONDS`."""

    pixels = np.zeros((1, 1, 3), np.uint8)

    def read(self, i: int) -> np.ndarray:
        """Wait, and return the pixels."""
        time.sleep(READING_SECONDS)
        return self.pixels


def feed(folder: Path, picture: np.ndarray, threads: int) -> float:
    """Encode the regions of slides on a simulated GPU; return the share of time that it is busy, start-up apart."""
    keep_freed_memory()
    cv2.setNumThreads(1)  # as an open slide does
    SimulatedReader.pixels = picture
    tasks = []
    for i, n_regions in enumerate(FED_SLIDES):
        info = artifacts.SlideInfo(f"s{i}", artifacts.OK, "", REGION_PX, REGION_PX, 0.5, "sheet")
        coords, tissue_fraction = np.zeros((n_regions, 2), np.int64), np.ones(n_regions, np.float32)
        regions = artifacts.Regions(info, coords, tissue_fraction, REGION_PX, REGION_PX, 0.5)
        path = folder / f"{i}.h5"
        tasks.append(SlideTask(path, regions, path, artifacts.provenance("tokens", 1, {}, str(i))))
    with patch.object(encoding_module, "RegionReader", SimulatedReader):
        gpu = SimulatedGpu()
        list(encode_slides(tasks, gpu, token_dim=WIDTH, reading_threads=threads))
    return sum(FED_SLIDES) * GPU_SECONDS / (time.perf_counter() - gpu.began)


def feeding(picture: np.ndarray, rounds: int = 5) -> None:
    """Print how busy threads that read keep a simulated GPU."""
    shares: dict[int, list[float]] = {threads: [] for threads in FED_THREADS}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for threads, of_threads in shares.items():
                of_threads.append(in_own_process(feed, Path(name), picture, threads)[0])
    print(
        f"A simulated GPU of {GPU_SECONDS * 1e3:g} ms a region, regions read in {READING_SECONDS * 1e3:g} ms, "
        f"{len(FED_SLIDES)} slides of {sum(FED_SLIDES)} regions together\n\n| threads | busy, median | least | most |\n"
        "|---:|---:|---:|---:|"
    )
    for threads, of_threads in shares.items():
        print(f"| {threads} | {np.median(of_threads):.0%} | {min(of_threads):.0%} | {max(of_threads):.0%} |")
    print(flush=True)


def job(folder: Path, precision: Literal["fp32", "auto"]) -> str:
    """Run the stage on a slide of one region; return its precision."""
    keep_freed_memory()
    torch.set_num_threads(2)
    section = config.TokenEncodingConfig(
        precision=precision, batch_size="auto", compile=False, jpeg_scaled_decoding=True
    )
    tokens.run(
        slide_paths=[folder / "slide.tiff"],
        regions_paths=[folder / "regions.h5"],
        weights_path=folder / "weights.safetensors",
        tokens_paths=[folder / "tokens.h5"],
        encoded_paths=[folder / "encoded.h5"],
        section=section,
        device="cpu",
        quarantine=(),
    )
    return artifacts.read_tokens(folder / "tokens.h5")[1]["precision"]


def memory(picture: np.ndarray) -> None:
    """Print the cost of a job, its libraries included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slide(folder / "slide.tiff", picture, 0.5)
        info = artifacts.SlideInfo("s", artifacts.OK, "", REGION_PX, REGION_PX, 0.5, "sheet")
        regions = artifacts.Regions(info, np.zeros((1, 2), np.int64), np.ones(1, np.float32), REGION_PX, REGION_PX, 0.5)
        artifacts.write_regions(folder / "regions.h5", regions, artifacts.provenance("regions", 1, {}, "f"))
        section = settings().patch_encoder.cohort_encoder.model_copy(update={"source": "random", "name": NAME})
        patch_encoder.run(weights_path=folder / "weights.safetensors", section=section, seed=1)
        print("A job of one region, reading and start included\n\n| precision | seconds | peak memory, MB |")
        print("|---|---:|---:|")
        for precision in ("fp32", "auto"):
            chosen, cost = in_own_process(job, folder, precision)
            over = "" if cost.peak_mb < MOST_MB else f" (more than {MOST_MB})"
            print(f"| {precision}: {chosen} | {cost.seconds:.1f} | {cost.peak_mb:.0f}{over} |", flush=True)


def main() -> None:
    """Draw the region and print the tables."""
    picture = draw_slide_pixels(generator(1, "benchmark"), generator(1, "stain"), "glands", REGION_PX)
    encoding(picture, "cpu", rounds=1)
    if torch.cuda.is_available():
        encoding(picture, "cuda", rounds=4)
    memory(picture)
    feeding(picture)
