"""The tokenizer: a frozen patch encoder that turns regions into tokens, batch by batch."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slpd_core.encoders.patch_encoder_file import read_patch_encoder
from slpd_core.encoders.precision import single_threaded_pool
from slpd_core.encoders.vit_inference import optimize_for_inference
from slpd_core.runtime import log
from slpd_core.slides.patch_pixels import cut_patches, resize_patches

CPU_BATCH_SIZE = 8  # activations stay in the caches of a CPU; 4 is 4 % slower, 16 is 7 to 10 % slower
TRIAL_BATCH_SIZE, MAX_BATCH_SIZE = 8, 1024  # patches, on a GPU
EXPONENT_BITS = 0x7C00  # of float16; all are set in infinity and nan


class RegionTokenizer:
    """A frozen patch encoder that turns regions into tokens.

    Args:
        encoder: uint8 (B, input_px, input_px, 3) to (B, D).
        patch_px: Side of a patch within a region.
        input_px: Side that a patch is resized to.
        device: "cpu" or "cuda".
        batch_size: Patches per forward pass, at most; halved for good when they do not fit into memory.
    """

    def __init__(self, encoder: nn.Module, patch_px: int, input_px: int, device: str, batch_size: int) -> None:
        self.encoder, self.patch_px, self.input_px = encoder, patch_px, input_px
        self.device, self.batch_size = device, batch_size

    def __call__(self, regions: Iterable[np.ndarray | Tensor]) -> Iterator[np.ndarray]:
        """Encode regions; a GPU gets the next region before it has finished the last.

        Args:
            regions: uint8 RGB (side, side, 3) each, or pinned memory that holds them.

        Yields:
            Tokens, float16 (g * g, D) each, row by row.

        Raises:
            RuntimeError: A token is not finite, or a single patch does not fit into memory.
        """
        ahead = None
        for region in regions:
            started = self._start(self._stage(region) if isinstance(region, np.ndarray) else region)
            if ahead is not None:
                yield self._finish(*ahead)
            ahead = started
        if ahead is not None:
            yield self._finish(*ahead)

    def pinned_like(self, region: np.ndarray) -> Tensor | None:
        """Return pinned memory for a region, which the thread that read it copies it into.

        Args:
            region: uint8 RGB (side, side, 3).

        Returns:
            A buffer of its shape; None on a CPU, which reads the region itself.
        """
        # PyTorch hands out the same few buffers again, each once its transfer to the GPU has ended.
        return torch.empty(region.shape, dtype=torch.uint8, pin_memory=True) if self.device == "cuda" else None

    def _stage(self, region: np.ndarray) -> Tensor:
        """Return a region as a tensor that the device reads from."""
        pinned = self.pinned_like(region)
        if pinned is None:
            return torch.from_numpy(np.require(region, requirements="W"))
        pinned.numpy()[:] = region
        return pinned

    @torch.inference_mode()
    def _start(self, pixels: Tensor) -> tuple[Tensor, Any]:
        """Start to encode a region: its tokens, on a GPU still to come, and the event of their arrival."""
        tokens = self.encode(cut_patches(pixels.to(self.device, non_blocking=True), self.patch_px))
        if self.device != "cuda":
            return tokens, None
        arrived = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True).copy_(tokens, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return arrived, event

    def _finish(self, tokens: Tensor, event: Any) -> np.ndarray:
        """Wait for a region's tokens, and check that they are finite."""
        if event is not None:
            event.synchronize()
        encoded = tokens.numpy()
        if not is_finite(encoded):
            raise RuntimeError(
                "the patch encoder returns tokens that float16 cannot hold; set tokens.precision to fp32, or check its "
                "weights for values that are not finite"
            )
        return encoded

    def encode(self, patches: Tensor) -> Tensor:
        """Encode patches.

        On a CPU each thread encodes its own batches. Threads that share a batch wait for one another at every layer,
        which costs little on an idle machine and several times the time on a busy one.

        Args:
            patches: uint8 (n, patch_px, patch_px, 3), on the device.

        Returns:
            Tokens, float16 (n, D), on the device.

        Raises:
            RuntimeError: A single patch does not fit into memory.
        """
        if self.device != "cpu":
            return self._encode_batch(patches)
        threads = torch.get_num_threads()
        batches = patches.split(min(self.batch_size, -(-len(patches) // threads)))
        with single_threaded_pool(threads) as pool:
            return torch.cat(list(pool.map(self._encode_batch, batches)))

    @torch.inference_mode()
    def _encode_batch(self, batch: Tensor) -> Tensor:
        if len(batch) > self.batch_size:
            return torch.cat([self._encode_batch(part) for part in batch.split(self.batch_size)])
        try:
            tokens: Tensor = self.encoder(resize_patches(batch, self.input_px))
            return tokens.to(torch.float16)
        except torch.OutOfMemoryError as error:
            self._halve(len(batch), error)
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return self._encode_batch(batch)

    def _halve(self, tried: int, error: torch.OutOfMemoryError) -> None:
        """Halve the batch size that did not fit into memory."""
        if tried == 1:
            raise RuntimeError(
                "memory does not hold the patch encoder and a single patch: set tokens.precision to bf16, give the job "
                f"a larger or an idle GPU, or run it on the CPU with --resources gpu=0 ({error})"
            ) from error
        self.batch_size = tried // 2
        log.warning("out of memory: going on with batches of %d patches", self.batch_size)


def is_finite(tokens: np.ndarray) -> bool:
    """Check that all tokens are finite: by their exponents, in a twelfth of the time of `np.isfinite`.

    Args:
        tokens: float16.

    Returns:
        Whether they are.
    """
    magnitudes = tokens.view(np.uint16) & 0x7FFF
    return bool(magnitudes.max(initial=0) < EXPONENT_BITS)


def choose_batch_size(batch_size: int | str, tokenizer: RegionTokenizer) -> int:
    """Resolve "auto": few patches on a CPU, on a GPU as many as half of its free memory holds.

    Args:
        batch_size: Patches per forward pass, or "auto".
        tokenizer: The tokenizer, whose memory is measured.

    Returns:
        Patches per forward pass.
    """
    if isinstance(batch_size, int):
        return batch_size
    if tokenizer.device != "cuda":
        return CPU_BATCH_SIZE
    shape = (TRIAL_BATCH_SIZE, tokenizer.patch_px, tokenizer.patch_px, 3)
    patches = torch.zeros(shape, dtype=torch.uint8, device=tokenizer.device)
    tokenizer.encode(patches)  # the first call also allocates the libraries' own memory
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    tokenizer.encode(patches)
    bytes_per_patch = max(1, (torch.cuda.max_memory_allocated() - before) // TRIAL_BATCH_SIZE)
    torch.cuda.empty_cache()
    fitting = torch.cuda.mem_get_info()[0] // 2 // bytes_per_patch
    return 1 << max(0, min(fitting, MAX_BATCH_SIZE).bit_length() - 1)


def load_tokenizer(
    weights_path: Path, *, precision: str, device: str = "cpu", batch_size: int | str = "auto", compile: bool = False
) -> RegionTokenizer:
    """Load the tokenizer of a patch encoder's weights file.

    Args:
        weights_path: The file, as the stage patch_encoder writes it.
        precision, device, batch_size, compile: As in `build_tokenizer`.

    Returns:
        The tokenizer.
    """
    model, meta = read_patch_encoder(weights_path)
    return build_tokenizer(model, meta, precision=precision, device=device, batch_size=batch_size, compile=compile)


def build_tokenizer(
    model: nn.Module,
    meta: Mapping[str, Any],
    *,
    precision: str,
    device: str = "cpu",
    batch_size: int | str = "auto",
    compile: bool = False,
) -> RegionTokenizer:
    """Build a tokenizer from a patch encoder; the model itself is changed.

    Args:
        model: A `PlainVit` or a timm ViT.
        meta: Its metadata, as `encoders.patch_encoder_file.parse_metadata` returns.
        precision: "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        batch_size: Patches per forward pass; "auto" by the memory.
        compile: Whether torch compiles the encoder.

    Returns:
        The tokenizer.
    """
    encoder: Any = optimize_for_inference(
        model,
        mean=meta["mean"],
        std=meta["std"],
        pooling=meta["pooling"],
        precision=precision,
        device=device,
        pack=not compile,
    )
    if compile:
        encoder = torch.compile(encoder)
    tokenizer = RegionTokenizer(encoder, meta["patch_px"], meta["input_px"], device, TRIAL_BATCH_SIZE)
    tokenizer.batch_size = choose_batch_size(batch_size, tokenizer)
    log.info("%s on %s, batches of %d patches", precision, device, tokenizer.batch_size)
    return tokenizer
