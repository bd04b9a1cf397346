"""Check files of weights against the settings of their encoder without PyTorch, which takes seconds to import.

The shapes of a safetensors file are in its header. Only PyTorch reads those of a torch.save file safely: preflight and
the first job check them against the architecture.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slpd_core.encoders.foreign_weights import read_weights_shapes, require_weights_file

WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")  # of the weights among the files of a downloaded folder
WIDTHS = {"tiny": 192, "small": 384, "base": 768, "large": 1024, "huge": 1280}  # of ViTs, by timm's names
VIT = re.compile(r"vit_(tiny|small|base|large|huge)_patch(\d+)_(?!plus)")
SIZE_ARGUMENTS = ("embed_dim", "patch_size", "depth")
PATCH_PROJECTION = "patch_embed.proj.weight"  # (embed_dim, 3, patch_size, patch_size)
BLOCK = re.compile(r"blocks\.(\d+)\.")


def find_weights_problems(
    key: str,
    paths: Sequence[Path],
    name: str,
    *,
    weights: str | None = None,
    model_kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[str]:
    """Check the weights files of an encoder.

    Args:
        key: Its section of the config.
        paths: The files that it reads.
        name: The timm architecture.
        weights: The file that the section names; None where the name leads to the files.
        model_kwargs: Further arguments of the architecture.

    Yields:
        One sentence per problem.
    """
    for path in paths:
        if str(path) != weights and path.suffix not in WEIGHTS_SUFFIXES:
            continue
        try:
            require_weights_file(path, f"{key}.weights" if weights else f"{key}.name")
        except ValueError as error:
            yield str(error)
            continue
        if path.suffix == ".safetensors":
            yield from _compare_sizes(key, path, stated_sizes(name, model_kwargs))


def stated_sizes(name: str, model_kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Read the sizes of a ViT from its name in timm and its arguments.

    Args:
        name: The architecture.
        model_kwargs: Its further arguments.

    Returns:
        embed_dim, patch_size and depth, as far as they are stated.
    """
    if "embed_layer" in model_kwargs:  # of other shapes
        return {}
    vit = VIT.match(name)
    named = {"embed_dim": WIDTHS[vit[1]], "patch_size": int(vit[2])} if vit else {}
    return named | {
        size: value for size, value in model_kwargs.items() if size in SIZE_ARGUMENTS and isinstance(value, int)
    }


def read_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Read the sizes of a ViT from the shapes of its tensors.

    Args:
        shapes: By name, the shape of a tensor.

    Returns:
        embed_dim, patch_size and depth; nothing where the tensors are of no ViT.
    """
    if len(shapes.get(PATCH_PROJECTION, ())) != 4:
        return {}
    blocks = {block[1] for name in shapes if (block := BLOCK.match(name))}
    return {"embed_dim": shapes[PATCH_PROJECTION][0], "patch_size": shapes[PATCH_PROJECTION][2], "depth": len(blocks)}


def _compare_sizes(key: str, path: Path, architecture: Mapping[str, int]) -> Iterator[str]:
    """Yield each stated size that the file contradicts."""
    sizes = read_sizes(read_weights_shapes(path))
    for size, value in architecture.items():
        if size in sizes and sizes[size] != value:
            yield (
                f"{key}.weights: {path} has {size} {sizes[size]}, {key}.name and {key}.model_kwargs say {value}; give "
                "the weights' own architecture there"
            )
