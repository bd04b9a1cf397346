"""Read any artifact by its path; its suffix and content tell its kind."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.geojson import read_tissue
from slpd_core.artifacts.hdf5 import list_arrays, read_arrays
from slpd_core.artifacts.pictures import read_picture
from slpd_core.artifacts.slide_arrays import read_patches, read_regions, read_tokens
from slpd_core.artifacts.tables import read_table
from slpd_core.artifacts.weights import read_weights


def read(path: str | Path) -> Any:
    """Read an artifact of the pipeline; its checksum is verified.

    Args:
        path: Of a file below `results/{cohort}/`, or of a copy of one.

    Returns:
        By the kind of file: `.geojson` a Tissue; `.h5` Regions, Tokens, patches as uint8 (n, side, side, 3), or a
        dict of the arrays of prototypes; `.parquet` a DataFrame; `.safetensors` the named weights as a dict of arrays;
        `.png` and `.jpg` the pixels, uint8 (rows, columns, 3).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or no artifact.
    """
    return _reader(Path(path))(Path(path))[0]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of an artifact: its stage, settings and the fingerprint of its inputs.

    Args:
        path: As in `read`; of any artifact but a picture.

    Returns:
        The stage's name and version, the version of the package, `section` (the stage's settings), `fingerprint`, and
        further entries of the stage.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or no artifact.
    """
    path = Path(path)
    meta = read_arrays(path, ())[1] if path.suffix == ".h5" else _reader(path)(path)[1]
    return meta | ({"section": json.loads(meta["section"])} if "section" in meta else {})


def _reader(path: Path) -> Callable[[Path], tuple[Any, dict[str, Any]]]:
    """The function that reads a file of such a name."""
    readers: dict[str, Callable[[Path], tuple[Any, dict[str, Any]]]] = {
        ".geojson": read_tissue,
        ".h5": _read_h5,
        ".parquet": read_table,
        ".safetensors": read_weights,
        ".png": _read_pixels,
        ".jpg": _read_pixels,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: no artifact ends in {path.suffix!r}; give a file that ends in {', '.join(readers)}")
    return readers[path.suffix]


def _read_h5(path: Path) -> tuple[Any, dict[str, Any]]:
    """The content of an HDF5 file, its kind told by the names of its arrays, and its metadata."""
    names = list_arrays(path)
    if "tokens" in names:
        return read_tokens(path)
    if "tissue_fraction" in names:
        return read_regions(path)
    if "patches" in names:
        patches, meta = read_patches(path)
        return patches[()], meta
    return read_arrays(path, names)


def _read_pixels(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture's pixels; it has no metadata."""
    from PIL import Image

    with Image.open(io.BytesIO(read_picture(path))) as picture:
        return np.asarray(picture.convert("RGB")), {}
