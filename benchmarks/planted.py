"""Does it work? Pretraining on slides whose truth is planted: every objective of the paper's tables, paired by seed.

The protocol was written down before any of the runs it reports.

Cohort, a new one a seed: 80 slides of two labels, 24 regions each, of 8 x 8 tokens in 64 dimensions. A region has one
of six phenotypes: distributions over 12 kinds of token, a part of each the same background. Its 16 draws appear four
times each anywhere on the grid; but the last phenotype has the distribution of the last but one, and its four lie
together, so that the arrangement alone tells them apart. A slide mixes the phenotypes by a Dirichlet distribution about
the mixture of its label, and adds a stain of its own, without label, to all its tokens. How far the labels differ, the
background, the noise and the recipe were set on seeds that are not reported.

Runs: dino, intra, inter, slpd, global clustering, inter by region; 50 epochs, the first 5 of L_self alone, 5 of
warm-up, teacher momentum 0.996. Beside them the encoder untrained, the mean token of a region, and the oracle: each
region's phenotype as it is. Eight seeds; a seed sets cohort, weights and batches, the same for all runs.

Added afterwards, when it was seen that prototypes help slides nowhere: `late`, SLPD from half way, for on a seed of the
eight the prototypes of the first epochs were a third wrong and stayed so, while those that DINO would have had got
better (`watch`). Its claims are tested on the eight seeds and, decided when those were seen, on eight fresh ones.
Added, too, before any of it was run: `centred`, SLPD whose slides are compared less their mean, on the fresh seeds;
dino, slpd and late with regions of 16 x 16 tokens, each draw sixteen times, by the same recipe but crops of 14 and 6;
new cohorts of the eight seeds, trained in fp32 on a GPU if there is one.

Measured: the AUC of slides by k-NN (k = 10, of mean embeddings, as the paper's KNN; the primary measure) and by
logistic regression, cross-validated; the phenotype of a region by k-NN among the regions of other slides, its accuracy
in all, and that of the last two between themselves (arrangement); and the shares of the embeddings' variance between
phenotypes and between slides. Each claim is a difference of two rows, tested by a paired t-test over the seeds, and
Holm's correction over the claims of a measure.
"""

import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence import why
from benchmarks.evidence.arms import CROPS, RECIPE
from benchmarks.evidence.measures import (
    cross_validated_auc,
    linear_probe,
    neighbor_votes,
    slide_means,
    variance_between,
)
from benchmarks.evidence.statistics import tables
from benchmarks.slides import settings
from slpd_core import config
from slpd_core.pretraining import stage_two
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset, embed_regions
from slpd_core.runtime import generator, keep_freed_memory
from slpd_core.ssl.checkpoint import Checkpoint

SEEDS, FRESH_SEEDS = range(8), range(8, 16)
SLIDES, REGIONS, DIM, WORDS, PHENOTYPES = 80, 24, 64, 12, 6
BACKGROUND = 0.25  # the share of each distribution that all have
CELLS = 4  # a side of clumps; each is drawn once
LABEL_SHIFT = np.array([1.0, -1.0, 0.5, -0.5, 0.5, -0.5])  # of the phenotypes' log share, for and against a label
SHIFT, CONCENTRATION = 0.6, 12.0
STAIN, NOISE = 0.2, 1.5
NEIGHBOURS = 10
MOST_PROCESSES = 8
RUNS: dict[str, dict[str, Any]] = {
    "dino": {"alpha_intra": 0.0, "alpha_inter": 0.0},
    "intra": {"alpha_inter": 0.0},
    "inter": {"alpha_intra": 0.0},
    "slpd": {},
    "global": {"alpha_inter": 0.0, "clustering": "global"},
    "region": {"alpha_intra": 0.0, "inter_target": "region"},
}
AFTERWARDS: dict[str, dict[str, Any]] = {"late": {"prototype_start_epoch": 25}, "centred": {"center_slides": True}}
REFERENCES = ("oracle", "mean token", "untrained")
CLAIMS = {
    "training helps (DINO)": ("dino", "untrained"),
    "training helps (SLPD)": ("slpd", "untrained"),
    "SLPD beats DINO": ("slpd", "dino"),
    "L_intra helps": ("intra", "dino"),
    "L_inter helps": ("inter", "dino"),
    "both beat L_intra": ("slpd", "intra"),
    "both beat L_inter": ("slpd", "inter"),
    "slides beat global clustering": ("intra", "global"),
    "prototypes beat regions": ("inter", "region"),
}
CLAIMS_ON_16 = {claim: CLAIMS[claim] for claim in ("training helps (DINO)", "training helps (SLPD)", "SLPD beats DINO")}
CLAIMS_AFTERWARDS = {
    "late SLPD beats SLPD": ("late", "slpd"),
    "late SLPD beats DINO": ("late", "dino"),
}
CLAIMS_ON_FRESH = CLAIMS_AFTERWARDS | {"centring helps SLPD": ("centred", "slpd")}
WATCHED, WATCHED_SEEDS = ("dino", "slpd"), (2,)  # where SLPD fell furthest behind


