"""Weights are held against the architecture that the settings name before any work, and never by a guess."""

import json
import struct

import pytest
import timm
import torch

from slpd_core.encoders import vit
from slpd_core.preflight import weights

NAMES = [name for name in timm.list_models("vit_*_patch*") if weights.VIT.match(name)]


def shapes_of(name: str, **arguments) -> dict[str, tuple[int, ...]]:
    model = vit.build_vit(name, 224, arguments, "meta")
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def header_of(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of such tensors whose data is a hole: its header, and its size."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + end


@pytest.fixture
def problems(tmp_path):
    """What is wrong with a file of these shapes for an encoder of this name and these arguments."""

    def find(shapes: dict[str, tuple[int, ...]], name: str, **arguments) -> list[str]:
        header, size = header_of(shapes)
        with (tmp_path / "w.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(size)
        path = tmp_path / "w.safetensors"
        options = {"weights": str(path), "model_kwargs": arguments}
        return [*weights.find_weights_problems("patch_encoder", [path], name, **options)]

    return find


@pytest.mark.parametrize("name", NAMES[:: len(NAMES) // 12])
def test_no_vit_is_taken_for_another(name):
    """timm itself is the oracle: what a name states is what the model has."""
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0).state_dict()
    sizes = weights.read_sizes({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert weights.stated_sizes(name, {}).items() <= sizes.items()


def test_weights_of_the_architecture_are_taken(problems):
    """Named as timm does, or as DINO's checkpoints do, with a tag and with arguments that change the architecture."""
    small = shapes_of("vit_small_patch16_224")
    assert problems(small, "vit_small_patch16_224.augreg_in21k") == []
    assert problems({f"module.backbone.{key}": shape for key, shape in small.items()}, "vit_small_patch16_224") == []
    changed = {"embed_dim": 96, "num_heads": 3, "depth": 2, "patch_size": 8}
    assert problems(shapes_of("vit_small_patch16_224", **changed), "vit_small_patch16_224", **changed) == []
    assert problems({"conv1.weight": (64, 3, 7, 7)}, "resnet50") == []


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        (
            "vit_base_patch16_224",
            {},
            "has embed_dim 384, patch_encoder.name and patch_encoder.model_kwargs say 768; give",
        ),
        ("vit_small_patch14_dinov2", {}, "has patch_size 16, patch_encoder.name and patch_encoder.model_kwargs say 14"),
        (
            "vit_small_patch16_224",
            {"depth": 24},
            "has depth 12, patch_encoder.name and patch_encoder.model_kwargs say 24",
        ),
        (
            "test_vit",
            {"embed_dim": 192},
            "has embed_dim 384, patch_encoder.name and patch_encoder.model_kwargs say 192",
        ),
    ],
)
def test_weights_of_another_architecture_are_named(problems, tmp_path, name, arguments, what):
    (line,) = problems(shapes_of("vit_small_patch16_224"), name, **arguments)
    assert line.startswith(f"patch_encoder.weights: {tmp_path / 'w.safetensors'} {what}")
