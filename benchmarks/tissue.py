"""Does it work on tissue? DINO and SLPD beside what needs no training of regions, on a cohort run to its tokens.

Reads the folder that TISSUE_RESULTS names: results/{cohort} of a workflow, or results/{cohort}/compared/{encoder} for
the tokens of another patch encoder. Tokens, mean colours and folds are used as they are, so that the patch encoder is
the same for all. The protocol was written down before any of the runs it reports.

A slide of a few regions of 16 x 16 tokens cannot show what prototypes are for: each region is cut into four of 8 x 8,
as regions of half the side would be. Runs: dino and slpd, 50 epochs, the first 5 of L_self alone, 5 of warm-up, teacher
momentum 0.996; three seeds, of weights and batches, the same for both. Beside them the encoder untrained, the mean
token and the mean colour of each region. Measured: AUC and accuracy of KNN (of mean embeddings) and ViT_WSI, as the
workflow evaluates them, over its folds; a row's figures are means over seeds and folds, the standard deviation that of
the seeds' means.
"""

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence.arms import CROPS, RECIPE
from benchmarks.slides import settings
from slpd_core import artifacts
from slpd_core.endpoints.classification import score_classes
from slpd_core.evaluation import evaluate
from slpd_core.pretraining import stage_two
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset, embed_regions, read_token_dataset
from slpd_core.runtime import keep_freed_memory
from slpd_core.ssl.checkpoint import Checkpoint

SEEDS = range(3)
SIDE = 8
SIZE = {"embed_dim": 96, "depth": 3, "n_heads": 3}
RUNS = {"dino": {"alpha_intra": 0.0, "alpha_inter": 0.0}, "slpd": {}}
CLASSIFIERS = {"KNN": "knn", "ViT_WSI": "vit_wsi"}
WAYS = ("mean colour", "mean token", "untrained", *RUNS)


def quarters(values: np.ndarray) -> np.ndarray:
    """(R, grid, grid, C) → (R * 4, grid / 2, grid / 2, C), region after region."""
    R, grid, _, C = values.shape
    parts = values.reshape(R, 2, grid // 2, 2, grid // 2, C).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(4 * R, grid // 2, grid // 2, C)


def read(results: Path) -> tuple[TokenDataset, np.ndarray, pd.DataFrame]:
    """Read the cohort in quarters, the mean color of each, (regions, 3), and the workflow's folds."""
    other = results.parent.name == "compared"
    ledger = results / ("ledger.parquet" if other else "ledger/ledger.parquet")
    cohort = read_token_dataset(ledger, results / "tokens")
    grid = cohort.tokens.shape[1]
    colours = []
    for slide_id in cohort.slide_ids:
        with artifacts.open_tokens(results / "tokens" / f"{slide_id}.h5") as (tokens, _):
            colours.append(tokens.mean_color[()])
    rgb = quarters(np.concatenate(colours).astype(np.float32).reshape(-1, grid, grid, 3)).mean((1, 2))
    of_cohort = results.parents[1] if other else results
    (folds_path,) = (of_cohort / "folds").glob("*/folds.parquet")  # of one task
    folds, _ = artifacts.read_table(folds_path, "folds")
    smaller = replace(
        cohort,
        tokens=torch.from_numpy(quarters(cohort.tokens.numpy())),
        slide_of=np.repeat(cohort.slide_of, 4),
        coords=np.repeat(cohort.coords, 4, axis=0),
    )
    return smaller, rgb, folds


def features(cohort: TokenDataset, colours: np.ndarray, way: str, seed: int) -> np.ndarray:
    """Embed each region by a way: float32 (regions, D)."""
    if way == "mean colour":
        return colours
    if way == "mean token":
        return cohort.tokens.float().mean((1, 2)).numpy()
    changes = RECIPE | CROPS[SIDE] | SIZE | RUNS.get(way, {})
    section = settings().pretrain.run("slpd").model_copy(update=changes)
    if way == "untrained":
        networks = StageTwo.create(cohort, seed=seed, **select_arguments(section)).networks
    else:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder) / "c.pt", {})
            networks, *_ = stage_two.train(cohort, checkpoint, seed=seed, **select_arguments(section))
    return embed_regions(networks.teacher.encoder, cohort.tokens, "cpu")


def one(results: Path, way: str, seed: int) -> list[dict[str, object]]:
    """Score a way and a seed: one row per classifier and fold."""
    torch.set_num_threads(1)
    keep_freed_memory()
    cohort, colours, folds = read(results)
    embeddings = features(cohort, colours, way, seed)
    slides = {name: embeddings[cohort.slide_of == i] for i, name in enumerate(cohort.slide_ids)}
    training, rows = settings().evaluate.training.options, list[dict[str, object]]()
    for fold_index in sorted(folds["fold"].unique()):
        fold = evaluate.select_fold(folds, fold_index)
        truth = fold.endpoint.encode(fold.test)
        for name, classifier in CLASSIFIERS.items():
            p = evaluate.fit_and_predict(slides.__getitem__, fold, classifier, seed, **training)[1]
            rows.append({"way": way, "seed": seed, "classifier": name} | score_classes(truth, p))
    return rows


def main() -> None:
    """Train the runs and print the table."""
    if "TISSUE_RESULTS" not in os.environ:
        print("skipped: TISSUE_RESULTS names no results/{cohort} of a workflow")
        return
    results = Path(os.environ["TISSUE_RESULTS"]).resolve()
    rows = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for scores in pool.map(one, *zip(*((results, way, seed) for seed in SEEDS for way in WAYS), strict=True)):
            rows += scores
    means = pd.DataFrame(rows).groupby(["classifier", "way", "seed"])[["auc", "accuracy"]].mean()
    print(f"{len(SEEDS)} seeds\n\n| classifier | features | AUC | accuracy |\n|---|---|---:|---:|")
    for classifier in CLASSIFIERS:
        for way in WAYS:
            of_way = means.loc[classifier, way]
            cells = (f"{of_way[name].mean():.3f} ± {of_way[name].std():.3f}" for name in ("auc", "accuracy"))
            print(f"| {classifier} | {way} | " + " | ".join(cells) + " |")
    print(flush=True)
