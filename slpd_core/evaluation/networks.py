"""Networks that classify one slide by its features: MIL, DS-MIL and ViT_WSI as in HIPT, and ABMIL.

Each maps float32 (L, D) to logits (C,). State-dict keys are those of the published models.
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
    """Dropout that draws 16 bits per number from NumPy, at a sixth of the cost of torch's on a CPU."""

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.threshold, self.scale, self.rng = round(rate * 2**16), 1 / (1 - rate), rng

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers while training.

        Args:
            x: Any shape.

        Returns:
            The same shape; `x` itself outside training.
        """
        if not self.training or not self.threshold:
            return x
        bits = self.rng.bit_generator.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
        return x * (torch.from_numpy(bits >= self.threshold).view(x.shape) * self.scale)


class MIL(nn.Module):
    """Max-instance MIL: a slide has the logits of its instance with the highest probability of class 1.

    With more than two classes: the instance with the highest probability of any class; with one output: the highest.
    """

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        drop = Dropout(dropout, rng)
        self.classifier = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), drop, nn.Linear(dim, n_classes))
        for name, parameter in self.classifier.named_parameters():
            (nn.init.zeros_ if name.endswith("bias") else nn.init.xavier_normal_)(parameter)

    def forward(self, slide: Tensor) -> Tensor:
        """Classify a slide.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,).
        """
        logits: Tensor = self.classifier(slide)
        probabilities = logits.softmax(1) if logits.shape[1] > 1 else logits
        top = probabilities[:, 1] if logits.shape[1] == 2 else probabilities.amax(1)
        return logits[top.argmax()]


class DSMIL(nn.Module):
    """DS-MIL (Li et al., CVPR 2021): maximum of the instance scores, and attention to the critical instance."""

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
        """Classify a slide.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,).
        """
        instance = self.i_classifier["fc"](slide)
        query, value = self.b_classifier["q"](slide), self.b_classifier["v"](slide)
        critical = query[instance.argmax(0)]
        attention = (query @ critical.T / math.sqrt(DSMIL_QUERY_DIM)).softmax(0)
        bag = self.b_classifier["fcc"]((attention.T @ value)[None])[0, :, 0]
        logits: Tensor = (bag + instance.amax(0)) / 2
        return logits


class GatedAttention(nn.Module):
    """Gated attention (Ilse et al., ICML 2018): tanh ⊙ sigmoid, each with dropout, then one score per instance."""

    def __init__(self, dim: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), Dropout(dropout, rng))
        self.attention_b = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid(), Dropout(dropout, rng))
        self.attention_c = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score the instances.

        Args:
            x: (L, dim).

        Returns:
            Scores before the softmax, (L, 1).
        """
        scores: Tensor = self.attention_c(self.attention_a(x) * self.attention_b(x))
        return scores


class AttentionClassifier(nn.Module):
    """A network with attention: how much each instance counts for the slide."""

    def forward(self, slide: Tensor) -> Tensor:
        """Classify a slide.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,).
        """
        return self.forward_with_attention(slide)[0]

    def forward_with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a slide and return the attention to its instances.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,), and attention, (L,), which sums to 1.
        """
        raise NotImplementedError


class ABMIL(AttentionClassifier):
    """Attention-based MIL (Ilse et al., ICML 2018) of the usual width: gated attention pools 256 dimensions."""

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(dim, ABMIL_DIM), nn.ReLU(), Dropout(dropout, rng))
        self.attention = GatedAttention(ABMIL_DIM, dropout, rng)
        self.classifier = nn.Linear(ABMIL_DIM, n_classes)

    def forward_with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a slide and return the attention to its instances.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,), and attention, (L,), which sums to 1.
        """
        x = self.reduce(slide)
        attention = self.attention(x).softmax(0)
        return self.classifier((attention * x).sum(0)), attention[:, 0]


class EncoderLayer(nn.Module):
    """A post-norm transformer layer of one slide; state-dict keys as torch's TransformerEncoderLayer."""

    def __init__(self, dim: int, n_heads: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, n_heads)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = Dropout(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (L, D).

        Returns:
            (L, D).
        """
        x = self.norm1(x + self.drop(self._attend(x)))
        x = self.norm2(x + self.drop(self.linear2(self.drop(self.linear1(x).relu()))))
        return x

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention, with dropout of its weights while training; fused otherwise, where L may be large."""
        attn = self.self_attn
        qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = qkv.view(len(x), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
        if self.training:
            mixed = self.drop((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        out: Tensor = attn.out_proj(mixed.transpose(0, 1).flatten(1))
        return out


class ViTWSI(AttentionClassifier):
    """ViT_WSI-4096 (HIPT): a transformer over the slide's regions without positions, then gated attention pooling."""

    def __init__(self, dim: int, n_classes: int, dropout: float, rng: np.random.Generator) -> None:
        super().__init__()
        width = VIT_WSI_DIM
        self.global_phi = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), Dropout(dropout, rng))
        layers = [EncoderLayer(width, VIT_WSI_HEADS, dropout, rng) for _ in range(2)]
        self.global_transformer = nn.ModuleDict({"layers": nn.Sequential(*layers)})
        self.global_attn_pool = GatedAttention(width, dropout, rng)
        self.global_rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), Dropout(dropout, rng))
        self.classifier = nn.Linear(width, n_classes)

    def forward_with_attention(self, slide: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a slide and return the attention to its instances.

        Args:
            slide: (L, D).

        Returns:
            Logits, (C,), and attention, (L,), which sums to 1: to each region as the transformer
            sees it among the others.
        """
        x = self.global_transformer["layers"](self.global_phi(slide))
        attention = self.global_attn_pool(x).softmax(0)
        return self.classifier(self.global_rho((attention * x).sum(0))), attention[:, 0]


def dropout_generator(network: nn.Module) -> np.random.Generator:
    """Return the generator that the dropout layers of a network draw from.

    Args:
        network: As `build_network` returns it.

    Returns:
        Their generator; some other if there is no such layer.
    """
    return next((module.rng for module in network.modules() if isinstance(module, Dropout)), generator(0))


NETWORKS: dict[str, type[nn.Module]] = {
    "mil": MIL,
    "abmil": ABMIL,
    "dsmil": DSMIL,
    "vit_wsi": ViTWSI,
}


def build_network(name: str, dim: int, n_classes: int, dropout: float, seed: int) -> nn.Module:
    """Build a network whose weights and draws depend on the seed alone.

    Args:
        name: mil, abmil, dsmil or vit_wsi.
        dim: D of the features.
        n_classes: C.
        dropout: Rate of all dropout layers.
        seed: Of weights and dropout; torch's global generator is seeded too.

    Returns:
        The network, in training mode.
    """
    torch.manual_seed(seed)
    return NETWORKS[name](dim, n_classes, dropout, generator(seed, "dropout"))
