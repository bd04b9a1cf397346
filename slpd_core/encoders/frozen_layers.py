"""Layers of a frozen ViT that replace timm's where those are measured to cost time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRAY_OFFSET = 128  # subtracted from pixels: the rest, -128 to 127, is exact in bf16
PACKED_ROWS = 2048  # rows that weights are packed for: about the tokens of eight patches


def can_pack(weight: Tensor) -> bool:
    """Check whether oneDNN can pack a layer's weights here: twice as fast as torch's fp32 on an AMD CPU.

    Args:
        weight: (out, in).

    Returns:
        Whether it can.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32


class FrozenLinear(nn.Module):
    """A linear layer in one dtype, whatever its input's; on a CPU oneDNN packs its weights once."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, pack: bool = True) -> None:
        super().__init__()
        weight = weight.detach().to(dtype).contiguous()
        self.dtype, self.packed = dtype, pack and can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS) if self.packed else weight
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (..., in), any floating dtype.

        Returns:
            (..., out) in the layer's dtype.
        """
        x = x.to(self.dtype)
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return out
        return F.linear(x, self.weight, self.bias)


class Float32Norm(nn.Module):
    """A norm between two layers of half precision, computed in float32."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Apply the norm.

        Args:
            x: Any shape and floating dtype.

        Returns:
            The same shape and dtype.
        """
        normed: Tensor = self.norm(x.float())
        return normed.to(x.dtype)


class PixelEmbedding(nn.Module):
    """timm's patch embedding as one linear layer on raw pixels, with the normalization inside its weights.

    W ((p / 255 - mean) / std) + b = W' (p - 128) + b' with W' = W / (255 std) and b' = b + sum of W' (128 - 255 mean).
    """

    def __init__(
        self, embedding: Any, mean: list[float], std: list[float], dtype: torch.dtype, *, nhwc: bool, pack: bool
    ) -> None:
        super().__init__()
        self.grid_size, self.patch_size = embedding.grid_size, embedding.patch_size
        self.nhwc, self.norm = nhwc, embedding.norm
        weight = embedding.proj.weight.detach().permute(0, 2, 3, 1).double()  # (dim, rows, columns, RGB)
        shift = torch.tensor(mean, dtype=torch.float64, device=weight.device)
        weight = weight / (255 * torch.tensor(std, dtype=torch.float64, device=weight.device))
        bias = (weight * (GRAY_OFFSET - 255 * shift)).sum((1, 2, 3))
        bias = bias if embedding.proj.bias is None else bias + embedding.proj.bias
        self.linear = FrozenLinear(weight.flatten(1), bias, dtype, pack=pack)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the encoder's own patches.

        Args:
            pixels: uint8 (B, side, side, 3).

        Returns:
            float32 (B, tokens, dim), or (B, rows, columns, dim) if nhwc.
        """
        (rows, columns), (height, width) = self.grid_size, self.patch_size
        cut = pixels.view(len(pixels), rows, height, columns, width * 3).transpose(2, 3)
        x = torch.empty(cut.shape, dtype=self.linear.dtype, device=cut.device).copy_(cut).sub_(GRAY_OFFSET)
        tokens: Tensor = self.norm(self.linear(x.view(len(pixels), rows * columns, -1)).float())
        return tokens.view(len(pixels), rows, columns, -1) if self.nhwc else tokens


class FrozenAttention(nn.Module):
    """timm's attention with its own layers, on request for the first token alone.

    In bf16 on a CPU torch's fused attention is no faster at the 257 tokens of a patch (Intel with AMX), or 2.4 times
    slower (AMD): the scores are computed by matmuls there.
    """

    def __init__(self, attention: Any, dtype: torch.dtype, device: str, *, first_only: bool) -> None:
        super().__init__()
        self.inner, self.first_only = attention, first_only
        self.fused = dtype is not torch.bfloat16 or device != "cpu"

    def forward(self, x: Tensor, *, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Apply self-attention.

        Args:
            x: (B, tokens, dim).
            attn_mask, is_causal: As timm's blocks pass them; not used.

        Returns:
            (B, tokens, dim), or (B, 1, dim) for the first token alone.
        """
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
        out: Tensor = layers.proj(mixed)
        return out


class ClsOnlyBlock(nn.Module):
    """timm's last block, computed for the first token alone; exact where no later layer reads another token."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.inner = block

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (B, tokens, dim).

        Returns:
            (B, 1, dim).
        """
        block = self.inner
        first: Tensor = x[:, :1] + block.ls1(block.attn(block.norm1(x)))
        first = first + block.ls2(block.mlp(block.norm2(first)))
        return first
