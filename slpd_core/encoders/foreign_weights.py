"""Files of weights that others published; no code in them is run, and no network is built."""

import zipfile
from pathlib import Path
from typing import Any

from slpd_core import artifacts

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how files of torch.save before 1.6 begin


def read_state_dict(path: Path, key: str) -> dict[str, Any]:
    """Read a state dict from .safetensors, .pth or .bin; half precision becomes float32.

    Of a whole checkpoint of DINO, as HIPT's, the teacher is read, without the prefixes `module.` and `backbone.`.

    Args:
        path: Of the file.
        key: Of the config that led to the file, for messages.

    Returns:
        Tensors by name.

    Raises:
        ValueError: The file is broken or holds no state dict.
    """
    import torch

    try:
        content = artifacts.read_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{key}: {error}; download it again, or convert it to a plain state dict of safetensors"
        ) from error
    for name in ("state_dict", "model", "teacher"):
        content = content[name] if isinstance(content, dict) and isinstance(content.get(name), dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise ValueError(f"{key}: {path} holds no state dict of tensors; save one with torch.save or safetensors")
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{key}: {path}: {name} states {[*tensor.shape]} numbers, more than it holds")
    total, size = sum(tensor.nbytes for tensor in content.values()), path.stat().st_size
    if total > 2 * size:  # a tensor may have two names, but not all of them thousands
        raise ValueError(f"{key}: {path}: its names share tensors that would be {total:,} bytes, the file has {size:,}")
    return {
        _strip_prefixes(name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content.items()
    }


def read_weights_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a safetensors file's tensors from its header.

    Args:
        path: Of the file.

    Returns:
        Shapes by name, as `read_state_dict` names tensors.
    """
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        names = file.keys()
        return {_strip_prefixes(name): tuple(file.get_slice(name).get_shape()) for name in names}


def _strip_prefixes(name: str) -> str:
    """Strip the prefixes of the modules that DINO's checkpoints wrap an encoder in."""
    return name.removeprefix("module.").removeprefix("backbone.")


def require_weights_file(path: Path, key: str) -> None:
    """Check by a file's first bytes and its end that it can be weights; its content is not read.

    Args:
        path: Of the file.
        key: Of the config that led to the file, for messages.

    Raises:
        ValueError: It is something else, or half a file.
    """
    if (other := _describe_other(path)) is not None:
        raise ValueError(f"{key}: {path} is {other}; download the weights again from where their authors publish them")


def _describe_other(path: Path) -> str | None:
    """Describe a file that is no weights; None for one that may be."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to the weights (git lfs pull fetches them)"
    if head.lstrip()[:1] == b"<":
        return "a web page"
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy"):
                return None
        except SafetensorError as error:
            return f"not a whole safetensors file ({error})"
    if head.startswith(b"PK"):
        return None if zipfile.is_zipfile(path) else "the beginning of a file of weights"
    return None if head.startswith(PICKLES) else "no file of torch.save or safetensors"
