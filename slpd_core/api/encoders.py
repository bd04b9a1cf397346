"""Patch and region encoders, tokens and embeddings."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from slpd_core import artifacts, config
from slpd_core.config.base import Positive, Seed
from slpd_core.config.published import INPUT_KEYS, resolve_encoder
from slpd_core.encoders import region_encoder
from slpd_core.encoders.patch_encoder import build_encoder, load_weights
from slpd_core.encoders.patch_encoder_file import read_patch_encoder
from slpd_core.encoders.precision import choose_precision
from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.pretraining.networks import torch_seed
from slpd_core.pretraining.token_dataset import embed_regions
from slpd_core.slides.patch_pixels import count_patches
from slpd_core.slides.tokenizer import RegionTokenizer, build_tokenizer
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import iter_regions

Device = Literal["cpu", "cuda"] | None
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@config.check_arguments(
    config.PatchEncoderBaseConfig,
    config.TokenEncodingConfig,
    skip=("source", "weights", "model_kwargs"),
    device=Device,
    seed=Seed,
)
def build_patch_encoder(
    source: Literal["random", "hipt", "timm"] | None = None,
    *,
    name: str = "vit_small_patch16_224",
    weights: str | Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    patch_px: int = 256,
    input_px: int | None = None,
    pooling: Literal["cls", "cls_mean"] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolate_offset: float | None = None,
    precision: Precision = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: Device = None,
    seed: int = 1,
) -> RegionTokenizer:
    """Build a frozen patch encoder, ready to run.

    Args:
        source: "random" (untrained: a baseline), "hipt" (HIPT's vit256_small_dino.pth, as in the paper) or "timm";
            None: "timm", of a published encoder.
        name: The timm architecture, or a published encoder such as "uni2-h" (docs/encoders.md), which decides the
            arguments that are None; with "timm" also hf-hub:OWNER/MODEL or local-dir:DIR.
        weights: Path of the checkpoint for "hipt", of a state dict for "timm"; None: those published under the name.
        model_kwargs: Further arguments of the architecture, as for timm.create_model.
        patch_px: Side of a patch within the region (paper: 256).
        input_px: Side that a patch is resized to; None: the encoder's own for "timm", else patch_px.
        pooling: A patch's token: "cls" ([CLS]; paper) or "cls_mean" ([CLS], then the mean of the other tokens);
            None: the published encoder's, else "cls".
        mean, std: Normalization of RGB in 0..1, three numbers each; None: the encoder's own.
        interpolate_offset: Added to the grid when positions are resampled; None: 0.1 for "hipt", else 0.
        precision: "fp32", "bf16", "fp16", or "auto": half precision where the device is fast at it.
        batch_size: Patches per forward pass; "auto": by the free memory.
        device: "cpu" or "cuda"; None: a GPU if there is one.
        seed: Seed of random weights.

    Returns:
        The encoder for `encode`: it maps an iterable of regions, uint8 (side, side, 3), to float16 (g * g, D) each.

    Raises:
        ValueError: Nothing says where the weights come from, or they do not fit the architecture, or do not state how
            pixels are normalized.
        FileNotFoundError: There is no such file of weights.
        RuntimeError: The hub fails, or refuses access.
    """
    stated = {"source": source, "name": name, "weights": weights, "model_kwargs": model_kwargs, "input_px": input_px}
    settings = resolve_encoder(stated | {"pooling": pooling, "mean": mean, "std": std})
    of_weights = {key: settings[key] for key in ("source", "name", "model_kwargs", "input_px")}
    loaded = load_weights(**of_weights, path=weights, patch_px=patch_px, seed=seed)
    of_input = {key: settings[key] for key in INPUT_KEYS}
    model, meta = build_encoder(loaded, **of_input, patch_px=patch_px, interpolate_offset=interpolate_offset)
    return _prepare(model.eval().requires_grad_(False), meta, precision, batch_size, device)


@config.check_arguments(config.TokenEncodingConfig, device=Device)
def load_patch_encoder(
    path: str | Path,
    *,
    precision: Precision = "auto",
    batch_size: int | Literal["auto"] = "auto",
    device: Device = None,
) -> RegionTokenizer:
    """Load a patch encoder that the pipeline wrote, ready to run.

    Args:
        path: Path of its `weights.safetensors`.
        precision, batch_size, device: As in `build_patch_encoder`.

    Returns:
        The encoder, as from `build_patch_encoder`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no patch encoder.
    """
    return _prepare(*read_patch_encoder(Path(path)), precision, batch_size, device)


def _prepare(
    model: nn.Module, meta: dict[str, Any], precision: str, batch_size: int | Literal["auto"], device: Device
) -> RegionTokenizer:
    """Make a model ready to run on the device."""
    device = _device(device)
    chosen = choose_precision(precision, device, meta["token_dim"])
    return build_tokenizer(model, meta, precision=chosen, device=device, batch_size=batch_size)


def _device(device: Device) -> Literal["cpu", "cuda"]:
    """Return the device, or a GPU if there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def encode(slide: Slide, regions: artifacts.Regions, encoder: RegionTokenizer) -> np.ndarray:
    """Encode the patches of a slide's regions.

    Args:
        slide: An open slide.
        regions: Its regions, as `select_regions` returns.
        encoder: From `build_patch_encoder` or `load_patch_encoder`.

    Returns:
        Tokens, float16 (L, g * g, D): the g * g patches of a region row by row.

    Raises:
        SlideError: The slide's data are broken.
        ValueError: The regions do not divide into whole patches.
    """
    side = count_patches(regions.slide.slide_id, regions.size_px, encoder.patch_px)
    tokens = list(encoder(iter_regions(slide, regions)))
    if tokens:
        return np.stack(tokens)
    white = torch.full((1, encoder.patch_px, encoder.patch_px, 3), 255, dtype=torch.uint8, device=encoder.device)
    return np.empty((0, side * side, encoder.encode(white).shape[1]), np.float16)


@config.check_arguments(config.PretrainRunConfig, token_dim=Positive, grid=Positive, device=Device, seed=Seed)
def build_region_encoder(
    weights: str | Path | None = None,
    *,
    token_dim: int = 384,
    embed_dim: int = 192,
    depth: int = 6,
    n_heads: int = 6,
    grid: int = 14,
    device: Device = None,
    seed: int = 1,
) -> RegionEncoder:
    """Build a region encoder ViT4096-256, with random weights or with HIPT's.

    Args:
        weights: Path of HIPT's vit4k_xs_dino.pth; None: random weights, those that a run of this seed begins with.
        token_dim: D, length of a token (384 of ViT-S).
        embed_dim: Length of an embedding (paper: 192).
        depth: Transformer blocks (paper: 6).
        n_heads: Attention heads (paper: 6).
        grid: Side of the learned positions in tokens: that of the global crop (paper: 14).
        device: "cpu" or "cuda"; None: a GPU if there is one.
        seed: Seed of random weights.

    Returns:
        The encoder, frozen.

    Raises:
        FileNotFoundError: There is no such file of weights.
        ValueError: The weights do not fit the architecture.
    """
    if embed_dim % n_heads:
        raise ValueError(f"embed_dim: {embed_dim} is not a multiple of n_heads {n_heads}; change one of them")
    shape = (token_dim, embed_dim, depth, n_heads, grid)
    state = None if weights is None else region_encoder.load_region_weights(Path(weights), shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        encoder = RegionEncoder(*shape)
    if state is not None:
        encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False).to(_device(device))


@config.check_arguments(device=Device)
def load_region_encoder(path: str | Path, *, device: Device = None) -> RegionEncoder:
    """Load a region encoder that the pipeline pretrained.

    Args:
        path: Path of a run's `encoder.safetensors`.
        device: "cpu" or "cuda"; None: a GPU if there is one.

    Returns:
        The encoder, frozen.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds no region encoder.
    """
    return region_encoder.read_region_encoder(Path(path))[0].to(_device(device))


@config.check_arguments(batch_size=Positive | None)
def embed(tokens: np.ndarray, encoder: RegionEncoder, *, batch_size: int | None = None) -> np.ndarray:
    """Embed regions by the region encoder, each as a whole grid of tokens.

    Args:
        tokens: float16 (L, g * g, D), as `encode` returns or a tokens file holds.
        encoder: From `build_region_encoder` or `load_region_encoder`.
        batch_size: Regions per forward pass; None: by the free memory.

    Returns:
        Embeddings, float32 (L, embed_dim).

    Raises:
        ValueError: The tokens of a region are no square grid, or their length is not the encoder's token_dim.
    """
    return embed_regions(encoder, _token_grid(tokens, encoder), _device_of(encoder), batch_size)


@config.check_arguments(batch_size=Positive | None)
def compute_attention(tokens: np.ndarray, encoder: RegionEncoder, *, batch_size: int | None = None) -> np.ndarray:
    """Compute how much [CLS] attends to each token of its region in the last block, the mean over the heads.

    Args:
        tokens, encoder, batch_size: As in `embed`.

    Returns:
        Attention, float32 (L, g * g), row by row; with the attention of [CLS] to itself each row sums to 1.

    Raises:
        ValueError: As `embed`.
    """

    def attend(batch: torch.Tensor) -> torch.Tensor:
        return encoder.forward_with_attention(batch)[1]

    return embed_regions(attend, _token_grid(tokens, encoder), _device_of(encoder), batch_size)


def _token_grid(tokens: np.ndarray, encoder: RegionEncoder) -> torch.Tensor:
    """Arrange tokens (L, g * g, D) as (L, g, g, D), if the encoder takes them."""
    if tokens.ndim != 3 or math.isqrt(tokens.shape[1]) ** 2 != tokens.shape[1]:
        raise ValueError(f"tokens: {tokens.shape}, not (regions, g * g, D); give what encode returns")
    if tokens.shape[2] != encoder.hparams["token_dim"]:
        raise ValueError(
            f"tokens: of {tokens.shape[2]}, the region encoder takes {encoder.hparams['token_dim']}; build it with "
            f"token_dim={tokens.shape[2]}, or encode by the patch encoder that it was trained with"
        )
    side = math.isqrt(tokens.shape[1])
    return torch.from_numpy(np.array(tokens)).view(len(tokens), side, side, tokens.shape[2])


def _device_of(encoder: nn.Module) -> str:
    """Return the device of an encoder's weights."""
    return next(encoder.parameters()).device.type
