"""The projection head of student and teacher."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core.encoders.initialization import init_linear


class ProjectionHead(nn.Module):
    """g: embedding → logits over `out_dim` outputs (DINO, sec. 3): MLP, unit-length bottleneck, unit-length weights.

    Training takes `bottleneck` and `output_rows`, and multiplies them out a block at a time (`losses.distil`).

    The norm of the last layer's rows is fixed to one. Its weights start uniform, as DINO leaves them; those of the MLP
    from a truncated normal. Bottleneck and logits stay in single precision under autocast: divided by a temperature of
    0.04, the rounding of a bf16 logit would show in the teacher's targets.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        self.apply(init_linear)
        self.last_layer = nn.Parameter(torch.empty(out_dim, bottleneck_dim))
        nn.init.uniform_(self.last_layer, -1 / math.sqrt(bottleneck_dim), 1 / math.sqrt(bottleneck_dim))

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, embed_dim) → (B, out_dim)."""
        bottleneck = self.bottleneck(embedding)
        with torch.autocast(embedding.device.type, enabled=False):
            return bottleneck @ self.normalized_weight().T

    def bottleneck(self, embedding: Tensor) -> Tensor:
        """(B, embed_dim) → (B, bottleneck_dim), of length one, in the precision of the weights."""
        return F.normalize(self.mlp(embedding).to(self.last_layer.dtype), dim=-1)

    def normalized_weight(self) -> Tensor:
        """The weights of the outputs, (out_dim, bottleneck_dim), each of length one."""
        return F.normalize(self.last_layer, dim=-1)
