"""Initial weights, as DINO's."""

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights of sd 0.02 and zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
