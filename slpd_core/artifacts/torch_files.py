"""Weights from elsewhere: safetensors, or files that torch.save wrote; nothing they may hold is run."""

import io
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled freely
from typing import Any

from slpd_core.artifacts.reading import NamedFile, read_bytes
from slpd_core.artifacts.weights import check_foreign


def read_torch(path: Path) -> Any:
    """Read torch tensors from .safetensors, or a file torch.save wrote: nothing it may hold is run.

    Of the latter, tensors, plain values and the settings (argparse.Namespace) that training scripts save beside them.
    Raises ValueError when the file is broken or holds anything else.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    # A broken file ends in any of these, depending on where it is broken.
    wrong = (ValueError, KeyError, IndexError, AttributeError, TypeError)
    broken = (UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, *wrong)
    if path.suffix == ".safetensors":
        data = read_bytes(path)
        try:
            tensors = load(data)
        except (SafetensorError, *broken) as error:
            raise ValueError(f"{path}: no whole safetensors file ({error})") from error
        check_foreign(path, io.BytesIO(data))
        return tensors
    with _PlainReader(NamedFile(path)) as file:
        try:
            _check_zip(file)
            # A Namespace only sets attributes: it has no code of its own that unpickling would run.
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(file, map_location=_within(path.stat().st_size), weights_only=True)
        except broken as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{path}: not a whole file of tensors and plain values ({reason})") from error


class _PlainReader(io.BufferedReader):
    """A file that torch reads through Python, as of its own reading it says too little when the system fails."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:  # a place that the file names and does not have
            raise ValueError(f"no place {offset} in it") from error


def _check_zip(file: io.BufferedReader) -> None:
    """Raise ValueError where tensors are damaged, or packed, as torch.save never does: to any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                raise ValueError("its tensors are compressed")
            if damaged := archive.testzip():
                raise ValueError(f"damaged, {damaged} is not what its checksum is of")
    file.seek(0)


def _within(size: int) -> Callable[[Any, str], Any]:
    """Keep tensors on the CPU, for torch.load; raises ValueError before they fill more bytes than `size` in all."""
    stated = 0

    def locate(storage: Any, _: str) -> Any:
        nonlocal stated
        stated += storage.nbytes()
        if stated > size:
            raise ValueError(f"its tensors state {stated:,} bytes, the file has {size:,}")
        return storage

    return locate


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
    total, size = sum(tensor.nbytes for tensor in found.values()), path.stat().st_size
    if total > 2 * size:  # a tensor may have two names, but not all of them thousands
        raise ValueError(f"{key}: {path}: its names share tensors that would be {total:,} bytes, the file has {size:,}")
    return {
        strip_wrappers(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()
    }


def strip_wrappers(name: str) -> str:
    """Return a tensor's name without those of the modules that DINO's checkpoints wrap an encoder in."""
    return name.removeprefix("module.").removeprefix("backbone.")
