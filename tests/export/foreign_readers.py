"""Run by another environment's Python: read an export by the tools that are installed there, and print what they read.

Usage: python foreign_readers.py FOLDER SLIDE, the folder of the formats and a slide's id.
"""

import importlib.util
import json
import sys
from pathlib import Path


def hs2p(folder: Path, slide: str) -> dict:
    from hs2p.artifacts import load_tiling_result

    read = {}
    for kind in ("regions", "patches"):
        names = [folder / "hs2p" / kind / f"{slide}.coordinates.{suffix}" for suffix in ("npz", "meta.json")]
        result = load_tiling_result(*names)
        read[kind] = [[int(x), int(y)] for x, y in zip(result.x, result.y, strict=True)]
    return read


def torchmil(folder: Path, slide: str) -> dict:
    from torchmil.datasets import ProcessedMILDataset, TridentWSIDataset

    read = {}
    for name in ("slpd", "patch_tokens"):
        root = folder / "torchmil"
        places = {"features_path": f"{root}/{name}/X", "coords_path": f"{root}/{name}/coords"}
        places["labels_path"] = f"{root}/Y/grade"
        data = ProcessedMILDataset(**places, bag_keys=["X", "Y", "coords", "adj"], dist_thr=600, verbose=False)
        bag = data[data.bag_names.index(slide)]
        read[name] = {"X": bag["X"].tolist(), "coords": bag["coords"].tolist(), "Y": bag["Y"].tolist()}
    path = f"{folder}/trident/20x_64px_0px_overlap/"
    names = [file.stem for file in Path(path, "features_patch_tokens").iterdir()]
    keys = ["X", "coords", "adj"]
    options = {"bag_keys": keys, "wsi_names": names, "patch_size": 128, "load_at_init": False}
    data = TridentWSIDataset(path, "", "patch_tokens", **options)
    stem = next(name for name in data.bag_names if name.startswith(slide))
    return read | {"trident": data[data.bag_names.index(stem)]["X"].tolist()}


def anndata(folder: Path, slide: str) -> dict:
    from anndata import read_h5ad

    read = {}
    for path in sorted((folder / "h5ad").glob("*.h5ad")):
        table = read_h5ad(path)
        rows = table[table.obs["slide_id"] == slide]
        obs = rows.obs.astype(object).where(rows.obs.notna(), None)
        columns = {name: obs[name].tolist() for name in obs}
        read[path.stem] = {"X": rows.X.tolist(), "spatial": rows.obsm["spatial"].tolist(), "obs": columns}
    return read


def wsidata(folder: Path, slide: str) -> dict:
    from anndata import read_h5ad
    from spatialdata import SpatialData
    from wsidata.io import add_table

    read = {}
    for path in sorted((folder / "h5ad").glob("*.h5ad")):
        data = SpatialData()
        add_table(data, path.stem, read_h5ad(path))
        table = data.tables[path.stem]
        read[path.stem] = table[table.obs["slide_id"] == slide].X.tolist()
    return read


def soma(folder: Path, slide: str) -> dict:
    from soma.data.cached import CachedSetSource  # of soma-pathology; other packages are called soma too

    sources = {name: CachedSetSource(folder / "slide2vec" / name) for name in ("slpd", "patch_tokens")}
    return {name: source.load(slide).tolist() for name, source in sources.items()}


def is_installed(name: str) -> bool:
    """Whether a package of this name is there; of soma, the one of whole slides."""
    return importlib.util.find_spec(name) is not None and (
        name != "soma" or bool(importlib.util.find_spec("soma.data"))
    )


if __name__ == "__main__":
    readers = [one for one in (hs2p, torchmil, anndata, wsidata, soma) if is_installed(one.__name__)]
    print(json.dumps({one.__name__: one(Path(sys.argv[1]), sys.argv[2]) for one in readers}))
