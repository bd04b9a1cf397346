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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from benchmarks.slides import settings
from slpd_core import config
from slpd_core.pretraining import stage_two
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams, Prototypes
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
NEIGHBOURS, REPEATS = 10, 4
MOST_PROCESSES = 8
RECIPE = {
    "n_prototypes": 4,
    "embed_dim": 64,
    "depth": 2,
    "n_heads": 4,
    "hidden_dim": 256,
    "bottleneck_dim": 64,
    "out_dim": 256,
    "epochs": 50,
    "prototype_start_epoch": 5,
    "warmup_epochs": 5,
    "batch_size": 64,
    "base_lr": 8e-3,
    "teacher_momentum": 0.996,
    "teacher_temperature": 0.07,
    "precision": "fp32",
}
CROPS = {8: {"global_crop_size": 7, "local_crop_size": 3}, 16: {"global_crop_size": 14, "local_crop_size": 6}}
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


def auc(features: np.ndarray, labels: np.ndarray, model: Any, seed: int) -> float:
    """Return the AUC of out-of-fold probabilities, the mean of REPEATS times five folds."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    scores = []
    for repeat in range(REPEATS):
        folds = StratifiedKFold(5, shuffle=True, random_state=100 * seed + repeat)
        predicted = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")[:, 1]
        scores.append(roc_auc_score(labels, predicted))
    return float(np.mean(scores))


def variance_between(embedded: np.ndarray, groups: np.ndarray) -> float:
    """Return the fraction of the variance between groups (eta squared)."""
    centred = embedded - embedded.mean(0)
    within = sum(((centred[groups == g] - centred[groups == g].mean(0)) ** 2).sum() for g in np.unique(groups))
    return float(1 - within / (centred**2).sum())


def measures(embedded: np.ndarray, planted: Planted, seed: int) -> dict[str, float]:
    """Measure a run."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    slide_of, phenotype = planted.cohort.slide_of, planted.phenotype
    slides = np.stack([embedded[slide_of == slide].mean(0) for slide in range(SLIDES)])
    linear = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=[1e-3, 1e-2, 1e-1, 1.0], cv=4, max_iter=2000))
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    cosine = np.where(slide_of[:, None] == slide_of, -np.inf, unit @ unit.T)
    nearest = phenotype[np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]]
    votes = np.stack([(nearest == kind).sum(1) for kind in range(PHENOTYPES)], 1)
    last_two = phenotype >= PHENOTYPES - 2
    told_apart = votes[last_two, -2:].argmax(1) == phenotype[last_two] - (PHENOTYPES - 2)
    return {
        "kNN AUC": auc(slides, planted.labels, KNeighborsClassifier(NEIGHBOURS), seed),
        "LR AUC": auc(slides, planted.labels, linear, seed),
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


def targets_right(prototypes: Prototypes, planted: Planted) -> dict[str, float]:
    """Measure how right the targets of regions are, the last two phenotypes counted as one.

    intra: the chance that another region of a region's prototype is of its phenotype. inter: the chance that one of the
    matched prototype in the nearest slide is. apart: the chance that any other region of the slide is.
    """
    kind, M = np.minimum(planted.phenotype, PHENOTYPES - 2), prototypes.centers.shape[1]
    count = np.zeros((SLIDES, M, PHENOTYPES - 1))
    np.add.at(count, (planted.cohort.slide_of, prototypes.assignment, kind), 1)
    partner = count[prototypes.neighbors, prototypes.matches[:, 0]]
    share = partner / np.maximum(partner.sum(2, keepdims=True), 1)

    def alike(groups: np.ndarray) -> float:
        sizes = groups.sum(-1)
        return float((groups * (groups - 1)).sum() / (sizes * (sizes - 1)).sum())

    return {"intra": alike(count), "inter": float((count * share).sum() / count.sum()), "apart": alike(count.sum(1))}


def watch(seed: int, way: str) -> pd.DataFrame:
    """Measure how right a run's targets are, one row per epoch; of DINO the targets that it would have had."""
    torch.set_num_threads(1)
    keep_freed_memory()
    planted, rows, begin = plant(seed), [], StageTwo.begin_epoch
    clustering = section_of("slpd").extract(ClusteringParams)

    def noted(stage: StageTwo, epoch: int) -> dict[str, float]:
        clustered = stage_two.embed_for_clustering(
            stage.networks,
            stage.dataset,
            cluster_space=stage.objective.cluster_space,
            cluster_crop=stage.clustering.cluster_crop,
        )
        prototypes = stage_two.cluster_dataset(stage.dataset, clustered, clustering, seed=seed, epoch=epoch)
        rows.append({"seed": seed, "way": way, "epoch": epoch} | targets_right(prototypes, planted))
        return begin(stage, epoch)

    with tempfile.TemporaryDirectory() as folder, patch.object(StageTwo, "begin_epoch", noted):
        checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {})
        stage_two.train(planted.cohort, checkpoint, seed=seed, **select_arguments(section_of(way)))
    return pd.DataFrame(rows)


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values corrected for multiple tests (Holm, 1979); nan, of rows equal on every seed, becomes 1."""
    values = np.nan_to_num(np.array(p, float), nan=1.0)
    order = np.argsort(values)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return corrected


def tables(table: pd.DataFrame, claims: dict[str, tuple[str, str]]) -> str:
    """Format means and standard deviations over the seeds, and the claims: difference, seeds won, Holm's p."""
    from scipy import stats

    names = [name for name in table.columns if name not in ("grid", "seed", "way")]
    ways = [way for way in (*REFERENCES, *RUNS, *AFTERWARDS) if way in set(table["way"])]
    head = "| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names) + "\n"
    lines = [f"{table['seed'].nunique()} seeds, mean ± standard deviation\n\n" + head]
    for way in ways:
        of_way = table[table["way"] == way]
        cells = (f"{of_way[name].mean():.3f} ± {of_way[name].std():.3f}" for name in names)
        lines.append(f"| {way} | " + " | ".join(cells) + " |\n")
    lines.append("\nDifferences, seeds in which the first is higher, p after Holm\n\n" + head)
    by_seed = {way: table[table["way"] == way].set_index("seed")[names].sort_index() for way in ways}
    away = {claim: by_seed[one] - by_seed[other] for claim, (one, other) in claims.items()}
    p = {name: holm([stats.ttest_1samp(d[name], 0).pvalue for d in away.values()]) for name in names}
    for i, (claim, d) in enumerate(away.items()):
        cells = (f"{d[name].mean():+.3f} ({(d[name] > 0).sum()}/{len(d)}, p {p[name][i]:.2g})" for name in names)
        lines.append(f"| {claim} | " + " | ".join(cells) + " |\n")
    return "".join(lines)


