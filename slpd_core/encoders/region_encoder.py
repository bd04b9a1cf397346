"""The region encoder ViT4096-256 (HIPT), and its files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core import artifacts
from slpd_core.encoders.foreign_weights import read_state_dict
from slpd_core.encoders.initialization import init_linear

INTERPOLATE_OFFSET = 0.1  # added to a grid's size when positions are resampled to it
HPARAMS = ("token_dim", "embed_dim", "depth", "n_heads", "grid")  # arguments of RegionEncoder that its file holds


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then an MLP, each with a residual and stochastic depth."""

    def __init__(self, dim: int, n_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * dim, dim))
        self.drop_path = drop_path

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: (B, T, D).
            first: Compute the first tokens only; None: all.

        Returns:
            (B, T, D), or (B, first, D).
        """
        x = x[:, :first] + self._drop(self.attn(self.norm1(x), first))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        return branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Apply self-attention.

        Args:
            x: (B, T, D).
            first: Compute the first tokens only, which attend to all; None: all.

        Returns:
            (B, T, D), or (B, first, D).
        """
        D = x.shape[2]
        if first is None:
            q, k, v = self._heads(self.qkv(x), 3)
        else:
            q = self._heads(F.linear(x[:, :first], self.qkv.weight[:D], self.qkv.bias[:D]), 1)[0]
            k, v = self._heads(F.linear(x, self.qkv.weight[D:], self.qkv.bias[D:]), 2)
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return out

    def cls_attention(self, x: Tensor) -> Tensor:
        """Compute how much the first token attends to each token, the mean over the heads.

        Args:
            x: (B, T, D).

        Returns:
            (B, T); each row sums to 1.
        """
        q, k, _ = self._heads(self.qkv(x), 3)
        attention: Tensor = (q[:, :, :1] @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return attention.mean(1)[:, 0]

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        """Split (B, T, parts * D) into (parts, B, heads, T, D / heads)."""
        heads: Tensor = x.unflatten(2, (parts, self.n_heads, -1))
        return heads.permute(2, 0, 3, 1, 4)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q kᵀ / √d) v.

    Torch's fused kernel is used but on a CPU in half precision, where its gradient takes up to nine times as long as
    that of the formula (37 tokens).

    Args:
        q, k, v: (B, heads, T, d).

    Returns:
        (B, heads, T, d).
    """
    if q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", enabled=False):  # autocast would cast the softmax to float32 and back
            (B, heads, T, d), scale = q.shape, q.shape[-1] ** -0.5
            scores = torch.baddbmm(q.new_zeros(()), q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=scale)
            return (scores.softmax(-1) @ v.flatten(0, 1)).view(B, heads, T, d)
    return F.scaled_dot_product_attention(q, k, v)


class RegionEncoder(nn.Module):
    """ViT4096-256: embeds a region's grid of patch tokens (HIPT, sec. 3; keys as in its published weights).

    Args:
        token_dim: D of the patch tokens.
        embed_dim: Of the embedding (paper: 192).
        depth: Transformer blocks (paper: 6).
        n_heads: Attention heads (paper: 6).
        grid: Side of the learned positions in tokens (paper: 14, the global crop).
        drop_path: Rate of stochastic depth of the last block, in training.
    """

    def __init__(
        self, token_dim: int, embed_dim: int, depth: int, n_heads: int, grid: int, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.hparams = dict(zip(HPARAMS, (token_dim, embed_dim, depth, n_heads, grid), strict=True))
        self.grid = grid
        self.phi = nn.Sequential(nn.Linear(token_dim, embed_dim), nn.GELU())
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, embed_dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(Block(embed_dim, n_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.apply(init_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed regions or crops.

        Args:
            tokens: (B, rows, columns, token_dim).

        Returns:
            The normalized [CLS], (B, embed_dim).
        """
        return self._read_out(self._up_to_last(tokens))

    @property
    def sliced_layers(self) -> tuple[nn.Module, ...]:
        """Layers of whose weights a part is multiplied: the last block computes queries of [CLS] alone."""
        last: Any = self.blocks[-1]
        return (last.attn.qkv,)

    def forward_with_attention(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Embed regions, and compute how much [CLS] attends to each token in the last block.

        Args:
            tokens: (B, rows, columns, token_dim).

        Returns:
            The embeddings, (B, embed_dim), and the attention, (B, rows * columns), the mean over the heads; with the
            attention of [CLS] to itself each row sums to 1.
        """
        x = self._up_to_last(tokens)
        last: Any = self.blocks[-1]
        return self._read_out(x), last.attn.cls_attention(last.norm1(x))[:, 1:]

    def _up_to_last(self, tokens: Tensor) -> Tensor:
        B, rows, columns, _ = tokens.shape
        x: Tensor = self.phi(tokens.flatten(1, 2))
        x = torch.cat([self.cls_token.expand(B, -1, -1), x], dim=1) + self.interpolate_positions(rows, columns)
        for block in self.blocks[:-1]:
            x = block(x)
        return x

    def _read_out(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.norm(self.blocks[-1](x, first=1)[:, 0])  # the last block computes [CLS] alone
        return embedding

    def interpolate_positions(self, rows: int, columns: int) -> Tensor:
        """Resample the learned positions bicubically to a grid of another size.

        The scale is (size + 0.1) / grid, as in DINO's ViTs and as the published weights expect.

        Args:
            rows, columns: Of the grid, in tokens.

        Returns:
            (1, 1 + rows * columns, embed_dim).
        """
        if rows == columns == self.grid:
            return self.pos_embed
        learned = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        scale = ((rows + INTERPOLATE_OFFSET) / self.grid, (columns + INTERPOLATE_OFFSET) / self.grid)
        resized = F.interpolate(learned, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def write_region_encoder(path: Path, encoder: RegionEncoder, meta: artifacts.Meta) -> None:
    """Write an encoder to a file that `read_region_encoder` reads.

    Args:
        path: Of the safetensors file.
        encoder: The encoder.
        meta: Further metadata.
    """
    tensors = {key: tensor.cpu().numpy() for key, tensor in encoder.state_dict().items()}
    artifacts.write_weights(path, tensors, meta | {key: str(value) for key, value in encoder.hparams.items()})


def load_region_weights(path: Path, shape: tuple[int | None, int, int, int, int]) -> dict[str, Tensor]:
    """Load weights to begin with: HIPT's checkpoint of its ViT4096-256, or the encoder of a run.

    Args:
        path: Of the file.
        shape: The encoder's HPARAMS; token_dim None: any.

    Returns:
        The state dict of a RegionEncoder.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no such encoder.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrain.init_from: no file {path}; give HIPT's vit4k_xs_dino.pth or the encoder.safetensors of a run"
        )
    tensors = read_state_dict(path, "pretrain.init_from")
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    first = state.get("phi.0.weight")
    token_dim = shape[0] or (first.shape[-1] if first is not None and first.ndim else 1)
    values = (token_dim, *shape[1:])
    try:
        RegionEncoder(*values).load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"pretrain.init_from: {path} is no region encoder of {dict(zip(HPARAMS, values, strict=True))} ({reason}); "
            "set embed_dim, depth, n_heads and global_crop_size to its own"
        ) from error
    return state


def read_region_encoder(path: Path) -> tuple[RegionEncoder, artifacts.Meta]:
    """Read an encoder that `write_region_encoder` wrote.

    Args:
        path: Of the safetensors file.

    Returns:
        The encoder, frozen and in eval mode, and its metadata.

    Raises:
        ValueError: The file is broken or holds other weights.
    """
    tensors, meta = artifacts.read_weights(path)
    try:
        encoder = RegionEncoder(**{key: int(meta[key]) for key in HPARAMS})
        encoder.load_state_dict({key: torch.from_numpy(np.array(tensor)) for key, tensor in tensors.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: weights, but not those of a region encoder of this pipeline ({type(error).__name__}: {reason}); "
            f"{artifacts.rebuild_hint(path)}"
        ) from error
    return encoder.eval().requires_grad_(False), meta
