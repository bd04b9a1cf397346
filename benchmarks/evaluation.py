"""Ten folds of five classifiers on 1,000 slides of 60 regions; an epoch against a careful loop; memory on patches.

The careful loop holds the slides as tensors in memory, on one thread like ours, and steps with fused Adam; its layers
and dropout are torch's own, and it never waits for a loss. Labels and embeddings are random, but for a shift that
labels can be told by.
"""

import math
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

from benchmarks.slides import settings
from benchmarks.timing import in_own_process
from slpd_core import artifacts
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import evaluate, features, folds, networks
from slpd_core.runtime import generator, limited_threads

SLIDES, REGIONS, DIM, FOLDS = 1000, 60, 192, 10
NETWORKS = ("mil", "abmil", "dsmil", "vit_wsi")
CLASSIFIERS = ("knn", *NETWORKS)
EPOCHS, ROUNDS = 2, 3
MOST_MINUTES = 12
PATCHES, PATCH_DIM, MOST_MB = 15_000, 384, 3000
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
    """Write folds, embeddings, tokens files that name their encoder."""
    write_folds(folder / "folds.parquet")
    rng, frame = generator(1, "evaluation"), slides()
    shift = np.where(frame["label"] == "b", 0.1, -0.1).astype(np.float32)
    embedded = rng.standard_normal((SLIDES, REGIONS, DIM), np.float32) + shift[:, None, None]
    rows = pd.DataFrame({"slide_id": frame["slide_id"].repeat(REGIONS), "x": 0, "y": 0})
    meta = artifacts.provenance("embed", 1, {}) | {"embed_dim": str(DIM)}
    artifacts.write_table(
        folder / "embed.parquet", "embed", rows.assign(embedding=list(embedded.reshape(-1, DIM))), meta
    )
    for slide_id in frame["slide_id"]:
        write_tokens(folder, slide_id, np.zeros((1, 1, 3), np.float16))


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


def prepare(folder: Path) -> tuple[features.ReadSlide, evaluate.Fold]:
    """Read the embeddings and fold 0."""
    fold = evaluate.select_fold(artifacts.read_table(folder / "folds.parquet", "folds")[0], 0)
    return features.region_features(folder / "embed.parquet")[0], fold


def careful_epochs(folder: Path, classifier: str, epochs: int) -> None:
    """Train on fold 0 in the careful loop."""
    read, fold = prepare(folder)
    bags = fold.bags(fold.train)
    slides, targets = [torch.from_numpy(read(bag)) for bag in bags.ids], torch.from_numpy(bags.targets)
    weights = torch.from_numpy(1 / np.bincount(bags.targets)[bags.targets])
    model = plain(networks.build_network(classifier, DIM, 2, 0.25, 1)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=3.2e-4, fused=True)
    for _ in range(epochs):
        for i in torch.multinomial(weights, len(slides), replacement=True).tolist():
            optimizer.zero_grad()
            F.cross_entropy(model(slides[i])[None], targets[i : i + 1]).backward()
            optimizer.step()


def our_epochs(folder: Path, classifier: str, epochs: int) -> None:
    """Train on fold 0 as the stage does."""
    read, fold = prepare(folder)
    evaluate.fit_and_predict(read, fold, classifier, 1, epochs=epochs)


def epoch_seconds(folder: Path, classifier: str) -> dict[str, float]:
    """Measure the CPU seconds of an epoch of both ways, in turn: EPOCHS more against one, the least of each."""
    ways = {"careful loop": careful_epochs, "ours": our_epochs}
    least: dict[tuple[str, int], float] = {}
    with limited_threads(1):
        for _ in range(ROUNDS + 1):
            for (name, way), epochs in product(ways.items(), (1, 1 + EPOCHS)):
                started = time.process_time()
                way(folder, classifier, epochs)
                least[name, epochs] = min(least.get((name, epochs), math.inf), time.process_time() - started)
    return {name: (least[name, 1 + EPOCHS] - least[name, 1]) / EPOCHS for name in ways}


def epochs(folder: Path) -> None:
    """Print the table of an epoch."""
    print("An epoch of a fold in one thread, CPU seconds\n")
    print("| classifier | careful loop | ours | ratio |\n|---|---:|---:|---:|")
    ratios = []
    for classifier in NETWORKS:
        seconds, _ = in_own_process(epoch_seconds, folder, classifier)
        ratios.append(seconds["careful loop"] / seconds["ours"])
        print(
            f"| {classifier} | {seconds['careful loop']:.2f} | {seconds['ours']:.2f} | {ratios[-1]:.2f} |", flush=True
        )
    print(f"\nGeometric mean of the ratios: {np.exp(np.log(ratios).mean()):.2f}")


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
