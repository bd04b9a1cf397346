"""Weights that the pipeline writes: safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core.store.files import broken, replacing
from slpd_core.store.schema import Meta


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a state dict of numpy arrays as safetensors; meta: texts only.

    The same tensors and metadata give the same bytes: safetensors writes one text, but several in any order.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as part:
        part.write_bytes(save(contiguous, {"slpd": json.dumps(meta)}))


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a state dict of numpy arrays and its metadata.

    Raises ValueError when the file is broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            meta = file.metadata() or {}
            return tensors, json.loads(meta["slpd"]) if "slpd" in meta else meta
    except SafetensorError as error:
        raise ValueError(broken(path, f"no safetensors file ({error})")) from error
