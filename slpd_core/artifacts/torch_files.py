"""Read tensors of safetensors files and of torch.save, also from elsewhere; no code in them is run."""

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
    """Read tensors of a .safetensors file or of one that torch.save wrote; nothing in it is run.

    Of the latter, tensors, plain values and an argparse.Namespace, which training scripts save beside them, are read.

    Args:
        path: Of the file.

    Returns:
        A state dict, or what torch.save was given.

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
