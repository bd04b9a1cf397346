"""How often the intervals of the result table hold the truth, and how often equal rows seem to differ, by simulation.

Cohorts of two labels, one slide per patient; scores are compared within folds. Two rows see different noise of equal
strength, half of it common: they are equal. `fixed` scores need no training (unit normals); `linear` is a regularized
discriminant, `nearest` the vote of five neighbors, `network` has one hidden layer: each is trained in each fold.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch

from slpd_core.report import significance, uncertainty

# Features (B, n_train, dims) and labels (B, n_train) that train, features (B, n_test, dims) -> scores (B, n_test).
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
COHORTS = 1000
SIGNAL_DIMS = 3
NEIGHBORS = 5
HIDDEN, STEPS, LEARNING_RATE = 8, 30, 0.1  # of the network
NAMES = ("interval holds", "differ", "differ, t-test", "differ, corrected t-test")


def partition(labels: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold that tests each patient, labels spread."""
    fold = np.empty(len(labels), int)
    for label in (0, 1):
        patients = rng.permutation(np.flatnonzero(labels == label))
        fold[patients] = (np.arange(len(patients)) + rng.integers(n_folds)) % n_folds
    return fold


def split(design: str, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the patients that train and those that are tested, (F, n_train) and (F, n_test), of a design: partition
    (of 10), repeats (3 partitions), hold-outs (10 or 30 of 80/10/10). Each label has 10 times as many as a fold tests.
    """
    if design.endswith("hold-outs"):
        folds = [partition(labels, 10, rng) for _ in range(int(design.split()[0]))]
        parts = [(fold > 1, fold == 0) for fold in folds]
    else:
        folds = [partition(labels, 10, rng) for _ in range(3 if design == "repeats" else 1)]
        parts = [(fold != tested, fold == tested) for fold in folds for tested in range(10)]
    train, test = zip(*parts, strict=True)
    return np.stack([np.flatnonzero(part) for part in train]), np.stack([np.flatnonzero(part) for part in test])


def score_fixed(train: np.ndarray, labels: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the first feature."""
    return test[..., 0]


def score_linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the projections on Fisher's discriminant with a little ridge."""
    of_label = np.stack([1 - labels, labels], axis=1) / (labels.shape[1] / 2)  # (B, 2, n_train)
    means = of_label @ train
    within = train - np.take_along_axis(means, labels[..., None], axis=1)
    covariance = within.swapaxes(1, 2) @ within / labels.shape[1] + 0.1 * np.eye(train.shape[2])
    return (test @ np.linalg.solve(covariance, (means[:, 1] - means[:, 0])[..., None]))[..., 0]


def score_nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the share of the second label among the nearest neighbors."""
    distances = (train**2).sum(2)[:, None] - 2 * test @ train.swapaxes(1, 2)
    nearest = np.argpartition(distances, NEIGHBORS, axis=2)[..., :NEIGHBORS]
    chosen = np.take_along_axis(labels[:, None], nearest.reshape(len(labels), 1, -1), 2)
    shares: np.ndarray = chosen.reshape(nearest.shape).mean(2)
    return shares


def score_network(train: np.ndarray, labels: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the logits of a network of one hidden layer, trained by Adam on the cross-entropy of all patients."""
    dims = train.shape[2]
    hidden = rng.normal(size=(len(train), dims, HIDDEN)) / math.sqrt(dims)
    out = rng.normal(size=(len(train), HIDDEN, 1)) / math.sqrt(HIDDEN)
    bias = np.zeros((len(train), 1, HIDDEN))
    x, y, z, *weights = (torch.from_numpy(array).float() for array in (train, labels, test, hidden, bias, out))

    def logits(features: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(torch.baddbmm(weights[1], features, weights[0])) @ weights[2])[..., 0]

    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in weights], LEARNING_RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits(x), y, reduction="none")
        entropy.mean(1).sum().backward()
        optimizer.step()
    return logits(z).detach().numpy()


SCORERS: dict[str, Scorer] = {
    "fixed": score_fixed,
    "linear": score_linear,
    "nearest": score_nearest,
    "network": score_network,
}
TRAINING = dict.fromkeys(SCORERS, uncertainty.TRAINING) | {"fixed": 0.0, "nearest": uncertainty.KNN_TRAINING}


