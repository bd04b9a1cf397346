"""Copies made together are the casts of autocast, forward and backward."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from slpd_core.encoders.region_encoder import RegionEncoder
from slpd_core.ssl.half_weights import half_weights
from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import Network, autocast

CPU = torch.device("cpu")


def build(token_dim=8):
    torch.manual_seed(0)
    return Network(RegionEncoder(token_dim, 24, 3, 2, 7, drop_path=0.5), ProjectionHead(24, 32, 16, 40)).train()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embeddings_and_gradients_are_those_of_autocast_to_the_bit(dtype):
    """Of crops of two sizes, which share the weights, in two blocks, whose gradients add up."""
    found = []
    for copied in (False, True):
        network, generator = build(), torch.Generator().manual_seed(1)
        for _ in range(2):
            crops = [torch.randn(5, side, side, 8, generator=generator) for side in (7, 3)]
            with autocast(dtype, CPU), half_weights(network, dtype) if copied else nullcontext():
                z = torch.cat([network.encoder(crop) for crop in crops])
                vectors = network.head.bottleneck(z)
            (8 * vectors * torch.randn(vectors.shape, generator=generator)).sum().backward()
            found.append([z, vectors])
        found.append([p.grad for name, p in network.named_parameters() if name != "head.last_layer"])
    without, copied = found[:3], found[3:]
    torch.testing.assert_close(copied, without, rtol=0, atol=0)
    assert all(gradient.abs().sum() > 0 for gradient in copied[2])
    assert all(gradient.dtype == torch.float32 for gradient in copied[2])


def test_weights_are_copied_but_for_those_that_are_sliced_and_are_back_afterwards():
    network = build()
    weights, layers = dict(network.named_parameters()), [*network.linear_layers()]
    assert len(layers) == sum(isinstance(module, nn.Linear) for module in network.modules()) - 1
    with half_weights(network, torch.bfloat16):
        assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
        assert network.encoder.blocks[-1].attn.qkv.weight.dtype == torch.float32
    assert all(weights[name] is parameter for name, parameter in network.named_parameters())
    with half_weights(network, torch.float32):
        assert all(weights[name] is parameter for name, parameter in network.named_parameters())
