"""The head's logits: cosines, in single precision."""

import torch
from torch import nn

from slpd_core.ssl.head import ProjectionHead


def test_the_logits_are_cosines_of_bottleneck_and_weights():
    """Neither the length of the bottleneck nor that of the weights' rows shows."""
    torch.manual_seed(0)
    head = ProjectionHead(24, 32, 16, 50)
    with torch.no_grad():
        x = torch.randn(6, 24) * 100
        logits = head(x)
        cosines = torch.cosine_similarity(head.mlp(x)[:, None], head.last_layer[None], dim=-1)
        torch.testing.assert_close(logits, cosines, atol=1e-6, rtol=1e-4)
        head.last_layer.mul_(torch.linspace(0.5, 3, 50)[:, None])
        torch.testing.assert_close(head(x), logits, atol=1e-6, rtol=1e-4)
        head.mlp[-1].weight.mul_(3)
        torch.testing.assert_close(head(x), logits, atol=1e-6, rtol=1e-4)


def test_half_precision_does_not_round_the_bottleneck():
    """Under autocast bottleneck and logits are in single precision, of what the perceptron gives in bf16."""
    torch.manual_seed(0)
    head = ProjectionHead(24, 64, 32, 200)
    for layer in head.mlp[::2]:
        nn.init.normal_(layer.weight, std=0.3)
    x = torch.randn(50, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inside, bottleneck, logits = head.mlp(x), head.bottleneck(x), head(x)
    assert (inside.dtype, bottleneck.dtype, logits.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    unit = nn.functional.normalize(inside.double(), dim=-1)
    torch.testing.assert_close(bottleneck.double(), unit, atol=1e-6, rtol=0)
    exact = unit @ nn.functional.normalize(head.last_layer.detach().double(), dim=-1).T
    torch.testing.assert_close(logits.double(), exact, atol=1e-6, rtol=0)
