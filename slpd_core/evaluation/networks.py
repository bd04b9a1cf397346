"""Slide classifiers on region or patch features: those of HIPT's protocol, layer by layer, and ABMIL beside them.

Each takes one slide, float32 (L, D), and gives its logits (C,). State-dict keys are those of the published models.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slpd_core.runtime import generator

DSMIL_QUERY_DIM = 128
ABMIL_DIM = 256
VIT_WSI_DIM, VIT_WSI_HEADS = 192, 3


class Dropout(nn.Module):
    """Dropout whose draws come from NumPy, 16 bits each: torch draws one by one, at six times the cost on a CPU."""

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.least, self.scale, self.rng = round(rate * 2**16), 1 / (1 - rate), rng

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; outside training as it is."""
        if not self.training or not self.least:
            return x
        drawn = self.rng.bit_generator.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
        return x * (torch.from_numpy(drawn >= self.least).view(x.shape) * self.scale)


class MIL(nn.Module):
    """Max-instance MIL: the slide takes the logits of the instance with the highest P(class 1).

    With more than two classes, of the instance with the highest probability of any class.
    """

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        drop = Dropout(dropout, rng)
        self.classifier = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), drop, nn.Linear(dim, n_classes))
        for name, parameter in self.classifier.named_parameters():
            (nn.init.zeros_ if name.endswith("bias") else nn.init.xavier_normal_)(parameter)

    def forward(self, slide: Tensor) -> Tensor:
        """(L, D) → (C,)."""
        logits = self.classifier(slide)
        probabilities = logits.softmax(1)
        top = probabilities[:, 1] if logits.shape[1] == 2 else probabilities.amax(1)
        return logits[top.argmax()]


class DSMIL(nn.Module):
    """DS-MIL (Li et al., CVPR 2021): max-instance scores and an attention of every instance to the critical one."""

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.i_classifier = nn.ModuleDict({"fc": nn.Sequential(nn.Linear(dim, n_classes))})
        self.b_classifier = nn.ModuleDict(
            {
                "q": nn.Linear(dim, DSMIL_QUERY_DIM),
                "v": nn.Sequential(nn.Identity(), nn.Linear(dim, dim)),
                "fcc": nn.Conv1d(n_classes, n_classes, dim),
            }
        )

    def forward(self, slide: Tensor) -> Tensor:
        """(L, D) → (C,)."""
        instance = self.i_classifier["fc"](slide)
        query, value = self.b_classifier["q"](slide), self.b_classifier["v"](slide)
        critical = query[instance.argmax(0)]
        attention = (query @ critical.T / math.sqrt(DSMIL_QUERY_DIM)).softmax(0)
        whole = self.b_classifier["fcc"]((attention.T @ value)[None])[0, :, 0]
        return (whole + instance.amax(0)) / 2


class GatedAttention(nn.Module):
    """Gated attention scores (Ilse et al., ICML 2018): tanh ⊙ sigmoid, each with dropout → one score an instance."""

    def __init__(self, dim: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), Dropout(dropout, rng))
        self.attention_b = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid(), Dropout(dropout, rng))
        self.attention_c = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(L, dim) → (L, 1)."""
        return self.attention_c(self.attention_a(x) * self.attention_b(x))


class AttentionClassifier(nn.Module):
    """A classifier that says how much each instance counts for the slide."""

    def forward(self, slide: Tensor) -> Tensor:
        """(L, D) → (C,)."""
        return self.with_attention(slide)[0]

    def with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """(L, D) → logits (C,), and the attention (L,), which sums to 1."""
        raise NotImplementedError


class ABMIL(AttentionClassifier):
    """Attention-based MIL with the gated attention of Ilse et al. (ICML 2018), in the width CLAM made common.

    A slide is the mean of its instances, each reduced to 256 dimensions, by attention.
    """

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(dim, ABMIL_DIM), nn.ReLU(), Dropout(dropout, rng))
        self.attention = GatedAttention(ABMIL_DIM, dropout, rng)
        self.classifier = nn.Linear(ABMIL_DIM, n_classes)

    def with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """(L, D) → (C,), (L,)."""
        x = self.reduce(slide)
        attention = self.attention(x).softmax(0)
        return self.classifier((attention * x).sum(0)), attention[:, 0]


class EncoderLayer(nn.Module):
    """A post-norm transformer layer of one slide, without the masks and batches of torch's, whose state-dict keys it
    has.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, n_heads)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = Dropout(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(L, D) → (L, D)."""
        x = self.norm1(x + self.drop(self.attend(x)))
        return self.norm2(x + self.drop(self.linear2(self.drop(self.linear1(x).relu()))))

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention, with dropout of its weights while training; fused outside it, where L may be large."""
        attn = self.self_attn
        qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = qkv.view(len(x), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
        if self.training:
            mixed = self.drop((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return attn.out_proj(mixed.transpose(0, 1).flatten(1))


class ViTWSI(AttentionClassifier):
    """ViT_WSI-4096 (HIPT): a transformer over the slide's regions, no positions, then gated attention pooling."""

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        width = VIT_WSI_DIM
        self.global_phi = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), Dropout(dropout, rng))
        layers = [EncoderLayer(width, VIT_WSI_HEADS, dropout, rng) for _ in range(2)]
        self.global_transformer = nn.ModuleDict({"layers": nn.Sequential(*layers)})
        self.global_attn_pool = GatedAttention(width, dropout, rng)
        self.global_rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), Dropout(dropout, rng))
        self.classifier = nn.Linear(width, n_classes)

    def with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """(L, D) → (C,), (L,); the attention is to each region as the transformer sees it among the others."""
        x = self.global_transformer["layers"](self.global_phi(slide))
        attention = self.global_attn_pool(x).softmax(0)
        return self.classifier(self.global_rho((attention * x).sum(0))), attention[:, 0]


CLASSIFIERS: dict[str, type[nn.Module]] = {
    "mil": MIL,
    "abmil": ABMIL,
    "dsmil": DSMIL,
    "vit_wsi": ViTWSI,
}


def build(name: str, dim: int, n_classes: int, dropout: float, seed: int) -> nn.Module:
    """A classifier whose weights and draws depend on the seed alone."""
    torch.manual_seed(seed)
    return CLASSIFIERS[name](dim, n_classes, dropout, generator(seed, "dropout"))
