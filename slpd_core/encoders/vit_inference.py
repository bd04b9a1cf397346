"""The frozen patch encoder made fast: timm's own ViT, with the parts replaced that are measured to cost time.

In half precision linear layers and attention are computed in it, while norms and the residual stream stay float32: a
residual stream in bf16 is a tenth faster on a CPU, at an error of 1.2e-2 instead of 8e-3 (ViT-S/16, random weights).
`benchmarks/tokens.py` measures the whole.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slpd_core.encoders import vit
from slpd_core.runtime import log

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The classes whose forward is known here; a subclass or another model runs as timm has it.
KNOWN = {
    "model": "timm.models.vision_transformer.VisionTransformer",
    "embedding": "timm.layers.patch_embed.PatchEmbed",
    "block": "timm.models.vision_transformer.Block",
    "attention": "timm.layers.attention.Attention",
}
MIDDLE = 128  # grey level taken from the pixels: what is left, -128 to 127, is exact in bf16
ROWS = 2048  # about the tokens of eight patches
MIN_BF16_SPEEDUP = 1.4  # how much faster bf16 must multiply for `auto` to take it


def separate_threads(count: int) -> ThreadPoolExecutor:
    """Threads that each compute alone, not sharing the work of a layer; the caller keeps its number of threads."""
    torch.get_num_threads()  # a thread's first call takes over whatever number was set last, by any thread
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def best_seconds(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The least seconds of each way, taken in turn after a first call that does not count."""
    for way in ways.values():
        way()
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name] = min(found[name], time.perf_counter() - started)
    return found


def choose_precision(precision: str, device: str, width: int) -> str:
    """What `auto` stands for: bf16 where it is fast, else fp16 on a GPU and fp32 on a CPU.

    width: of the encoder's tokens. On a CPU its widest layer is multiplied both ways: having instructions for bf16
    says little, with AMX it is eight times as fast as fp32, without it may be slower.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    rows = max(64, min(ROWS, ROWS * 384**2 // width**2))
    weight, bias, x = torch.randn(4 * width, width), torch.randn(4 * width), torch.randn(rows, width)
    layers = {name: (FrozenLinear(weight, bias, DTYPES[name]), x.to(DTYPES[name])) for name in ("fp32", "bf16")}
    ways = {name: partial(layer, x) for name, (layer, x) in layers.items()}
    with separate_threads(1) as thread:
        seconds = thread.submit(best_seconds, ways).result()
    faster = seconds["fp32"] / seconds["bf16"]
    chosen = "bf16" if faster >= MIN_BF16_SPEEDUP else "fp32"
    log.info("precision auto: %s (bf16 multiplies %.1f times as fast as fp32 here)", chosen, faster)
    return chosen


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can pack a layer's weights on this machine: twice as fast as torch's fp32 on an AMD CPU."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype is torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype is torch.float32


class FrozenLinear(nn.Module):
    """A linear layer in one dtype, whatever the dtype of its input; on a CPU its weights are packed once for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, pack: bool = True) -> None:
        super().__init__()
        weight = weight.detach().to(dtype).contiguous()
        self.dtype, self.packed = dtype, pack and can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS) if self.packed else weight
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out) in the layer's dtype."""
        x = x.to(self.dtype)
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)


class NormInFloat(nn.Module):
    """A norm between two layers of half precision, computed in float32."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; keeps the dtype."""
        return self.norm(x.float()).to(x.dtype)


