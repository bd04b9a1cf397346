"""AnnData: all regions of a run in one .h5ad, after the published on-disk format.

https://anndata.readthedocs.io/en/stable/fileformat-prose.html: every element states its encoding-type and -version.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.export.exported_slide import check_corners
from slpd_core.export.region_table import join_regions
from slpd_core.runtime import log

VERSION = 1


def _mark(element: Any, kind: str, version: str = "0.2.0", **attributes: Any) -> Any:
    """State the encoding of an element; return it."""
    element.attrs.update({"encoding-type": kind, "encoding-version": version, **attributes})
    return element


def _write_array(group: Any, name: str, array: np.ndarray) -> None:
    _mark(group.create_dataset(name, data=array), "array")


def _write_texts(group: Any, name: str, texts: Sequence[str]) -> None:
    _mark(artifacts.create_texts(group, name, texts), "string-array")


def _write_categorical(group: Any, name: str, column: pd.Categorical) -> None:
    element = _mark(group.create_group(name), "categorical", ordered=bool(column.ordered))
    _write_array(element, "codes", column.codes)
    _write_texts(element, "categories", [*column.categories])


def _write_frame(group: Any, name: str, index: Sequence[str], columns: Mapping[str, Any]) -> None:
    """Write a table; columns are numbers or categories."""
    frame = _mark(group.create_group(name), "dataframe", _index="_index")
    artifacts.set_texts(frame, "column-order", [*columns])
    _write_texts(frame, "_index", index)
    for key, column in columns.items():
        if isinstance(column, pd.Categorical):
            _write_categorical(frame, key, column)
        else:
            _write_array(frame, key, np.asarray(column))


def _write_dict(group: Any, name: str) -> Any:
    return _mark(group.create_group(name), "dict", "0.1.0")


def write_h5ad(
    path: Path, regions: pd.DataFrame, vectors: np.ndarray, spatial: np.ndarray, about: Mapping[str, str]
) -> None:
    """Write regions as AnnData.

    Args:
        path: Of the file.
        regions: `obs`, one row per region: numbers or categories; the index is text.
        vectors: `X`, float32 (R, D).
        spatial: `obsm["spatial"]`, float64 (R, 2).
        about: Texts in `uns["slpd"]`.
    """
    with artifacts.create_foreign_h5(path, {}) as file:
        _mark(file, "anndata", "0.1.0")
        _write_array(file, "X", vectors)
        columns = {name: column.array if column.dtype == "category" else column for name, column in regions.items()}
        _write_frame(file, "obs", [*regions.index], columns)
        _write_frame(file, "var", [f"e{i}" for i in range(vectors.shape[1])], {})
        groups = {name: _write_dict(file, name) for name in ("obsm", "varm", "obsp", "varp", "layers", "uns")}
        _write_array(groups["obsm"], "spatial", spatial)
        slpd = _write_dict(groups["uns"], "slpd")
        for name, text in about.items():
            _mark(artifacts.create_texts(slpd, name, text), "string")


def make_obs(table: pd.DataFrame, regions_dir: Path) -> pd.DataFrame:
    """Add the sides and tissue fractions of regions, and prepare all for `obs`.

    Args:
        table: As `join_regions` returns.
        regions_dir: Of {slide}.h5.

    Returns:
        slide_id and prototype as categories, x, y and side_px in level-0 px, tissue_fraction, and the attention; the
        index is {slide_id}:{x},{y}.

    Raises:
        ValueError: A slide has other regions than its regions file.
    """
    parts = []
    for slide_id, rows in table.groupby("slide_id", sort=False):
        path = regions_dir / f"{slide_id}.h5"
        regions, _ = artifacts.read_regions(path)
        check_corners(path, str(slide_id), rows[["x", "y"]].to_numpy(), regions)
        parts.append(rows.assign(side_px=regions.size_level0_px, tissue_fraction=regions.tissue_fraction))
    obs = pd.concat(parts, ignore_index=True) if parts else table.assign(side_px=0, tissue_fraction=np.float32(0))
    numbers = obs["prototype"].astype("Int64").astype("string")
    order = sorted(numbers.dropna().unique(), key=int)
    obs["prototype"] = pd.Categorical(numbers.astype(object).where(numbers.notna(), None), order)
    obs.index = pd.Index(obs["slide_id"] + ":" + obs["x"].astype(str) + "," + obs["y"].astype(str))
    obs["slide_id"] = pd.Categorical(obs["slide_id"])
    first = ["slide_id", "x", "y", "side_px", "tissue_fraction", "prototype"]
    return obs[[*first, *obs.columns.drop(first)]]


def run(
    *, embed_path: Path, prototypes_path: Path, attention_paths: Sequence[Path], regions_dir: Path, out_path: Path
) -> None:
    """Write all regions of an encoder; `obsm["spatial"]` has their centers, level-0 px.

    Args:
        embed_path: Of the embeddings.
        prototypes_path: Of the prototypes.
        attention_paths: `attention` tables of the run.
        regions_dir: Of {slide}.h5.
        out_path: The .h5ad.

    Raises:
        ValueError: What is joined is of other regions, or was made from another ledger.
    """
    embed, meta = artifacts.read_table(embed_path, "embed")
    table = join_regions(embed, embed_path.stem, prototypes_path, attention_paths, meta["ledger"])
    obs = make_obs(table, regions_dir)
    flat = np.concatenate([np.empty(0, np.float32), *embed["embedding"]])
    spatial = obs[["x", "y"]].to_numpy(np.float64) + obs[["side_px"]].to_numpy(np.float64) / 2
    about = {key: meta[key] for key in ("slpd_version", "fingerprint", "ledger")} | {"encoder": embed_path.stem}
    write_h5ad(out_path, obs, flat.reshape(len(obs), int(meta["embed_dim"])), spatial, about)
    log.info("%s regions, %s", f"{len(obs):,}", ", ".join(obs.columns))
