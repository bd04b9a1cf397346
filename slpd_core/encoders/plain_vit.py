"""A plain ViT in torch alone, from a state dict with timm's names: it loads in a second less than an import of timm.

The stage patch_encoder describes the ViTs whose tokens `PlainVit` returns bit for bit; all others stay timm's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_State = Mapping[str, Tensor]
# Classes of timm's plain ViT; a subclass or another model is not plain.
TIMM_CLASSES = {
    "model": "timm.models.vision_transformer.VisionTransformer",
    "embedding": "timm.layers.patch_embed.PatchEmbed",
    "block": "timm.models.vision_transformer.Block",
    "attention": "timm.layers.attention.Attention",
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "GELU": F.gelu,
    "GELUTanh": partial(F.gelu, approximate="tanh"),
    "SiLU": F.silu,
    "QuickGELU": lambda x: x * torch.sigmoid(1.702 * x),
}


def _linear(state: _State, name: str) -> nn.Linear:
    rows, columns = state[f"{name}.weight"].shape
    return nn.Linear(columns, rows, bias=f"{name}.bias" in state)


def _norm(state: _State, name: str, eps: float) -> nn.Module:
    return nn.LayerNorm(len(state[f"{name}.weight"]), eps) if f"{name}.weight" in state else nn.Identity()


def _parameter(state: _State, name: str) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(state[name].shape), requires_grad=False) if name in state else None


class _PatchEmbedding(nn.Module):
    """Patches of an image as one convolution."""

    def __init__(self, state: _State, name: str, input_px: int, eps: float) -> None:
        super().__init__()
        dim, channels, *size = state[f"{name}.proj.weight"].shape
        self.patch_size = (size[0], size[1])
        self.grid_size = (input_px // size[0], input_px // size[1])
        bias = f"{name}.proj.bias" in state
        self.proj = nn.Conv2d(channels, dim, self.patch_size, self.patch_size, bias=bias)
        self.norm = _norm(state, f"{name}.norm", eps)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return tokens


class _Attention(nn.Module):
    """Self-attention of several heads."""

    gate = None

    def __init__(self, state: _State, name: str, num_heads: int, eps: float) -> None:
        super().__init__()
        self.qkv, self.proj = _linear(state, f"{name}.qkv"), _linear(state, f"{name}.proj")
        self.num_heads = num_heads
        self.head_dim = self.proj.in_features // num_heads
        self.scale = self.head_dim**-0.5
        self.q_norm, self.k_norm, self.norm = (_norm(state, f"{name}.{n}", eps) for n in ("q_norm", "k_norm", "norm"))

    def forward(self, x: Tensor) -> Tensor:
        size = (len(x), x.shape[1], 3, self.num_heads, self.head_dim)
        q, k, v = self.qkv(x).view(size).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        out: Tensor = self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))
        return out


class _Mlp(nn.Module):
    """An MLP of two layers; the first may have a gate, packed with it (`fc1`) or apart (`fc1_g`, `fc1_x`)."""

    def __init__(self, state: _State, name: str, activation: str, eps: float) -> None:
        super().__init__()
        self.activation, self.fc2 = ACTIVATIONS[activation], _linear(state, f"{name}.fc2")
        self.norm = _norm(state, f"{name}.norm", eps)
        self.split = f"{name}.fc1_g.weight" in state
        if self.split:
            self.fc1_g, self.fc1_x = _linear(state, f"{name}.fc1_g"), _linear(state, f"{name}.fc1_x")
        else:
            self.fc1 = _linear(state, f"{name}.fc1")
            self.packed = self.fc1.out_features == 2 * self.fc2.in_features

    def forward(self, x: Tensor) -> Tensor:
        if self.split:
            hidden = self.activation(self.fc1_g(x)) * self.fc1_x(x)
        elif self.packed:
            gate, values = self.fc1(x).chunk(2, dim=-1)
            hidden = self.activation(gate) * values
        else:
            hidden = self.activation(self.fc1(x))
        out: Tensor = self.fc2(self.norm(hidden))
        return out


class _LayerScale(nn.Module):
    """A learned factor per dimension."""

    def __init__(self, state: _State, name: str) -> None:
        super().__init__()
        self.gamma = _parameter(state, f"{name}.gamma")

    def forward(self, x: Tensor) -> Tensor:
        return x if self.gamma is None else x * self.gamma


class _Block(nn.Module):
    """A transformer block with norms before attention and MLP."""

    def __init__(self, state: _State, name: str, num_heads: int, activation: str, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(state, f"{name}.norm1", eps), _norm(state, f"{name}.norm2", eps)
        self.attn: nn.Module = _Attention(state, f"{name}.attn", num_heads, eps)
        self.mlp = _Mlp(state, f"{name}.mlp", activation, eps)
        self.ls1, self.ls2 = _LayerScale(state, f"{name}.ls1"), _LayerScale(state, f"{name}.ls2")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class PlainVit(nn.Module):
    """A frozen ViT without a head; shapes, registers, norms and biases are as its state dict has them.

    Args:
        state: State dict with timm's names, which the model takes over; positions are of this image size.
        input_px: Side of the input images.
        num_heads: Attention heads.
        activation: Key of ACTIVATIONS.
        eps: Of the norms.
        global_pool: "token" ([CLS]) or "avg" (mean of the patch tokens).
        no_embed_class: Whether [CLS] and registers have no positions.

    Raises:
        KeyError: A tensor is missing.
        RuntimeError: The tensors do not fit.
    """

    attn_pool, pool_include_prefix, dynamic_img_size = None, False, False

    def __init__(
        self,
        state: _State,
        *,
        input_px: int,
        num_heads: int,
        activation: str = "GELU",
        eps: float = 1e-6,
        global_pool: str = "token",
        no_embed_class: bool = False,
    ) -> None:
        super().__init__()
        self.global_pool, self.no_embed_class = global_pool, no_embed_class
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        with torch.device("meta"):
            self.patch_embed: nn.Module = _PatchEmbedding(state, "patch_embed", input_px, eps)
            self.cls_token, self.reg_token = _parameter(state, "cls_token"), _parameter(state, "reg_token")
            self.pos_embed = _parameter(state, "pos_embed")
            self.norm_pre = _norm(state, "norm_pre", eps)
            blocks = [_Block(state, f"blocks.{i}", num_heads, activation, eps) for i in range(depth)]
            self.blocks = nn.Sequential(*blocks)
            self.norm, self.fc_norm = _norm(state, "norm", eps), _norm(state, "fc_norm", eps)
        self.load_state_dict(state, assign=True)
        self.eval().requires_grad_(False)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before those of the patches: [CLS] and registers."""
        return sum(token.shape[1] for token in self._prefix())

    def _prefix(self) -> list[Tensor]:
        return [token for token in (self.cls_token, self.reg_token) if token is not None]

    def forward_features(self, x: Tensor) -> Tensor:
        """Encode images, without pooling.

        Args:
            x: Normalized RGB, (B, 3, input_px, input_px).

        Returns:
            (B, prefix + patches, dim).
        """
        x = self.patch_embed(x)
        if self.pos_embed is not None and self.no_embed_class:
            x = x + self.pos_embed
        x = torch.cat([token.expand(len(x), -1, -1) for token in self._prefix()] + [x], dim=1)
        if self.pos_embed is not None and not self.no_embed_class:
            x = x + self.pos_embed
        out: Tensor = self.norm(self.blocks(self.norm_pre(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Encode images.

        Args:
            x: As in `forward_features`.

        Returns:
            (B, dim).
        """
        x = self.forward_features(x)
        pooled = x[:, 0] if self.global_pool == "token" else x[:, self.num_prefix_tokens :].mean(dim=1)
        out: Tensor = self.fc_norm(pooled)
        return out


def is_plain_vit(model: Any) -> bool:
    """Check whether a model is a ViT of exactly the parts that `vit_inference` replaces.

    Args:
        model: A `PlainVit` or a timm model.

    Returns:
        Whether it is.
    """

    def is_class(part: Any, key: str) -> bool:
        return f"{type(part).__module__}.{type(part).__qualname__}" == TIMM_CLASSES[key]

    return isinstance(model, PlainVit) or (
        is_class(model, "model")
        and is_class(model.patch_embed, "embedding")
        and model.patch_embed.proj.in_channels == 3
        and not model.patch_embed.dynamic_img_pad
        and all(is_class(block, "block") and is_class(block.attn, "attention") for block in model.blocks)
    )


@torch.inference_mode()
def describe_plain_vit(model: Any) -> dict[str, Any] | None:
    """Describe a timm ViT by the arguments of a `PlainVit` that returns the same tokens bit for bit.

    Args:
        model: A timm model without a head, in eval mode.

    Returns:
        The arguments; None if there is no such `PlainVit`, tried on an image of noise.
    """
    if not is_plain_vit(model) or model.global_pool not in ("token", "avg"):
        return None
    block, input_px = model.blocks[0], model.patch_embed.img_size[0]
    kwargs = {
        "input_px": input_px,
        "num_heads": block.attn.num_heads,
        "activation": type(getattr(block.mlp, "act", None)).__name__,
        "eps": getattr(block.norm1, "eps", None),
        "global_pool": model.global_pool,
        "no_embed_class": model.no_embed_class,
    }
    try:
        plain = PlainVit(model.state_dict(), **kwargs)
        noise = torch.randn((1, 3, input_px, input_px), generator=torch.Generator().manual_seed(0))
        same = torch.equal(plain.forward_features(noise), model.forward_features(noise))
        return kwargs if same and torch.equal(plain(noise), model(noise)) else None
    except (KeyError, RuntimeError, TypeError):  # of other parts
        return None
