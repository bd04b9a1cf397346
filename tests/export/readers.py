"""Minimal readers of other tools' files, written from what these tools are known to read and from no writer of ours."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch


@dataclass
class Bag:
    """Vectors and corners of a slide, and what else its file says."""

    vectors: np.ndarray | None
    corners: np.ndarray | None
    about: dict


def read_trident_coords(job: Path, slide_file: str, mag: int, px: int) -> Bag:
    """Find the coordinates as TRIDENT does: by magnification, size and the name of the slide's file."""
    stem = os.path.splitext(os.path.basename(slide_file))[0]
    with h5py.File(job / f"{mag}x_{px}px_0px_overlap" / "patches" / f"{stem}_patches.h5") as file:
        return Bag(None, file["coords"][:], dict(file["coords"].attrs))


def read_trident_features(job: Path, slide_file: str, mag: int, px: int, encoder: str) -> Bag:
    """Find the features beside them."""
    stem = os.path.splitext(os.path.basename(slide_file))[0]
    with h5py.File(job / f"{mag}x_{px}px_0px_overlap" / f"features_{encoder}" / f"{stem}.h5") as file:
        about = dict(file["coords"].attrs) | dict(file["features"].attrs)
        return Bag(file["features"][:], file["coords"][:], about)


def trident_read_size(about: dict) -> int:
    """The level-0 px that TRIDENT reads per patch: it recomputes them from the magnifications."""
    return round(about["patch_size"] * about["level0_magnification"] / about["target_magnification"])


def read_clam(folder: Path, slide: str) -> Bag:
    vectors = torch.load(folder / "pt_files" / f"{slide}.pt", weights_only=True)
    with h5py.File(folder / "h5_files" / f"{slide}.h5") as file:
        assert (file["features"][:] == vectors.numpy()).all()
        return Bag(file["features"][:], file["coords"][:], {"dtype": file["coords"].dtype})


def read_stamp(path: Path) -> Bag:
    with h5py.File(path) as file:
        assert file.attrs["unit"] == "um"
        return Bag(file["feats"][:], file["coords"][:], dict(file.attrs))


def read_hs2p(folder: Path, slide: str) -> Bag:
    meta = json.loads((folder / f"{slide}.coordinates.meta.json").read_text())
    if meta["tiling"]["n_tiles"] == 0:
        return Bag(None, np.empty((0, 2), np.int64), meta)
    with np.load(folder / f"{slide}.coordinates.npz") as arrays:
        assert (arrays["tile_index"] == np.arange(meta["tiling"]["n_tiles"])).all()
        return Bag(None, np.stack([arrays["x"], arrays["y"]], 1), meta | {"fractions": arrays["tissue_fractions"]})


def read_torchmil(folder: Path, slide: str) -> Bag:
    return Bag(np.load(folder / "X" / f"{slide}.npy"), np.load(folder / "coords" / f"{slide}.npy"), {})


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def read_h5ad(path: Path) -> dict:
    """An AnnData file by the encodings that its elements state; a dict of arrays, categories as lists of texts."""
    with h5py.File(path) as file:
        assert file.attrs["encoding-type"] == "anndata"
        return {name: read_element(file[name]) for name in file}


def read_element(element: h5py.Group | h5py.Dataset) -> object:
    kind, version = element.attrs["encoding-type"], element.attrs["encoding-version"]
    assert version == {"dict": "0.1.0"}.get(kind, "0.2.0")
    if kind == "dict":
        return {name: read_element(element[name]) for name in element}
    if kind == "dataframe":
        columns = [str(name) for name in element.attrs["column-order"]]
        index = element.attrs["_index"]
        assert {*columns, index} == {*element}
        return {"index": read_element(element[index])} | {name: read_element(element[name]) for name in columns}
    if kind == "categorical":
        names, codes = read_element(element["categories"]), read_element(element["codes"])
        assert element.attrs["ordered"] in (False, np.False_)
        return [None if code < 0 else names[code] for code in codes]
    if kind in ("string", "string-array"):
        texts = element.asstr()[()]
        return texts if kind == "string" else [*texts]
    assert kind == "array"
    return element[()]
