"""Ten folds of four classifiers on 1,000 slides of 60 regions; an epoch against the published way; memory on patches.

The published way: a DataLoader that loads one slide's tensor from a file a step, torch's own layers and dropout, Adam
as it comes, the loss asked for at every step. Labels and embeddings are random, but for a shift that labels can be told
by.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from benchmarks.slides import settings
from benchmarks.timing import in_own_process
from slpd_core import artifacts
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import evaluate, features, folds, networks
from slpd_core.runtime import generator, limited_threads

SLIDES, REGIONS, DIM, FOLDS = 1000, 60, 192, 10
CLASSIFIERS = ("knn", "mil", "dsmil", "vit_wsi")
MOST_MINUTES = 12
PATCHES, PATCH_DIM, MOST_MB = 15_000, 384, 3000
LOADERS = 2  # processes of the DataLoader; HIPT has four, on more cores
NEEDED_GB = 13  # of disk
TOKENS_META = artifacts.provenance("tokens", 1, {}) | dict.fromkeys(artifacts.ENCODER_META, "random")


def slides() -> pd.DataFrame:
    """List slides, one per patient, of two labels."""
    names = [f"slide-{i:04d}" for i in range(SLIDES)]
    labels = np.where(np.arange(SLIDES) % 2, "b", "a")
    return pd.DataFrame({"slide_id": names, "patient_id": names, "label": labels})


def write_folds(path: Path) -> None:
    """Write the default folds of the slides, and their ledger."""
    ledger = slides().assign(fingerprint=TOKENS_META["fingerprint"]).reindex(columns=[*artifacts.TABLES["ledger"]])
    artifacts.write_table(path.with_name("ledger.parquet"), "ledger", ledger, artifacts.provenance("ledger", 1, {}))
    meta = artifacts.provenance("folds", 1, {}) | Classification(("a", "b")).meta
    artifacts.write_table(path, "folds", folds.make_folds(slides(), 1, n_folds=FOLDS), meta)


def write_tokens(folder: Path, slide_id: str, tokens: np.ndarray) -> None:
    """Write the tokens of a slide, (R, patches, D)."""
    R, patches, dim = tokens.shape
    info = artifacts.SlideInfo(slide_id, artifacts.OK, "", 9000, 9000, 0.5, "sheet", "f")
    regions = artifacts.Regions(info, np.zeros((R, 2), np.int64), np.ones(R, np.float32), 4096, 4096, 0.5)
    with artifacts.create_tokens(folder / f"{slide_id}.h5", regions, int(patches**0.5), dim, TOKENS_META) as written:
        written.tokens[:] = tokens


def write_regions(folder: Path) -> None:
    """Write folds, embeddings, tokens files that name their encoder, and one tensor per slide for the DataLoader."""
    write_folds(folder / "folds.parquet")
    rng, frame = generator(1, "evaluation"), slides()
    shift = np.where(frame["label"] == "b", 0.1, -0.1).astype(np.float32)
    embedded = rng.standard_normal((SLIDES, REGIONS, DIM), np.float32) + shift[:, None, None]
    rows = pd.DataFrame({"slide_id": frame["slide_id"].repeat(REGIONS), "x": 0, "y": 0})
    meta = artifacts.provenance("embed", 1, {}) | {"embed_dim": str(DIM)}
    artifacts.write_table(
        folder / "embed.parquet", "embed", rows.assign(embedding=list(embedded.reshape(-1, DIM))), meta
    )
    for slide_id, vectors in zip(frame["slide_id"], embedded, strict=True):
        write_tokens(folder, slide_id, np.zeros((1, 1, 3), np.float16))
        torch.save(torch.from_numpy(vectors.copy()), folder / f"{slide_id}.pt")


def job(folder: Path, classifier: str, fold: int, embed: str | None = "embed.parquet", **changes: Any) -> float:
    """Run a job of the workflow without Snakemake: one fold of one classifier; return the AUC of its test slides."""
    from sklearn.metrics import roc_auc_score

    out = folder / f"{embed}-{classifier}-{fold}.parquet"
    model = out.with_suffix(".safetensors")
    with limited_threads(1):
        evaluate.run(
            folds_path=folder / "folds.parquet",
            folds=[fold],
            features="slpd" if embed else "patch_tokens",
            classifier=classifier,
            embed_path=folder / embed if embed else None,
            tokens_dir=folder,
            ledger_path=folder / "ledger.parquet",
            out_paths=[out],
            model_paths=[model],
            section=settings().evaluate.training.model_copy(update=changes),
            seed=1,
        )
    table, _ = artifacts.read_table(out, "evaluate")
    return float(roc_auc_score(table["label"] == "b", table["p_b"]))


def all_folds(folder: Path) -> None:
    """Print the seconds of all jobs, one process per job and core."""
    cores, jobs = os.cpu_count() or 1, list(product(CLASSIFIERS, range(FOLDS)))
    context, started = multiprocessing.get_context("spawn"), time.perf_counter()
    with ProcessPoolExecutor(cores, mp_context=context, max_tasks_per_child=1) as pool:
        auc = list(pool.map(job, [folder] * len(jobs), *zip(*jobs, strict=True)))
    minutes = (time.perf_counter() - started) / 60
    means = ", ".join(
        f"{name} {np.mean([a for a, (classifier, _) in zip(auc, jobs, strict=True) if classifier == name]):.3f}"
        for name in CLASSIFIERS
    )
    over = f" (more than {MOST_MINUTES})" if minutes > MOST_MINUTES else ""
    print(f"{len(jobs)} jobs of {SLIDES} slides x {REGIONS} regions x {DIM} on {cores} cores: {minutes:.1f} min{over}")
    print(f"AUC: {means}\n", flush=True)


class OfFiles(Dataset[tuple[torch.Tensor, int]]):
    """A slide's tensor and label, loaded when asked for."""

    def __init__(self, folder: Path, fold: evaluate.Fold) -> None:
        self.paths = [folder / f"{slide_id}.pt" for slide_id in fold.train["slide_id"]]
        self.labels = fold.bags(fold.train).targets

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.load(self.paths[i]), int(self.labels[i])


