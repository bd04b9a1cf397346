"""Weights that the pipeline writes: safetensors."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core.store.checksums import MARK, check_seal, find_damage, stamp, unstamp, write_sealed
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
        check_seal(path, file)
        try:
            with safe_open(path, "numpy") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no dict)
                return tensors, unstamp(path, json.loads(content.metadata()["slpd"]))
        except (SafetensorError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(broken(path, f"no safetensors file ({error})")) from error


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
