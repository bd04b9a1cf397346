"""Tokens: every 256 px patch of a slide's regions through the frozen patch encoder."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder import parse_metadata, read_patch_encoder
from slpd_core.encoders.precision import choose_precision, single_threaded_pool
from slpd_core.encoders.vit_inference import optimize_for_inference
from slpd_core.runtime import log, progress
from slpd_core.slides import token_cache
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import iter_region_pixels

VERSION = 4
CPU_BATCH_SIZE = 8  # its activations stay in the caches of a CPU; 4 is 4 % slower, 16 is 7 to 10 % slower
TRIAL_BATCH_SIZE, MAX_BATCH_SIZE = 8, 1024  # patches, on a GPU


def cut_patches(region: Tensor, patch_px: int) -> Tensor:
    """Cut a region, uint8 (side, side, 3), into its patches, row by row: uint8 (grid * grid, patch_px, patch_px, 3)."""
    grid = len(region) // patch_px
    rows = region.view(grid, patch_px, grid, patch_px, 3)
    return rows.transpose(1, 2).reshape(grid * grid, patch_px, patch_px, 3)


def resize(patches: Tensor, side_px: int) -> Tensor:
    """Bring patches, uint8 (B, side, side, 3), to another side: bicubic, antialiased, in whole grey levels."""
    if patches.shape[1] == side_px:
        return patches
    pixels = patches.permute(0, 3, 1, 2)
    if patches.device.type != "cpu":
        pixels = pixels.float()
    resized = F.interpolate(pixels, (side_px, side_px), mode="bicubic", antialias=True)
    if resized.dtype is not torch.uint8:
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.permute(0, 2, 3, 1).contiguous()


def mean_colors(region: np.ndarray, patch_px: int) -> np.ndarray:
    """The mean RGB of each patch of a region, uint8 (side, side, 3), row by row: float16 (grid * grid, 3), 0..255."""
    grid = len(region) // patch_px
    columns = region.reshape(grid, patch_px, -1).sum(1, dtype=np.uint32)  # whole rows first: 20 times as fast
    means = columns.reshape(grid, grid, patch_px, 3).sum(2) / patch_px**2
    return means.reshape(-1, 3).astype(np.float16)


def record_mean_colors(regions: Iterable[np.ndarray], patch_px: int, colour: Any) -> Iterator[np.ndarray]:
    """Pass regions on; the mean colours of region i become colour[i]."""
    for number, region in enumerate(regions):
        colour[number] = mean_colors(region, patch_px)
        yield region


class RegionTokenizer:
    """A frozen encoder that works through regions, patch_px a patch, batch by batch.

    encoder: uint8 (B, input_px, input_px, 3) → (B, token_dim). batch_size: patches a forward pass, at most; it is
    halved for good when they do not fit into memory.
    """

    def __init__(self, encoder: nn.Module, patch_px: int, input_px: int, device: str, batch_size: int) -> None:
        self.encoder, self.patch_px, self.input_px = encoder, patch_px, input_px
        self.device, self.batch_size = device, batch_size
        self._pinned: list[Tensor] = []

    def __call__(self, regions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """uint8 (side, side, 3) each → float16 (grid * grid, token_dim) each.

        A GPU is given the next region before the tokens of the last are waited for.
        Raises RuntimeError when a token is not finite or a single patch does not fit into memory.
        """
        ahead = None
        for region in regions:
            started = self._start(region)
            if ahead is not None:
                yield self._finish(*ahead)
            ahead = started
        if ahead is not None:
            yield self._finish(*ahead)

    @torch.inference_mode()
    def _start(self, region: np.ndarray) -> tuple[Tensor, Any]:
        """The region's tokens, on a GPU still to come, and the event that says when they are there."""
        pixels = torch.from_numpy(np.require(region, requirements="W"))
        if self.device == "cuda":
            pixels = self._pin(pixels).to(self.device, non_blocking=True)
        tokens = self.encode(cut_patches(pixels, self.patch_px))
        if self.device != "cuda":
            return tokens, None
        arrived = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True).copy_(tokens, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return arrived, event

    def _pin(self, pixels: Tensor) -> Tensor:
        """A copy the GPU can fetch by itself, in one of two buffers: the other may still be on its way."""
        if len(self._pinned) < 2:
            self._pinned.append(torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True))
        else:
            self._pinned.reverse()
        return self._pinned[-1].copy_(pixels)

    def _finish(self, tokens: Tensor, event: Any) -> np.ndarray:
        if event is not None:
            event.synchronize()
        encoded = tokens.numpy()
        if not np.isfinite(encoded).all():
            raise RuntimeError(
                "the patch encoder gives tokens that float16 cannot hold; set tokens.precision to fp32, or look for "
                "values that are not finite in its weights"
            )
        return encoded

    def encode(self, patches: Tensor) -> Tensor:
        """uint8 (patches, patch_px, patch_px, 3) → float16 (patches, token_dim), both on the device.

        On a CPU each thread encodes batches of its own: threads that share a batch wait for one another at every layer,
        which costs little on an idle machine and a multiple of the time on one that also does something else.
        Raises RuntimeError when a single patch does not fit into memory.
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
            return self.encoder(resize(batch, self.input_px)).to(torch.float16)
        except torch.OutOfMemoryError as error:
            self._halve(len(batch), error)
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return self._encode_batch(batch)

    def _halve(self, tried: int, error: torch.OutOfMemoryError) -> None:
        if tried == 1:
            raise RuntimeError(
                "the memory does not hold the patch encoder and a single patch: set tokens.precision to bf16, give the "
                f"job a larger or an idle GPU, or run it on the CPU with --resources gpu=0 ({error})"
            ) from error
        self.batch_size = tried // 2
        log.warning("out of memory: going on with batches of %d patches", self.batch_size)


def choose_batch_size(batch_size: int | str, encode: RegionTokenizer) -> int:
    """What `auto` stands for: few patches on a CPU, on a GPU as many as half of its free memory holds."""
    if isinstance(batch_size, int):
        return batch_size
    if encode.device != "cuda":
        return CPU_BATCH_SIZE
    patch_px = encode.patch_px
    patches = torch.zeros((TRIAL_BATCH_SIZE, patch_px, patch_px, 3), dtype=torch.uint8, device=encode.device)
    encode.encode(patches)  # the first call also takes the libraries' own memory
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encode.encode(patches)
    a_patch = max(1, (torch.cuda.max_memory_allocated() - before) // TRIAL_BATCH_SIZE)
    torch.cuda.empty_cache()
    held = torch.cuda.mem_get_info()[0] // 2 // a_patch
    return 1 << max(0, min(held, MAX_BATCH_SIZE).bit_length() - 1)


def load_tokenizer(
    weights_path: Path, *, precision: str, device: str = "cpu", batch_size: int | str = "auto", compile: bool = False
) -> RegionTokenizer:
    """Load the encoder of a weights file, ready to run; the keywords are those of `build_tokenizer`."""
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
    """Prepare a model to encode regions; the model itself is changed.

    Args:
        model: A timm ViT.
        meta: Its metadata, as `parse_metadata` returns.
        precision: "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        batch_size: Patches per forward pass; "auto" by the memory.
        compile: Whether torch compiles the encoder.

    Returns:
        The encoder of regions.
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
    encode = RegionTokenizer(encoder, meta["patch_px"], meta["input_px"], device, TRIAL_BATCH_SIZE)
    encode.batch_size = choose_batch_size(batch_size, encode)
    log.info("%s on %s, batches of %d patches", precision, device, encode.batch_size)
    return encode