def plain(model: nn.Module) -> nn.Module:
    """Build the same classifier of torch's own layers."""
    for name, child in model.named_children():
        if isinstance(child, networks.Dropout):
            setattr(model, name, nn.Dropout(0.25))
        elif isinstance(child, networks.EncoderLayer):
            layer = nn.TransformerEncoderLayer(child.linear1.in_features, 3, child.linear1.out_features, 0.25)
            layer.load_state_dict(child.state_dict())
            setattr(model, name, layer)
        else:
            plain(child)
    return model


def published_epoch(folder: Path, classifier: str) -> float:
    """Time an epoch of fold 0, the second of two."""
    fold = evaluate.select_fold(artifacts.read_table(folder / "folds.parquet", "folds")[0], 0)
    data = OfFiles(folder, fold)
    weights = 1 / np.bincount(data.labels)[data.labels]
    model = plain(networks.build_network(classifier, DIM, 2, 0.25, 1)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=3.2e-4)
    spent = 0.0
    for _ in range(2):
        started, total = time.perf_counter(), 0.0
        sampler = WeightedRandomSampler(weights.tolist(), len(data))
        for slide, label in DataLoader(data, batch_size=1, sampler=sampler, num_workers=LOADERS):
            loss = F.cross_entropy(model(slide[0])[None], label)
            total += loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent = time.perf_counter() - started
    return spent


def own_epoch(folder: Path, classifier: str) -> float:
    """Time an epoch of fold 0 in one thread: the mean of three after one that does not count."""
    fold = evaluate.select_fold(artifacts.read_table(folder / "folds.parquet", "folds")[0], 0)
    read, _ = features.region_features(folder / "embed.parquet")
    with limited_threads(1):
        for epochs in (1, 3):
            started = time.perf_counter()
            evaluate.fit_and_predict(read, fold, classifier, 1, epochs=epochs)
            spent = (time.perf_counter() - started) / epochs
    return spent


def epochs(folder: Path) -> None:
    """Print the table of an epoch: the published way has all cores, ours one."""
    cores, total = os.cpu_count() or 1, np.zeros(2)
    print(f"An epoch of a fold, s: the published way on {cores} cores, ours on one\n")
    print("| classifier | published | ours | ratio | ratio, a job a core |\n|---|---:|---:|---:|---:|")
    for classifier in [*CLASSIFIERS[1:], "all three"]:
        if classifier == "all three":
            pair = total
        else:
            pair = np.array([in_own_process(way, folder, classifier)[0] for way in (published_epoch, own_epoch)])
            total += pair
        ratio = pair[0] / pair[1]
        print(f"| {classifier} | {pair[0]:.2f} | {pair[1]:.2f} | {ratio:.1f} | {ratio * cores:.1f} |", flush=True)


def memory() -> None:
    """Print the cost of a fold of each classifier on patches that do not fit into memory; one epoch."""
    if shutil.disk_usage(tempfile.gettempdir()).free < NEEDED_GB * 1e9:
        print(f"Patch features skipped: they need {NEEDED_GB} GB of disk in {tempfile.gettempdir()}.")
        return
    rng, side = generator(1, "patches"), int(PATCHES**0.5)
    pool = rng.standard_normal((4, side, side, PATCH_DIM), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folds(folder / "folds.parquet")
        for i, slide_id in enumerate(slides()["slide_id"]):
            write_tokens(folder, slide_id, np.roll(pool[i % 4], i, axis=0).reshape(1, side * side, PATCH_DIM))
        held = SLIDES * side * side * PATCH_DIM * 2 / 1e9
        print(f"\n{SLIDES} slides x {side * side} patches x {PATCH_DIM}: {held:.1f} GB; one epoch of a fold\n")
        print("| classifier | seconds | peak memory, MB |\n|---|---:|---:|")
        for classifier in ("knn", "mil", "dsmil"):
            _, cost = in_own_process(on_patches, folder, classifier)
            over = "" if cost.peak_mb < MOST_MB else f" (more than {MOST_MB})"
            print(f"| {classifier} | {cost.seconds:.0f} | {cost.peak_mb:.0f}{over} |", flush=True)


def on_patches(folder: Path, classifier: str) -> float:
    """Run the job on patches."""
    return job(folder, classifier, 0, None, epochs=1)


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        write_regions(Path(folder))
        epochs(Path(folder))
        print()
        all_folds(Path(folder))
    memory()