def auc_influence(scores: np.ndarray, tested: np.ndarray, labels: np.ndarray, training: float) -> uncertainty.Influence:
    """Return the AUC's influence as `uncertainty.compute_influences` does, by placements (DeLong et al., 1988).

    Args:
        scores: of the patients that each fold tests, (F, n_test).
        tested: the index of each in `labels`, (F, n_test); equally many of each label in all folds.
        labels: 0 or 1 per patient, (n,).
        training: as uncertainty.Influence says.
    """
    below, above = (tested[labels[tested] == label].reshape(len(tested), -1) for label in (0, 1))
    low, high = (scores[labels[tested] == label].reshape(len(tested), -1) for label in (0, 1))
    higher = (high[:, :, None] > low[:, None]) + 0.5 * (high[:, :, None] == low[:, None])
    auc = higher.mean((1, 2))
    parts = np.full((len(tested), len(labels)), np.nan)
    for patients, placements in ((above, higher.mean(2)), (below, higher.mean(1))):
        m = patients.shape[1]
        np.put_along_axis(parts, patients, (placements - auc[:, None]) / math.sqrt(m * (m - 1)), axis=1)
    parts = parts[:, np.isin(np.arange(len(labels)), tested)]
    return uncertainty.Influence(pd.Series(auc), pd.DataFrame(parts), len(labels) // 2, training)


def simulate_rows(
    design: str, scorer: str, n: int, dims: int, shifts: tuple[float, ...], rng: np.random.Generator
) -> list[uncertainty.Influence]:
    """Return the AUC's influence of each row on one cohort.

    Args:
        design: as `split` takes it.
        scorer: one of SCORERS.
        n: patients, of two equal labels.
        dims: features.
        shifts: per row, how far the labels are apart in each of SIGNAL_DIMS features.
        rng: of the cohort.
    """
    labels = np.arange(n) % 2
    (train, test), common = split(design, labels, rng), rng.normal(size=(n, dims))
    features = math.sqrt(0.5) * common + math.sqrt(0.5) * rng.normal(size=(len(shifts), n, dims))
    features[:, labels == 1, :SIGNAL_DIMS] += np.reshape(shifts, (-1, 1, 1))
    trained, tested = (features[:, part].reshape(-1, part.shape[1], dims) for part in (train, test))
    scores = SCORERS[scorer](trained, np.tile(labels[train], (len(shifts), 1)), tested, rng)
    return [auc_influence(row, test, labels, TRAINING[scorer]) for row in np.split(scores, len(shifts))]


def differs(row: uncertainty.Influence, reference: uncertainty.Influence) -> bool:
    """Return whether the interval of the difference leaves out 0."""
    compared = significance.compare_with_reference(row, reference)
    return compared["low"] > 0 or compared["high"] < 0


def t_test(differences: np.ndarray, test_share: float) -> float:
    """Return p of the paired t-test over folds, corrected by n_test / n_train (Nadeau and Bengio, 2003); 0: plain."""
    from scipy import special

    k = len(differences)
    error = math.sqrt((1 / k + test_share) * differences.var(ddof=1))
    return float(2 * special.stdtr(k - 1, -abs(differences.mean()) / error))


def rates(design: str, scorer: str, n: int, dims: int, shift: float, cohorts: int, seed: int = 7) -> dict[str, float]:
    """Return how often the interval of a row holds the mean over cohorts, and how often two equal rows differ: by their
    interval, by the t-test over folds, and by the corrected one.
    """
    rng = np.random.default_rng(seed)
    pairs = [simulate_rows(design, scorer, n, dims, (shift, shift), rng) for _ in range(cohorts)]
    truth = np.mean([row.values.mean() for pair in pairs for row in pair])
    ends = [row.interval() for pair in pairs for row in pair]
    away = [(row.values - other.values).to_numpy() for row, other in pairs]
    share = 1 / 8 if design.endswith("hold-outs") else 1 / 9
    seen = (
        [low <= truth <= high for low, high in ends],
        [differs(*pair) for pair in pairs],
        [t_test(one, 0.0) < 0.05 for one in away],
        [t_test(one, share) < 0.05 for one in away],
    )
    return {"AUC": float(truth)} | {name: float(np.mean(of)) for name, of in zip(NAMES, seen, strict=True)}


def cases() -> Iterator[tuple[str, str, int, int, float]]:
    """Yield design, scorer, patients, features and shift of each line of the table."""
    for design in ("partition", "repeats", "10 hold-outs", "30 hold-outs"):
        yield design, "fixed", 100, 3, 1.2
        yield design, "fixed", 400, 3, 1.2
        yield design, "linear", 100, 20, 0.8
        yield design, "linear", 400, 20, 0.7
        yield design, "linear", 100, 20, 0.5
        yield design, "linear", 400, 20, 0.4
        yield design, "nearest", 400, 20, 0.9
        yield design, "network", 100, 20, 0.8


def main() -> None:
    """Print the table."""
    print(f"Shares of {COHORTS} cohorts. Wanted: an interval holds the truth in .95, equal rows differ in .05\n")
    print(f"| folds | score | patients | features | AUC | {' | '.join(NAMES)} |")
    print("|---|---|---:|---:|---:|" + "---:|" * len(NAMES))
    for case in cases():
        shares = rates(*case, COHORTS)
        print(
            f"| {' | '.join(map(str, case[:4]))} | {' | '.join(f'{value:.3f}' for value in shares.values())} |",
            flush=True,
        )
