"""Files of other tools: numpy arrays, tensors and JSON, without our metadata and checksum; whole or not at all."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.files import atomic_write, write_text


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy.

    Args:
        path: Of the file.
        array: The array.
    """
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)  # an array of objects is refused


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz, compressed; equal arrays make equal bytes.

    Args:
        path: Of the file.
        arrays: The arrays by name.
    """
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)  # arrays of objects are refused


def write_tensor(path: Path, array: np.ndarray) -> None:
    """Write an array as a tensor that torch.load reads, weights_only too; equal arrays make equal bytes.

    Args:
        path: Of the file.
        array: The array.
    """
    import torch

    content = io.BytesIO()  # torch.save writes the name of a path into the file
    torch.save(torch.from_numpy(np.ascontiguousarray(array)), content)
    with atomic_write(path) as part:
        part.write_bytes(content.getbuffer())


def write_plain_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object.

    Args:
        path: Of the file.
        content: The object's members; no nan.
    """
    write_text(path, json.dumps(content, allow_nan=False, indent=1) + "\n")
