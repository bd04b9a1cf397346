"""The index: prototypes of every slide, each shown by the region nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.prototypes.clustering import cluster_each_slide, group_rows
from slpd_core.runtime import log

VERSION = 1


@dataclass(frozen=True)
class PrototypeIndex:
    """The prototypes of N slides.

    Attributes:
        slide_ids: (N,).
        prototypes: float32 (N, M, D).
        coords: int64 (N, M, 2), upper left corner of the region nearest to each prototype, level-0 px.
        sizes: int64 (N, M), regions of each prototype.
    """

    slide_ids: tuple[str, ...]
    prototypes: np.ndarray
    coords: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        """Return the number of slides."""
        return len(self.slide_ids)

    def select(self, slide_ids: Sequence[str]) -> "PrototypeIndex":
        """Select slides that are in the index, in the order of their ids here."""
        row_of = {slide: row for row, slide in enumerate(self.slide_ids)}
        rows = [row_of[slide] for slide in slide_ids if slide in row_of]
        ids = tuple(self.slide_ids[row] for row in rows)
        return PrototypeIndex(ids, self.prototypes[rows], self.coords[rows], self.sizes[rows])

    def join(self, other: "PrototypeIndex") -> "PrototypeIndex":
        """Append the slides of another index of the same run."""
        arrays = zip(
            (self.prototypes, self.coords, self.sizes), (other.prototypes, other.coords, other.sizes), strict=True
        )
        return PrototypeIndex((*self.slide_ids, *other.slide_ids), *map(np.concatenate, arrays))


def build_index(
    embed: pd.DataFrame,
    dim: int,
    *,
    n_prototypes: int = 4,
    kmeans_restarts: int = 5,
    kmeans_iterations: int = 10,
    epochs: int = 100,
    seed: int,
) -> PrototypeIndex:
    """Cluster the regions of each slide, and find the region nearest to each prototype among those of its cluster.

    Args:
        embed: The `embed` table.
        dim: D, of an embedding.
        n_prototypes: M; slides of fewer regions are left out.
        kmeans_restarts, kmeans_iterations: Of k-means.
        epochs, seed: Of the run; its own prototypes, if it clusters embeddings, are these but for rounding.

    Returns:
        The slides in the order of the table.
    """
    slide_of, ids = pd.factorize(embed["slide_id"])
    rows_of, M = group_rows(slide_of, len(ids)), n_prototypes
    embeddings = np.stack(embed["embedding"].to_list()) if len(embed) else np.empty((0, dim), np.float32)
    clustered, prototypes, assignment = cluster_each_slide(
        embeddings,
        rows_of,
        [*ids],
        M,
        restarts=kmeans_restarts,
        iterations=kmeans_iterations,
        seed=seed,
        epoch=epochs,
    )
    slides = clustered.tolist()
    corners = embed[["x", "y"]].to_numpy(np.int64)
    coords, sizes = np.empty((len(slides), M, 2), np.int64), np.empty((len(slides), M), np.int64)
    for i, slide in enumerate(slides):
        rows = rows_of[slide]
        sizes[i] = np.bincount(assignment[rows], minlength=M)
        coords[i] = corners[rows[_nearest_members(embeddings[rows], prototypes[i], assignment[rows])]]
    return PrototypeIndex(tuple(ids[slide] for slide in slides), prototypes, coords, sizes)


def _nearest_members(regions: np.ndarray, prototypes: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Find the member nearest to each prototype, of one without members the nearest region: (L, D), (M, D) → (M,)."""
    distance = np.linalg.norm(regions - prototypes[:, None], axis=2)
    member = assignment == np.arange(len(prototypes))[:, None]
    nearest: np.ndarray = np.where(member | ~member.any(1, keepdims=True), distance, np.inf).argmin(1)
    return nearest


def read_index(path: Path) -> tuple[PrototypeIndex, dict[str, str]]:
    """Read an index.

    Args:
        path: Of the file.

    Returns:
        The index, and its metadata.

    Raises:
        ValueError: The file is broken.
    """
    arrays, meta = artifacts.read_arrays(path, ("slides", "prototypes", "coords", "sizes"))
    return PrototypeIndex(tuple(arrays["slides"]), arrays["prototypes"], arrays["coords"], arrays["sizes"]), meta


def run(*, embed_path: Path, out_path: Path, section: config.SearchIndexConfig, seed: int) -> None:
    """Write the index of a cohort.

    Args:
        embed_path: Of the embeddings of a run.
        out_path: Of the index.
        section: Settings of the run.
        seed: Of the run.
    """
    embed, embed_meta = artifacts.read_table(embed_path, "embed")
    index = build_index(embed, int(embed_meta["embed_dim"]), **section.model_dump(), seed=seed)
    inputs = (embed_meta["fingerprint"], str(seed))
    meta = artifacts.provenance("search_index", VERSION, section.model_dump(), *inputs)
    meta |= {"ledger": embed_meta["ledger"], "seed": str(seed), "embed_dim": embed_meta["embed_dim"]}
    arrays = {
        "slides": np.array(index.slide_ids, object),
        "prototypes": index.prototypes,
        "coords": index.coords,
        "sizes": index.sizes,
    }
    artifacts.write_arrays(out_path, arrays, {}, meta)
    log.info("%d of %d slides have prototypes", len(index), embed["slide_id"].nunique())
