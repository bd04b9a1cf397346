"""Coordinates and features that other tools wrote, one file per slide; what they are is in docs/imports.md."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slpd_core.artifacts.hdf5 import UNREADABLE, open_foreign_h5
from slpd_core.artifacts.reading import read_bytes
from slpd_core.artifacts.torch_files import read_torch

_BESIDE = ("{}.coordinates.npz", "{}.h5", "{}_patches.h5")  # coordinates of a .pt


@dataclass(frozen=True, eq=False)
class Squares:
    """Squares of a slide as another tool lists them.

    Attributes:
        coords: Upper left corners, int64 (N, 2), level-0 px.
        side_level0_px: Their side; None where the file does not state it.
    """

    coords: np.ndarray
    side_level0_px: float | None = None


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """Features of the squares of a slide.

    Attributes:
        squares: The squares.
        vectors: float (N, D) of patches, or (N, P, D) of regions with P patches each, row by row.
        encoder: The name that the file gives; "" for none.
    """

    squares: Squares
    vectors: np.ndarray
    encoder: str = ""


def read_trident_coords(path: Path) -> Squares:
    """Read the coordinates of TRIDENT or CLAM: dataset `coords` of an HDF5 file.

    Args:
        path: Of the file.

    Returns:
        The squares.

    Raises:
        ValueError: The file is broken or holds no coordinates.
    """
    with open_foreign_h5(path) as file:
        return _squares(path, file["coords"])


def read_hs2p_coords(path: Path) -> Squares:
    """Read the coordinates of hs2p: {name}.coordinates.npz, and the side of a tile from the .meta.json beside it.

    Args:
        path: Of the .npz.

    Returns:
        The squares.

    Raises:
        ValueError: A file is broken or holds no coordinates.
    """
    import io
    import json

    meta_path = path.with_name(path.name.removesuffix(".npz") + ".meta.json")
    try:
        with np.load(io.BytesIO(read_bytes(path))) as arrays:
            coords = np.stack([arrays["x"], arrays["y"]], axis=1)
        meta = json.loads(read_bytes(meta_path)) if meta_path.exists() else {}
        side = meta.get("tiling", {}).get("tile_size_lv0")
    except UNREADABLE as error:
        raise ValueError(f"{path}: not coordinates of hs2p ({error})") from error
    return _checked(path, coords, side)


def read_trident_features(path: Path) -> SlideFeatures:
    """Read the features of TRIDENT or CLAM: datasets `features` and `coords` of an HDF5 file.

    Args:
        path: Of the file.

    Returns:
        The features.

    Raises:
        ValueError: The file is broken, or features and coordinates do not fit.
    """
    with open_foreign_h5(path) as file:
        vectors, squares = file["features"][()], _squares(path, file["coords"])
        vectors = vectors[0] if vectors.ndim == 3 and len(vectors) == 1 else vectors
        return _joined(path, squares, vectors, file["features"].attrs.get("encoder", ""))


def read_tensor_features(path: Path) -> SlideFeatures:
    """Read the features of slide2vec, HIPT or soma: a .pt, with the coordinates in a file beside it.

    Args:
        path: Of the .pt.

    Returns:
        The features.

    Raises:
        ValueError: A file is broken, there are no coordinates, or they do not fit.
    """
    tensor = read_torch(path)
    if not hasattr(tensor, "numpy") or tensor.ndim not in (2, 3):
        raise ValueError(f"{path}: holds no tensor of features (N, D) or (N, P, D)")
    beside = [path.with_name(name.format(path.stem)) for name in _BESIDE]
    coords_path = next((each for each in beside if each.is_file()), None)
    if coords_path is None:
        raise ValueError(
            f"{path}: states no coordinates, so its features cannot be told apart; put the file of coordinates that "
            f"they were extracted on beside it, as {', '.join(each.name for each in beside)}"
        )
    read = read_hs2p_coords if coords_path.suffix == ".npz" else read_trident_coords
    return _joined(path, read(coords_path), tensor.float().numpy(), "")


# Per format, how the names of its files end; per such ending, the reader.
COORDINATE_ENDINGS: Mapping[str, tuple[str, ...]] = {"trident": ("_patches.h5", ".h5"), "hs2p": (".coordinates.npz",)}
FEATURE_ENDINGS: Mapping[str, tuple[str, ...]] = {"trident": (".h5",), "slide2vec": (".pt",), "hipt": (".pt",)}
COORDINATE_READERS: Mapping[str, Callable[[Path], Squares]] = {".h5": read_trident_coords, ".npz": read_hs2p_coords}
FEATURE_READERS: Mapping[str, Callable[[Path], SlideFeatures]] = {
    ".h5": read_trident_features,
    ".pt": read_tensor_features,
}


def find_slide_file(folder: Path, names: Iterable[str], endings: Iterable[str]) -> Path | None:
    """Find a slide's file in another tool's folder.

    Args:
        folder: The folder.
        names: Names that the slide may have there, the best first: its id, and the stem of its file.
        endings: How the file's name may end, the best first.

    Returns:
        The file; None if there is none.
    """
    paths = (folder / f"{name}{ending}" for name in names for ending in endings)
    return next((path for path in paths if path.is_file()), None)


def _squares(path: Path, coords: Any) -> Squares:
    """The squares of a dataset of corners."""
    return _checked(path, coords[()], coords.attrs.get("patch_size_level0"))


def _checked(path: Path, coords: np.ndarray, side: Any) -> Squares:
    """Squares of (N, 2) whole numbers."""
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iu":
        raise ValueError(f"{path}: coords {coords.dtype} {coords.shape}, needs whole numbers (N, 2)")
    return Squares(coords.astype(np.int64), None if side is None else float(side))


def _joined(path: Path, squares: Squares, vectors: np.ndarray, encoder: Any) -> SlideFeatures:
    """Features of as many squares as there are vectors."""
    if vectors.ndim not in (2, 3) or vectors.dtype.kind != "f":
        raise ValueError(f"{path}: features {vectors.dtype} {vectors.shape}, needs floats (N, D) or (N, P, D)")
    if len(vectors) != len(squares.coords):
        raise ValueError(
            f"{path}: {len(vectors)} features, but {len(squares.coords)} coordinates; they must be as many"
        )
    return SlideFeatures(squares, vectors, str(encoder))
