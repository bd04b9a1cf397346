"""The projection head of student and teacher."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core.encoders.initialization import init_linear


class ProjectionHead(nn.Module):
    """g: embedding → logits (DINO, sec. 3): MLP, bottleneck and last layer, both of unit length.

    Training takes `bottleneck` and `normalized_weight`, and multiplies them a block at a time
    (`losses.chunked_cross_entropy`). Weights of the last layer start uniform, as DINO leaves them; those of the MLP
    from a truncated normal. Bottleneck and logits stay in float32 under autocast: divided by a temperature of 0.04, the
    rounding of a bfloat16 logit would show in the teacher's targets.

    Args:
        embed_dim: Length of an embedding.
        hidden_dim: Of the MLP.
        bottleneck_dim: Of the bottleneck.
        out_dim: Outputs.
    """

    def __init__(self, embed_dim: int, hidden_dim: int = 2048, bottleneck_dim: int = 256, out_dim: int = 65536) -> None:
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
        """Compute logits.

        Args:
            embedding: (B, embed_dim).

        Returns:
            Cosines, (B, out_dim).
        """
        bottleneck = self.bottleneck(embedding)
        with torch.autocast(embedding.device.type, enabled=False):
            return bottleneck @ self.normalized_weight().T

    def bottleneck(self, embedding: Tensor) -> Tensor:
        """Compute the bottleneck.

        Args:
            embedding: (B, embed_dim).

        Returns:
            (B, bottleneck_dim), of length one, in the dtype of the weights.
        """
        return F.normalize(self.mlp(embedding).to(self.last_layer.dtype), dim=-1)

    def normalized_weight(self) -> Tensor:
        """Normalize the last layer.

        Returns:
            (out_dim, bottleneck_dim), rows of length one.
        """
        return F.normalize(self.last_layer, dim=-1)
