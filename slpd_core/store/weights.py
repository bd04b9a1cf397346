"""Weights that the pipeline writes: safetensors."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core.store.checksums import check_seal, stamp, unstamp, write_sealed
from slpd_core.store.files import broken
from slpd_core.store.reading import open_file
from slpd_core.store.schema import Meta


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a state dict of numpy arrays as safetensors; meta: texts only.

    The same tensors and metadata give the same bytes: safetensors writes one text, but several in any order.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_sealed(path, save(contiguous, {"slpd": json.dumps(meta | stamp(path))}))


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], Meta]:
    """Read a state dict of numpy arrays and its metadata.

    Raises ValueError when the file is broken.
    """
    from safetensors import SafetensorError, safe_open

    with open_file(path) as file:
        try:
            with safe_open(path, "numpy") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no dict)
            return tensors, read_meta(path, file)
        except (SafetensorError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(broken(path, f"no safetensors file ({error})")) from error


def read_meta(path: Path, file: io.BufferedIOBase) -> Meta:
    """Return the metadata that `write_weights` wrote into a safetensors file; empty for a file from elsewhere.

    Raises:
        ValueError: Where a file of this pipeline is damaged or in another's place.
    """
    length = int.from_bytes(file.read(8), "little")
    meta = json.loads(file.read(length)).get("__metadata__", {})
    if "slpd" not in meta:
        return {}
    check_seal(path, file)
    return unstamp(path, json.loads(meta["slpd"]))