@dataclass(frozen=True)
class Planted:
    """A cohort with its truth. labels: (slides,). phenotype: (regions,)."""

    cohort: TokenDataset
    labels: np.ndarray
    phenotype: np.ndarray


def plant(seed: int, grid: int = 8) -> Planted:
    """Draw the cohort of a seed."""
    rng = generator(seed, "planted")
    words = rng.normal(size=(WORDS, DIM))
    distinct, shared = rng.dirichlet(np.full(WORDS, 0.5), size=PHENOTYPES), rng.dirichlet(np.full(WORDS, 2.0))
    composition = BACKGROUND * shared + (1 - BACKGROUND) * distinct
    composition[-1] = composition[-2]
    labels = rng.permutation(np.arange(SLIDES) % 2)
    log_share = SHIFT * np.where(labels[:, None], LABEL_SHIFT, -LABEL_SHIFT)
    share = np.exp(log_share) / np.exp(log_share).sum(1, keepdims=True)
    tokens = np.empty((SLIDES * REGIONS, grid * grid, DIM), np.float32)
    phenotype = np.empty(len(tokens), int)
    side = grid // CELLS
    clump = np.arange(grid)[:, None] // side * CELLS + np.arange(grid) // side
    for slide in range(SLIDES):
        stain = STAIN * rng.normal(size=DIM)
        mixture = rng.dirichlet(CONCENTRATION * share[slide])
        for region in range(slide * REGIONS, (slide + 1) * REGIONS):
            phenotype[region] = kind = rng.choice(PHENOTYPES, p=mixture)
            drawn = rng.choice(WORDS, CELLS**2, p=composition[kind])
            where = clump.ravel() if kind == PHENOTYPES - 1 else rng.permutation(clump.ravel())
            tokens[region] = words[drawn[where]] + stain
    tokens += NOISE * rng.standard_normal(tokens.shape, np.float32)
    names = [f"slide-{i:02d}" for i in range(SLIDES)]
    slide_of = np.repeat(np.arange(SLIDES), REGIONS)
    coords = np.zeros((len(tokens), 2), np.int64)
    arranged = torch.from_numpy(tokens.reshape(-1, grid, grid, DIM)).half()
    cohort = TokenDataset(arranged, slide_of, coords, names, names, str(seed))
    return Planted(cohort, labels, phenotype)


def section_of(run: str, grid: int = 8) -> config.PretrainRunConfig:
    """Return the settings of a run."""
    return settings().pretrain.run("slpd").model_copy(update=RECIPE | CROPS[grid] | (RUNS | AFTERWARDS)[run])


def embeddings(planted: Planted, way: str, seed: int, grid: int = 8) -> np.ndarray:
    """Embed the regions by a run or a reference: (regions, D)."""
    cohort = planted.cohort
    if way == "oracle":
        one_hot: np.ndarray = np.eye(PHENOTYPES)[planted.phenotype]
        return one_hot
    if way == "mean token":
        return cohort.tokens.float().mean((1, 2)).numpy()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if way == "untrained":
        arguments = select_arguments(section_of("dino", grid))
        networks = StageTwo.create(cohort, seed=seed, device=device, **arguments).networks
    else:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {})
            arguments = select_arguments(section_of(way, grid))
            networks, *_ = stage_two.train(cohort, checkpoint, seed=seed, device=device, **arguments)
    return embed_regions(networks.teacher.encoder, cohort.tokens, device)


