"""Files of weights held against the settings of their encoder, without PyTorch, which takes seconds to import.

The shapes of a safetensors file stand in its header. Those of a file of torch.save only PyTorch reads safely: the
preflight and the first job hold them against the architecture.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slpd_core import artifacts, config

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")  # of the weights among the files of a downloaded folder
WIDTHS = {"tiny": 192, "small": 384, "base": 768, "large": 1024, "huge": 1280}  # of ViTs, by timm's names
VIT = re.compile(r"vit_(tiny|small|base|large|huge)_patch(\d+)_(?!plus)")
SIZES = ("embed_dim", "patch_size", "depth")
PATCHES = "patch_embed.proj.weight"  # (embed_dim, 3, patch_size, patch_size)
BLOCK = re.compile(r"blocks\.(\d+)\.")


def find_problems(key: str, encoder: config.PatchEncoderConfig) -> Iterator[str]:
    """Yield what is wrong with the weights files of an encoder.

    Args:
        key: where its section stands in the config.
        encoder: its settings; the files are there.
    """
    for path in map(Path, encoder.files):
        if str(path) != encoder.weights and path.suffix not in SUFFIXES:
            continue
        try:
            artifacts.require_weights_file(path, f"{key}.weights" if encoder.weights else f"{key}.name")
        except ValueError as error:
            yield str(error)
            continue
        if path.suffix == ".safetensors":
            yield from _compare_sizes(key, path, stated_sizes(encoder.name, encoder.arguments))


def stated_sizes(name: str, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Return embed_dim, patch_size and depth of a ViT as far as its name in timm and its arguments state them."""
    if "embed_layer" in arguments:  # of other shapes
        return {}
    vit = VIT.match(name)
    named = {"embed_dim": WIDTHS[vit[1]], "patch_size": int(vit[2])} if vit else {}
    return named | {size: value for size, value in arguments.items() if size in SIZES and isinstance(value, int)}


def read_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return embed_dim, patch_size and depth of a ViT by the shapes of its tensors; empty where they show no ViT."""
    if len(shapes.get(PATCHES, ())) != 4:
        return {}
    blocks = {block[1] for name in shapes if (block := BLOCK.match(name))}
    return {"embed_dim": shapes[PATCHES][0], "patch_size": shapes[PATCHES][2], "depth": len(blocks)}


def _compare_sizes(key: str, path: Path, stated: Mapping[str, int]) -> Iterator[str]:
    sizes = read_sizes(artifacts.read_weights_shapes(path))
    for size, value in stated.items():
        if size in sizes and sizes[size] != value:
            yield (
                f"{key}.weights: {path} has {size} {sizes[size]}, {key}.name and {key}.arguments say {value}; give the "
                "weights' own architecture there"
            )
