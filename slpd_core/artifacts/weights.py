"""Weights that the pipeline writes: safetensors."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slpd_core.artifacts.checksums import MARK, find_damage, read_sealed, stamp, unstamp, write_sealed
from slpd_core.artifacts.files import broken
from slpd_core.artifacts.schema import Meta


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a state dict of numpy arrays as safetensors; equal content gives equal bytes.

    Args:
        path: Of the file.
        tensors: By name.
        meta: Texts; stored as one, as safetensors orders several at random.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_sealed(path, save(contiguous, {"slpd": json.dumps(meta | stamp(path))}))


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a state dict and its metadata, verified in the same pass (twice as fast as safetensors' reader).

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
        tensors = {name: _view(data[end:], **stated) for name, stated in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(broken(path, f"no safetensors file ({error})")) from error
    return tensors, unstamp(path, meta)


def _view(data: np.ndarray, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> np.ndarray:
    """A tensor as a safetensors header states it, dtype as "F32" or "I64"."""
    numpy_dtype = "?" if dtype == "BOOL" else f"<{dtype[0].lower()}{int(dtype[1:]) // 8}"
    return data[slice(*data_offsets)].view(numpy_dtype).reshape(shape)


def check_foreign(path: Path, file: io.BufferedIOBase) -> None:
    """Check a safetensors file that may come from elsewhere, or from an earlier version, and then has no checksum.

    Raises:
        ValueError: Where a file of this pipeline is damaged or in another's place.
    """
    header = file.read(int.from_bytes(file.read(8), "little"))
    # Each of the two finds a file in which one bit of the other is flipped.
    if MARK in header or (b'"slpd"' in header and b"checksum" in header):
        damage = find_damage(file)
        if damage:
            raise ValueError(f"{path}: {damage}")
        unstamp(path, json.loads(json.loads(header)["__metadata__"]["slpd"]))
