"""What an experiment needs, seed by seed: the encoder, pools of tokens, and the rows that are missing."""

import multiprocessing
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from benchmarks.evidence import arms, encoder, experiment
from benchmarks.evidence.cohorts import Pool, compose, make_pool
from benchmarks.evidence.measures import measure
from benchmarks.evidence.stain_maps import StainMaps, fit_stain_maps
from benchmarks.evidence.tiles import list_tiles
from slpd_core.runtime import keep_freed_memory

T = TypeVar("T")

MEASURED = Path(__file__).with_name("measured.csv")  # rows of earlier runs, which are not computed again


def prepare(tiles: Path | None, out: Path, design_name: str, seeds: Collection[int]) -> None:
    """Train the patch encoder and encode the pools that are missing."""
    missing = [seed for seed in sorted(seeds) if not pool_path(out, design_name, seed).exists()]
    maps_path = out / "stain_maps.pt"
    if not seeds or (not missing and maps_path.exists()):
        return
    if tiles is None:
        sys.exit(f"pools of seeds {missing} or {maps_path} are missing: name the folder of tiles in --tiles")
    weights, device = out / "encoder.safetensors", "cuda" if torch.cuda.is_available() else "cpu"
    if not weights.exists():
        print("training the patch encoder on held-out tiles", file=sys.stderr, flush=True)
        encoder.train_encoder(tiles / "test", weights)
    model, listed = encoder.load_encoder(weights, device), list_tiles(tiles / "training")
    if not maps_path.exists():
        held_out = [path for paths in list_tiles(tiles / "test").values() for path in paths]
        torch.save(vars(fit_stain_maps(model, held_out, device=device)), maps_path)
    for seed in missing:
        pool = make_pool(model, listed, experiment.DESIGNS[design_name], seed, device)
        pool.save(pool_path(out, design_name, seed))
        print(f"pool of seed {seed}", file=sys.stderr, flush=True)


def pool_path(out: Path, design_name: str, seed: int) -> Path:
    """Return the path of a seed's pool; designs of the same stains share one."""
    design = experiment.DESIGNS[design_name]
    stain = f"{design.stain}{design.stain_strength:g}{'-confounded' if design.confounded else ''}"
    return out / f"pools-{stain}-{design.n_slides}x{design.n_tiles}" / f"{seed:03d}.npz"


def one(arm: str, seed: int, design_name: str, out: Path) -> dict[str, Any]:
    """Return the row of an arm and a seed."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    keep_freed_memory()
    design = experiment.DESIGNS[design_name]
    composed = compose(Pool.load(pool_path(out, design_name, seed)), design, seed)
    maps = StainMaps(**torch.load(out / "stain_maps.pt", weights_only=True)) if arm.endswith(arms.MAPPED) else None
    embedded = arms.embed(composed, arm, seed, maps)
    train = composed.first_half if design.confounded else None
    slide_of = composed.cohort.slide_of
    scores = measure(embedded, slide_of, composed.labels, composed.phenotype, seed, train)
    return {"design": design_name, "seed": seed, "way": arm} | scores


def in_processes(work: Callable[..., T], jobs: list[tuple[Any, ...]], processes: int) -> Iterator[T]:
    """Do jobs in processes of their own; yields results as they come."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work, *job) for job in jobs]):
            yield future.result()


def collect(
    tiles: Path | None,
    out: Path,
    design_name: str,
    seeds: range,
    ways: list[str],
    processes: int,
    *,
    measured: Path | None = MEASURED,
) -> pd.DataFrame:
    """Collect all rows; those of `measured` and of `rows.csv` in `out` are not computed again."""
    path = out / "rows.csv"
    earlier = _read_rows(measured) if measured else []
    rows = _read_rows(path)
    done = {(row["design"], row["seed"], row["way"]) for row in earlier + rows}
    missing = [(way, seed, design_name, out) for seed in seeds for way in ways if (design_name, seed, way) not in done]
    prepare(tiles, out, design_name, {seed for _, seed, _, _ in missing})
    for count, row in enumerate(in_processes(one, missing, processes), 1):
        rows.append(row)
        pd.DataFrame(rows).to_csv(path, index=False)
        print(f"{count} of {len(missing)}: {row}", file=sys.stderr, flush=True)
    table = pd.DataFrame(earlier + rows).drop_duplicates(["design", "seed", "way"])
    return table[(table["design"] == design_name) & table["seed"].isin(seeds) & table["way"].isin(ways)]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path).to_dict("records") if path.exists() else []
