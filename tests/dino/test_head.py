"""The head's logits: cosines, in single precision."""

import torch
from torch import nn

from slpd_core.dino.head import ProjectionHead
from slpd_core.dino.losses import teacher_targets


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


def test_half_precision_does_not_round_the_logits():
    """Under autocast the targets are those of the bottleneck in double precision, and near those of the whole head."""
    torch.manual_seed(0)
    head = ProjectionHead(24, 64, 32, 200)
    for layer in head.mlp[::2]:
        nn.init.normal_(layer.weight, std=0.3)
    x, centre = torch.randn(50, 24), torch.zeros(200)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            bottleneck, logits = head.mlp(x), head(x)
        rows = nn.functional.normalize(head.last_layer.double(), dim=-1)
        exact = nn.functional.normalize(bottleneck.double(), dim=-1) @ rows.T
        single = head(x)
    assert (bottleneck.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    targets = teacher_targets(logits, centre, 0.04)
    torch.testing.assert_close(targets.double(), teacher_targets(exact, centre.double(), 0.04), atol=0.0, rtol=1e-4)
    assert (targets - teacher_targets(single, centre, 0.04)).abs().sum(-1).max() / 2 < 0.05  # total variation