def measures(embedded: np.ndarray, planted: Planted, seed: int) -> dict[str, float]:
    """Measure a run."""
    from sklearn.neighbors import KNeighborsClassifier

    slide_of, phenotype = planted.cohort.slide_of, planted.phenotype
    slides = slide_means(embedded, slide_of)
    votes = neighbor_votes(embedded, slide_of, phenotype, NEIGHBOURS, PHENOTYPES)
    last_two = phenotype >= PHENOTYPES - 2
    told_apart = votes[last_two, -2:].argmax(1) == phenotype[last_two] - (PHENOTYPES - 2)
    return {
        "kNN AUC": cross_validated_auc(slides, planted.labels, KNeighborsClassifier(NEIGHBOURS), seed),
        "LR AUC": cross_validated_auc(slides, planted.labels, linear_probe(), seed),
        "phenotype": float((votes.argmax(1) == phenotype).mean()),
        "arrangement": float(told_apart.mean()),
        "eta2 phenotype": variance_between(embedded, phenotype),
        "eta2 slide": variance_between(embedded, slide_of),
    }


def one(way: str, seed: int, grid: int) -> dict[str, Any]:
    """Return the row of a run and a seed."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    keep_freed_memory()
    planted = plant(seed, grid)
    return {"grid": grid, "seed": seed, "way": way} | measures(embeddings(planted, way, seed, grid), planted, seed)


def collect(path: Path, grid: int, seeds: range, ways: tuple[str, ...]) -> pd.DataFrame:
    """Collect all rows; those in the file are not computed again."""
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["grid"], row["seed"], row["way"]) for row in rows}
    missing = [(way, seed, grid) for seed in seeds for way in ways if (grid, seed, way) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(MOST_PROCESSES, os.cpu_count() or 1), mp_context=context) as pool:
        for future in as_completed([pool.submit(one, *each) for each in missing]):
            rows.append(future.result())
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(path, index=False)
            print(f"{len(rows) - len(done)} of {len(missing)}: {rows[-1]}", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    return table[(table["grid"] == grid) & table["seed"].isin(seeds) & table["way"].isin(ways)]


def watch(seed: int, way: str) -> pd.DataFrame:
    """Measure how right a run's targets are, one row per epoch, the last two phenotypes counted as one."""
    torch.set_num_threads(1)
    keep_freed_memory()
    planted, clustering = plant(seed), section_of("slpd").extract(ClusteringParams)
    kind = np.minimum(planted.phenotype, PHENOTYPES - 2)
    return why.watch(planted.cohort, kind, section_of(way), clustering, seed).assign(seed=seed, way=way)


def main() -> None:
    """Run the missing rows and print the tables; later additions are printed apart."""
    results = Path("results/benchmarks")
    table = collect(results / "planted.csv", 8, SEEDS, (*REFERENCES, *RUNS))
    print(tables(table, (*REFERENCES, *RUNS), CLAIMS))
    ways = ("dino", "slpd", "late")
    print("\nAdded afterwards, on the same seeds\n")
    print(tables(collect(results / "planted.csv", 8, SEEDS, ways), ways, CLAIMS_AFTERWARDS))
    print("\nOn fresh seeds\n")
    fresh = (*ways, "centred")
    print(tables(collect(results / "planted.csv", 8, FRESH_SEEDS, fresh), fresh, CLAIMS_ON_FRESH))
    print("\nRegions of 16 x 16\n")
    table = collect(results / "planted.csv", 16, SEEDS, (*REFERENCES, *ways))
    print(tables(table, (*REFERENCES, *ways), CLAIMS_ON_16 | CLAIMS_AFTERWARDS))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(watch, seed, way) for seed in WATCHED_SEEDS for way in WATCHED]
        watched = pd.concat([job.result() for job in jobs])
    watched.to_csv(results / "planted_targets.csv", index=False)
    shown = watched[watched["epoch"].isin((0, 5, 10, 15, 25, 35, 49))]
    means = shown.pivot_table(index="epoch", columns="way", values=["intra", "inter", "apart"])
    print(f"\nHow right the targets are, seed {WATCHED_SEEDS[0]}\n\n{means.round(3).to_markdown()}")
