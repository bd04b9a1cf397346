"""Initial weights as in DINO."""

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Initialize a linear layer: truncated normal weights of sd 0.02, zero biases (DINO); leave other modules alone.

    Args:
        module: Any module; its children are not visited.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