def as_quarantined(regions: artifacts.Regions, reason: str) -> artifacts.Regions:
    """The same slide, quarantined for `reason`, with no regions."""
    slide = replace(regions.slide, status=artifacts.QUARANTINED, reason=reason)
    return replace(regions, slide=slide, coords=regions.coords[:0], tissue_fraction=regions.tissue_fraction[:0])


def build_provenance(
    settings: Mapping[str, Any], regions_meta: artifacts.Meta, encoder_meta: Mapping[str, Any], precision: str
) -> artifacts.Meta:
    """Return the metadata of tokens.

    Args:
        settings: The stage's section.
        regions_meta: The metadata of the regions' file.
        encoder_meta: The patch encoder's, as `parse_metadata` returns.
        precision: That the encoder ran in.
    """
    inputs = (regions_meta["fingerprint"], encoder_meta["fingerprint"], precision)
    return artifacts.provenance("tokens", VERSION, dict(settings), *inputs) | {
        "precision": precision,
        "encoder_source": encoder_meta["source"],
        "encoder_name": encoder_meta["name"],
        "encoder_normalization": "mean {:g} {:g} {:g}, std {:g} {:g} {:g}".format(
            *encoder_meta["mean"], *encoder_meta["std"]
        ),
    }


def count_patches(regions_path: str | Path, size_px: int, patch_px: int) -> int:
    """Return how many patches stand along the side of a region.

    Raises:
        ValueError: Regions do not divide into whole patches; names their file or slide.
    """
    if size_px % patch_px:
        raise ValueError(
            f"{regions_path}: regions of {size_px} px do not divide into the encoder's patches of {patch_px} px; make "
            "regions.size_px a multiple of patch_encoder.patch_px"
        )
    return size_px // patch_px


