"""Reading artifacts: checked, as the stages read them, against the library with and without a pass for finite values.

Without checksums that pass told damage from data; with them what is written is finite, and reading needs none.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from benchmarks.timing import best_seconds, show
from slpd_core import artifacts
from slpd_core.runtime import generator

REGIONS, GRID, DIM, EMBEDDINGS, SLIDES = 512, 16, 384, 200_000, 1000
ROUNDS = 15


def write_tokens(path: Path) -> None:
    """Write random tokens of a slide."""
    coords = np.stack([np.arange(REGIONS) * 4096, np.zeros(REGIONS, np.int64)], axis=1)
    info = artifacts.SlideInfo("slide", artifacts.OK, "", 10**6, 10**6, 0.5, "sheet", "f")
    regions = artifacts.Regions(info, coords, np.ones(REGIONS, np.float32), 4096, 4096, 0.5)
    rng = generator(0, "checksums")
    with artifacts.create_tokens(path, regions, GRID, DIM, artifacts.provenance("tokens", 1, {})) as written:
        for number in range(REGIONS):
            written.tokens[number] = rng.standard_normal((GRID**2, DIM), np.float32)


def read_bare(path: Path) -> np.ndarray:
    """Read tokens by h5py alone."""
    with h5py.File(path, "r") as file:
        tokens: np.ndarray = file["tokens"][()]
    return tokens


def read_checked(path: Path) -> np.ndarray:
    """Read tokens as the stages do."""
    with artifacts.open_tokens(path) as (opened, _):
        tokens: np.ndarray = opened.tokens[()]
    return tokens


def read_bare_table(path: Path) -> pd.DataFrame:
    """Read a table of embeddings by pyarrow alone, one row per region."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    frame, column = table.drop_columns(["embedding"]).to_pandas(), table.column("embedding").combine_chunks()
    frame["embedding"] = list(column.flatten().to_numpy().reshape(len(column), -1))
    return frame


def stack(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Stack the embeddings of each slide, as the classifiers do."""
    return {slide: np.stack(rows["embedding"].to_list()) for slide, rows in frame.groupby("slide_id")}


def all_finite(arrays: Mapping[str, np.ndarray]) -> bool:
    """Check that all values are finite: the pass that checksums replace."""
    return all(bool(np.isfinite(array).all()) for array in arrays.values())


def compare(title: str, ways: dict[str, Callable[[], object]], path: Path) -> None:
    """Time several ways to read a file; the first is the baseline."""
    show(title, best_seconds(ways, ROUNDS), path.stat().st_size / 1e6, "MB/s", next(iter(ways)))


def main() -> None:
    """Print the rates of reading tokens, a table of embeddings and weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.h5")
        write_tokens(path)
        ways: dict[str, Callable[[], object]] = {
            "h5py, then a pass for finite values": lambda: all_finite({"": read_bare(path)}),
            "h5py alone": lambda: read_bare(path),
            "checked": lambda: read_checked(path),
        }
        compare(f"Tokens of {REGIONS} regions", ways, path)
        table = Path(folder, "embed.parquet")
        rows = list(generator(0, "embeddings").standard_normal((EMBEDDINGS, 192), np.float32))
        slides = [f"slide {i * SLIDES // EMBEDDINGS}" for i in range(EMBEDDINGS)]
        frame = pd.DataFrame({"slide_id": slides, "x": np.arange(EMBEDDINGS), "y": 0, "embedding": rows})
        artifacts.write_table(table, "embed", frame, artifacts.provenance("embed", 1, {}) | {"embed_dim": "192"})
        ways = {
            "pyarrow, then a pass for finite values": lambda: all_finite(stack(read_bare_table(table))),
            "pyarrow alone": lambda: stack(read_bare_table(table)),
            "checked": lambda: stack(artifacts.read_table(table, "embed")[0]),
        }
        compare(f"Embeddings of {EMBEDDINGS:,} regions", ways, table)
        weights = Path(folder, "weights.safetensors")
        tensors = {str(n): generator(0, n).standard_normal((1000, 1000), np.float32) for n in range(22)}
        artifacts.write_weights(weights, tensors, artifacts.provenance("patch_encoder", 1, {}))
        ways = {
            "safetensors, then a pass for finite values": lambda: all_finite(load_file(weights)),
            "safetensors alone": lambda: load_file(weights),
            "checked": lambda: artifacts.read_weights(weights),
        }
        compare("Weights of 22 million numbers", ways, weights)


if __name__ == "__main__":
    main()
