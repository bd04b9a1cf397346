"""Weights from elsewhere: safetensors, or files that torch.save wrote; nothing they may hold is run."""

import zipfile
from argparse import Namespace
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled freely
from typing import Any


def read_torch(path: Path) -> Any:
    """Read torch tensors from .safetensors, or a file torch.save wrote: nothing it may hold is run.

    Of the latter, tensors, plain values and the settings (argparse.Namespace) that training scripts save beside them.
    Raises ValueError when the file is broken or holds anything else.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    # A broken file ends in any of these, depending on where it is broken.
    wrong = (ValueError, KeyError, IndexError, AttributeError, TypeError)
    broken = (UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, *wrong)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, *broken) as error:
            raise ValueError(f"{path}: no whole safetensors file ({error})") from error
    try:
        _check_zip(path)
        # A Namespace only sets attributes: it has no code of its own that unpickling would run.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except broken as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a whole file of tensors and plain values ({reason})") from error


def _check_zip(path: Path) -> None:
    """Raise ValueError where tensors are packed, as torch.save never does: a few bytes could unpack to any number."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if any(item.compress_type != zipfile.ZIP_STORED for item in file.infolist()):
                raise ValueError("its tensors are compressed")


def read_state_dict(path: Path, key: str) -> dict[str, Any]:
    """A network's tensors, half precision made float32, from .safetensors, .pth or .bin: nothing it may hold is run.

    Of DINO's whole checkpoints, as HIPT's, they are the teacher's, named without `module.` and `backbone.`. key: of the
    config that led to the file. Raises ValueError when the file holds something else.
    """
    import torch

    try:
        found = read_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{key}: {error}; download it again, or convert it to a plain state dict of safetensors"
        ) from error
    for name in ("state_dict", "model", "teacher"):
        found = found[name] if isinstance(found, dict) and isinstance(found.get(name), dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise ValueError(f"{key}: {path} holds no state dict of tensors; save one with torch.save or safetensors")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{key}: {path}: {name} states {[*tensor.shape]} numbers, more than it holds")
    return {
        name.removeprefix("module.").removeprefix("backbone."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in found.items()
    }