def run(
    *,
    slide_path: Path,
    regions_path: Path,
    weights_path: Path,
    tokens_path: Path,
    encoded_path: Path,
    section: config.TokenEncodingConfig,
    device: str,
    quarantine: tuple[type[Exception], ...],
    cache_dir: Path | None = None,
    state_dir: Path | None = None,
) -> None:
    """Encode a slide's regions; a slide that breaks on the way is quarantined with the reason and keeps none.

    encoded_path: the regions encoded, without their tokens, for the ledger. Tokens made once more leave it as it was,
    and Snakemake compares small files by content: so nothing after the ledger is outdated. quarantine: the errors that
    do that, others are raised. cache_dir: of tokens that cohorts share, see `token_cache`. state_dir: what runs note of
    the slides' files.
    """
    regions, meta = artifacts.read_regions(regions_path)
    encoder_meta = parse_metadata(artifacts.read_weights(weights_path)[1])
    patch_px, dim = encoder_meta["patch_px"], encoder_meta["token_dim"]
    grid = count_patches(regions_path, regions.size_px, patch_px)
    precision = choose_precision(section.precision, device, dim)
    provenance = build_provenance(section.model_dump(), meta, encoder_meta, precision)
    if not len(regions.coords):
        with artifacts.create_tokens(tokens_path, regions, grid, dim, provenance):
            pass
        artifacts.write_regions(encoded_path, regions, provenance)
        return
    if cache_dir and token_cache.get(cache_dir, provenance["fingerprint"], regions, tokens_path):
        artifacts.write_regions(encoded_path, regions, provenance)
        return
    unread = outages.name_mark(state_dir, regions.slide.slide_id, tokens_path)
    options = section.model_dump(include={"batch_size", "compile"})
    encode = load_tokenizer(weights_path, precision=precision, device=device, **options)
    pixels = iter_region_pixels(
        slide_path,
        regions,
        jpeg_scaled_decoding=section.jpeg_scaled_decoding,
        raise_slide_error=OSError in quarantine,
        state_dir=state_dir,
    )
    try:
        with artifacts.create_tokens(tokens_path, regions, grid, dim, provenance) as written:
            shown = progress(pixels, len(regions.coords), regions.slide.slide_id, "regions")
            for i, encoded in enumerate(encode(record_mean_colors(shown, patch_px, written.colour))):
                written.tokens[i] = encoded
        outages.note_read(unread)
    except SlideError as error:  # what else goes wrong, as writing to a full disk, is not the slide's fault
        if SlideError not in quarantine:
            raise
        reason = outages.explain(error, unread, slide_path)
        log.warning("quarantined: %s", reason)
        regions, cache_dir = as_quarantined(regions, reason), None
        with artifacts.create_tokens(tokens_path, regions, grid, dim, provenance):
            pass
    artifacts.write_regions(encoded_path, regions, provenance)
    if cache_dir:
        token_cache.store(cache_dir, provenance["fingerprint"], tokens_path)
