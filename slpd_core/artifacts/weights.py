"""Weights that the pipeline writes: safetensors."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slpd_core.artifacts.checksums import MARK, find_damage, read_sealed, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import atomic_write, broken
from slpd_core.artifacts.schema import Meta


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a state dict as safetensors; equal tensors and metadata make equal bytes.

    Args:
        path: Of the file.
        tensors: Arrays by name.
        meta: As `provenance` returns.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    # One text of metadata: safetensors would write several in any order.
    write_sealed(path, save(contiguous, {"slpd": json.dumps(meta | stamp(path))}))


def write_plain_weights(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict for other tools, without our metadata and checksum; equal tensors make equal bytes.

    Args:
        path: Of the file.
        tensors: Arrays by name.
    """
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {"format": "pt"})
    with atomic_write(path) as part:
        part.write_bytes(content)


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a state dict that `write_weights` wrote, in one pass with its check: twice as fast as the library's reader.

    Args:
        path: Of the file.

    Returns:
        Arrays by name, views of the file's bytes, and the metadata.

    Raises:
        ValueError: The file is broken.
    """
    data = read_sealed(path)
    try:
        end = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:end].tobytes())
        meta = json.loads(header.pop("__metadata__")["slpd"])
        tensors = {name: _view(data[end:], **entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(broken(path, f"not a safetensors file ({error})")) from error
    return tensors, unstamp(path, meta)


def _view(data: np.ndarray, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> np.ndarray:
    """The tensor of an entry of a safetensors header, whose dtype is such as "F32" or "I64"."""
    numpy_dtype = "?" if dtype == "BOOL" else f"<{dtype[0].lower()}{int(dtype[1:]) // 8}"
    return data[slice(*data_offsets)].view(numpy_dtype).reshape(shape)


def check_foreign(path: Path, file: io.BufferedIOBase) -> None:
    """Check a safetensors file if this pipeline wrote it; files of others have no checksum.

    Args:
        path: Of the file, for the error.
        file: The open file, at its start.

    Raises:
        ValueError: A file of this pipeline is damaged or was written as another artifact.
    """
    header = file.read(int.from_bytes(file.read(8), "little"))
    # Two marks: if a bit of one is flipped, the other still identifies the file.
    if MARK in header or (b'"slpd"' in header and b"checksum" in header):
        damage = find_damage(file)
        if damage:
            raise ValueError(f"{path}: {damage}")
        unstamp(path, json.loads(json.loads(header)["__metadata__"]["slpd"]))
