"""Slide classifiers on region or patch features: those of HIPT's protocol, layer by layer, and ABMIL beside them.

Each takes one slide, float32 (L, D), and gives its logits (C,). State-dict keys are those of the published models.
"""

import math

import torch
from torch import Tensor, nn

DSMIL_QUERY_DIM = 128
ABMIL_DIM = 256
VIT_WSI_DIM = 192


class MIL(nn.Module):
    """Max-instance MIL: the slide takes the logits of the instance with the highest P(class 1).

    With more than two classes, of the instance with the highest probability of any class.
    """

    def __init__(self, dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, n_classes))
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

    def __init__(self, dim: int, n_classes: int, dropout: float) -> None:
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

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Dropout(dropout))
        self.attention_b = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid(), nn.Dropout(dropout))
        self.attention_c = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(L, dim) → (L, 1)."""
        return self.attention_c(self.attention_a(x) * self.attention_b(x))


class ABMIL(nn.Module):
    """Attention-based MIL with the gated attention of Ilse et al. (ICML 2018), in the width CLAM made common.

    A slide is the mean of its instances, each reduced to 256 dimensions, by attention.
    """

    def __init__(self, dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(dim, ABMIL_DIM), nn.ReLU(), nn.Dropout(dropout))
        self.attention = GatedAttention(ABMIL_DIM, dropout)
        self.classifier = nn.Linear(ABMIL_DIM, n_classes)

    def forward(self, slide: Tensor) -> Tensor:
        """(L, D) → (C,)."""
        x = self.reduce(slide)
        return self.classifier((self.attention(x).softmax(0) * x).sum(0))


class ViTWSI(nn.Module):
    """ViT_WSI-4096 (HIPT): a transformer over the slide's regions, no positions, then gated attention pooling."""

    def __init__(self, dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        width = VIT_WSI_DIM
        self.global_phi = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout))
        layer = nn.TransformerEncoderLayer(width, nhead=3, dim_feedforward=width, dropout=dropout, batch_first=True)
        self.global_transformer = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.global_attn_pool = GatedAttention(width, dropout)
        self.global_rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, slide: Tensor) -> Tensor:
        """(L, D) → (C,)."""
        x = self.global_transformer(self.global_phi(slide)[None])[0]
        attention = self.global_attn_pool(x).softmax(0)
        return self.classifier(self.global_rho((attention * x).sum(0)))


CLASSIFIERS: dict[str, type[nn.Module]] = {"mil": MIL, "abmil": ABMIL, "dsmil": DSMIL, "vit_wsi": ViTWSI}


def build(name: str, dim: int, n_classes: int, dropout: float, seed: int) -> nn.Module:
    """A classifier whose weights depend on the seed alone."""
    torch.manual_seed(seed)
    return CLASSIFIERS[name](dim, n_classes, dropout)
