"""Weights in half precision, copied all at once; autocast casts each weight wherever it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from slpd_core.ssl.student_teacher import Network


@contextmanager
def half_weights(network: Network, dtype: torch.dtype) -> Iterator[None]:
    """Put copies in place of the weights of a network's linear layers within a block, under autocast.

    The copies and the gradients that flow back to the weights are those of autocast, to the bit.

    Args:
        network: Student or teacher.
        dtype: Of the copies; float32 changes nothing.

    Yields:
        Nothing; the weights are back after the block.
    """
    if dtype is torch.float32:
        yield
        return
    slots = [(layer._parameters, name) for layer in network.linear_layers() for name in ("weight", "bias")]
    weights = [parameters[name] for parameters, name in slots]
    copies = _CastTogether.apply(dtype, *weights)
    try:
        for (parameters, name), copy in zip(slots, copies, strict=True):
            parameters[name] = copy
        yield
    finally:
        for (parameters, name), weight in zip(slots, weights, strict=True):
            parameters[name] = weight


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = weights[0].dtype
        return tuple(_cast(weights, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_cast(gradients, ctx.dtype)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    """Copy tensors in another dtype."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, tensors)
    return copies