class PixelEmbedding(nn.Module):
    """timm's patch embedding as one linear layer on the pixels as they are, the normalisation inside its weights.

    W ((p / 255 - mean) / std) + b = W' (p - 128) + b' with W' = W / (255 std) and b' = b + sum of W' (128 - 255 mean).
    """

    def __init__(
        self, embedding: Any, mean: list[float], std: list[float], dtype: torch.dtype, nhwc: bool, pack: bool
    ) -> None:
        super().__init__()
        self.grid_size, self.patch_size = embedding.grid_size, embedding.patch_size
        self.nhwc, self.norm = nhwc, embedding.norm
        weight = embedding.proj.weight.detach().permute(0, 2, 3, 1).double()  # (dim, rows, columns, RGB)
        shift = torch.tensor(mean, dtype=torch.float64, device=weight.device)
        weight = weight / (255 * torch.tensor(std, dtype=torch.float64, device=weight.device))
        bias = (weight * (MIDDLE - 255 * shift)).sum((1, 2, 3))
        bias = bias if embedding.proj.bias is None else bias + embedding.proj.bias
        self.linear = FrozenLinear(weight.flatten(1), bias, dtype, pack)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, side, side, 3) → float32 (B, tokens, dim), or (B, rows, columns, dim) if nhwc."""
        (rows, columns), (height, width) = self.grid_size, self.patch_size
        cut = pixels.view(len(pixels), rows, height, columns, width * 3).transpose(2, 3)
        x = torch.empty(cut.shape, dtype=self.linear.dtype, device=cut.device).copy_(cut).sub_(MIDDLE)
        x = self.norm(self.linear(x.view(len(pixels), rows * columns, -1)).float())
        return x.view(len(pixels), rows, columns, -1) if self.nhwc else x


class FrozenAttention(nn.Module):
    """timm's attention with the layers it has, for the first token alone if asked.

    In bf16 on a CPU torch's fused attention is no faster at the 257 tokens of a patch (Intel with AMX), or 2.4 times
    slower (AMD): there the scores are multiplied out.
    """

    def __init__(self, attention: Any, dtype: torch.dtype, device: str, first_only: bool) -> None:
        super().__init__()
        self.inner, self.first_only = attention, first_only
        self.fused = dtype is not torch.bfloat16 or device != "cpu"

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """(B, tokens, dim) → the same, or (B, 1, dim) for the first token alone."""
        layers, size = self.inner, (len(x), x.shape[1], 3, self.inner.num_heads, self.inner.head_dim)
        q, k, v = layers.qkv(x).view(size).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = layers.q_norm(q), layers.k_norm(k)
        if self.first_only:
            q, x = q[:, :, :1], x[:, :1]
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q * layers.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        mixed = layers.norm(mixed.transpose(1, 2).flatten(2))
        if layers.gate is not None:
            mixed = mixed * layers.gate(x).sigmoid()
        return layers.proj(mixed)


class LastBlock(nn.Module):
    """timm's block, computed for the first token alone; exact where nothing after it looks at another."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.inner = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, dim) → (B, 1, dim)."""
        block = self.inner
        first = x[:, :1] + block.ls1(block.attn(block.norm1(x)))
        return first + block.ls2(block.mlp(block.norm2(first)))


class Encoder(nn.Module):
    """Patches as pixels → tokens: uint8 (B, side, side, 3) → float32 (B, token_dim).

    mean, std: of the pixels in 0..1, for a model that takes them normalised; None where its embedding takes them as
    they are. dtype: of autocast then.
    """

    def __init__(self, model: nn.Module, pooling: str, normalise: tuple[Any, Any] | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.pooling, self.dtype = model, pooling, dtype
        device = next(model.parameters()).device
        self.normalise = None if normalise is None else [torch.tensor(v, device=device) for v in normalise]

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, side, side, 3) → float32 (B, token_dim)."""
        if self.normalise is None:
            return vit.forward(self.model, pixels, self.pooling).float()
        mean, std = self.normalise
        x = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            return vit.forward(self.model, x, self.pooling).float()


def is_known(model: Any) -> bool:
    """Whether the model is a ViT made of the parts this module replaces."""

    def named(part: Any, name: str) -> bool:
        return f"{type(part).__module__}.{type(part).__qualname__}" == KNOWN[name]

    return (
        named(model, "model")
        and named(model.patch_embed, "embedding")
        and model.patch_embed.proj.in_channels == 3
        and not model.patch_embed.dynamic_img_pad
        and all(named(block, "block") and named(block.attn, "attention") for block in model.blocks)
    )


def optimize_for_inference(
    model: Any, meta: Mapping[str, Any], precision: str, device: str, *, pack: bool = True
) -> Encoder:
    """The encoder as it runs, on a device in a precision; the model itself is changed.

    meta: its `mean`, `std` and `pooling`. pack: False for a model that is to be compiled.
    """
    model, dtype = model.to(device), DTYPES[precision]
    if not is_known(model):
        log.info("%s is no plain ViT: it runs as timm has it", type(model).__name__)
        return Encoder(model, meta["pooling"], (meta["mean"], meta["std"]), dtype)
    first_only = (
        meta["pooling"] == "cls"
        and model.global_pool == "token"
        and model.attn_pool is None
        and not model.pool_include_prefix
    )
    model.patch_embed = PixelEmbedding(
        model.patch_embed, meta["mean"], meta["std"], dtype, model.dynamic_img_size, pack
    )
    for number, block in enumerate(model.blocks, start=1):
        for parent in list(block.modules()):
            for name, part in list(parent.named_children()):
                if isinstance(part, nn.Linear):
                    setattr(parent, name, FrozenLinear(part.weight, part.bias, dtype, pack))
        for parent, name in ((block.attn, "q_norm"), (block.attn, "k_norm"), (block.attn, "norm"), (block.mlp, "norm")):
            norm = getattr(parent, name, None)
            if norm is not None and not isinstance(norm, nn.Identity):
                setattr(parent, name, NormInFloat(norm))
        block.attn = FrozenAttention(block.attn, dtype, device, first_only and number == len(model.blocks))
    if first_only:
        model.blocks[-1] = LastBlock(model.blocks[-1])
    return Encoder(model, meta["pooling"], None, dtype)
