"""Files of tensors from this pipeline or elsewhere, safetensors or torch.save's; code in them is never run."""

import io
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError  # raised by torch; nothing is unpickled freely
from typing import Any

from slpd_core.artifacts.reading import NamedFile, read_bytes
from slpd_core.artifacts.weights import check_foreign


def read_torch(path: Path) -> Any:
    """Read tensors from .safetensors or a file of torch.save, without running code from it.

    Args:
        path: Of the file.

    Returns:
        Tensors by name from safetensors; from torch.save the saved object: tensors, plain values and the
        argparse.Namespace that training scripts save beside them.

    Raises:
        ValueError: The file is broken or holds anything else.
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
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
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
    """A file that torch reads through Python; its own reader does not name errors of the system."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:  # an offset that the file names and does not have
            raise ValueError(f"it has no offset {offset}") from error


def _check_zip(file: io.BufferedReader) -> None:
    """Raise ValueError if tensors are damaged, or compressed (torch.save never does): they could unpack to any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                raise ValueError("its tensors are compressed")
            if damaged := archive.testzip():
                raise ValueError(f"damaged, {damaged} does not match its checksum")
    file.seek(0)


def _within(size: int) -> Callable[[Any, str], Any]:
    """A map_location of torch.load that keeps tensors on the CPU; it raises ValueError if they exceed `size` bytes."""
    total = 0

    def locate(storage: Any, _: str) -> Any:
        nonlocal total
        total += storage.nbytes()
        if total > size:
            raise ValueError(f"its tensors claim {total:,} bytes, the file has {size:,}")
        return storage

    return locate