def main() -> None:
    """Run the missing rows and print the tables; later additions are printed apart."""
    results = Path("results/benchmarks")
    table = collect(results / "planted.csv", 8, SEEDS, (*REFERENCES, *RUNS))
    print(tables(table, CLAIMS))
    ways = ("dino", "slpd", "late")
    print("\nAdded afterwards, on the same seeds\n")
    print(tables(collect(results / "planted.csv", 8, SEEDS, ways), CLAIMS_AFTERWARDS))
    print("\nOn fresh seeds\n")
    print(tables(collect(results / "planted.csv", 8, FRESH_SEEDS, (*ways, "centred")), CLAIMS_ON_FRESH))
    print("\nRegions of 16 x 16\n")
    table = collect(results / "planted.csv", 16, SEEDS, (*REFERENCES, *ways))
    print(tables(table, CLAIMS_ON_16 | CLAIMS_AFTERWARDS))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(watch, seed, way) for seed in WATCHED_SEEDS for way in WATCHED]
        watched = pd.concat([job.result() for job in jobs])
    watched.to_csv(results / "planted_targets.csv", index=False)
    shown = watched[watched["epoch"].isin((0, 5, 10, 15, 25, 35, 49))]
    means = shown.pivot_table(index="epoch", columns="way", values=["intra", "inter", "apart"])
    print(f"\nHow right the targets are, seed {WATCHED_SEEDS[0]}\n\n{means.round(3).to_markdown()}")
