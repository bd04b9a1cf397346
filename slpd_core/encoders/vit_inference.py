"""The frozen patch encoder made fast: a plain ViT, with the parts replaced that are measured to cost time.

In half precision linear layers and attention run in it, while norms and the residual stream stay float32: a residual
stream in bf16 is a tenth faster on a CPU, at an error of 1.2e-2 instead of 8e-3 (ViT-S/16, random weights).
`benchmarks/tokens.py` measures the whole.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slpd_core.encoders.frozen_layers import ClsOnlyBlock, Float32Norm, FrozenAttention, FrozenLinear, PixelEmbedding
from slpd_core.encoders.plain_vit import is_plain_vit
from slpd_core.encoders.precision import DTYPES
from slpd_core.runtime import log


class FrozenEncoder(nn.Module):
    """A patch encoder from pixels to tokens.

    Args:
        model: A ViT without a head.
        pooling: "cls" or "cls_mean".
        normalization: Mean and std of RGB in 0..1; None for a model whose embedding takes raw pixels.
        dtype: Of autocast, if pixels are normalized here.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pooling: str,
        normalization: tuple[Sequence[float], Sequence[float]] | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.model, self.pooling, self.dtype = model, pooling, dtype
        device = next(model.parameters()).device
        self.normalization = None if normalization is None else [torch.tensor(v, device=device) for v in normalization]

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode patches.

        Args:
            pixels: uint8 (B, side, side, 3).

        Returns:
            Tokens, float32 (B, token_dim).
        """
        if self.normalization is None:
            return forward_pooled(self.model, pixels, self.pooling).float()
        mean, std = self.normalization
        x = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            return forward_pooled(self.model, x, self.pooling).float()


def forward_pooled(model: Any, x: Tensor, pooling: str) -> Tensor:
    """Encode patches and pool the ViT's own tokens.

    Args:
        model: A ViT without a head.
        x: Normalized RGB, float (B, 3, input_px, input_px).
        pooling: "cls": the model's own pooling, [CLS] by default; "cls_mean": [CLS], then the mean of the patch tokens.

    Returns:
        Tokens, (B, token_dim).
    """
    if pooling == "cls":
        pooled: Tensor = model(x)
        return pooled
    tokens = model.forward_features(x)
    return torch.cat((tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(dim=1)), dim=1)


def optimize_for_inference(
    model: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    pooling: str = "cls",
    precision: str = "fp32",
    device: str = "cpu",
    pack: bool = True,
) -> FrozenEncoder:
    """Turn a ViT into an encoder of pixels, on a device and in a precision; the model itself is changed.

    Args:
        model: A `PlainVit` or a timm ViT without a head; one that is not plain runs as timm's.
        mean, std: Normalization of RGB in 0..1, three numbers each.
        pooling: "cls" or "cls_mean".
        precision: "fp32", "bf16" or "fp16".
        device: "cpu" or "cuda".
        pack: Whether to pack weights for oneDNN; False for a model that is to be compiled.

    Returns:
        The encoder, uint8 (B, side, side, 3) to float32 (B, token_dim).
    """
    model, dtype = model.to(device), DTYPES[precision]
    if not is_plain_vit(model):
        log.info("%s is no plain ViT: it runs as timm has it", type(model).__name__)
        return FrozenEncoder(model, pooling=pooling, normalization=(mean, std), dtype=dtype)
    first_only = (
        pooling == "cls" and model.global_pool == "token" and model.attn_pool is None and not model.pool_include_prefix
    )
    model.patch_embed = PixelEmbedding(
        model.patch_embed, list(mean), list(std), dtype, nhwc=model.dynamic_img_size, pack=pack
    )
    for i, block in enumerate(model.blocks, start=1):
        _replace_layers(block, dtype, pack=pack)
        block.attn = FrozenAttention(block.attn, dtype, device, first_only=first_only and i == len(model.blocks))
    if first_only:
        model.blocks[-1] = ClsOnlyBlock(model.blocks[-1])
    return FrozenEncoder(model, pooling=pooling, normalization=None, dtype=dtype)


def _replace_layers(block: Any, dtype: torch.dtype, *, pack: bool) -> None:
    """Replace a block's linear layers, and the norms between them."""
    for parent in list(block.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear):
                setattr(parent, name, FrozenLinear(part.weight, part.bias, dtype, pack=pack))
    for parent, name in ((block.attn, "q_norm"), (block.attn, "k_norm"), (block.attn, "norm"), (block.mlp, "norm")):
        norm = getattr(parent, name, None)
        if norm is not None and not isinstance(norm, nn.Identity):
            setattr(parent, name, Float32Norm(norm))
