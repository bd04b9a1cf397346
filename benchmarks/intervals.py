"""How often the intervals of the result table hold the truth, and how often equal rows seem to differ, by simulation.

Cohorts of two labels, one slide per patient; folds calibrated differently, so that scores of different folds do not
compare. A row is a score: `fixed` needs no training (unit normals), `linear` is a regularized discriminant, `nearest`
the vote of five neighbors, both trained in each fold. Two rows see different noise of equal strength: they are equal.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from slpd_core.evaluation import compare, uncertainty

Split = tuple[np.ndarray, np.ndarray]  # bool (n,) each: patients that train, patients that are tested
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # train features, train labels, test features
CLASSES = ["a", "b"]
COHORTS = 400
SIGNAL_DIMS = 3
NAMES = ("interval holds", "differ", "differ, t-test", "differ, corrected t-test")


def partition(labels: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold that tests each patient, labels spread."""
    fold = np.empty(len(labels), int)
    for label in (0, 1):
        patients = rng.permutation(np.flatnonzero(labels == label))
        fold[patients] = (np.arange(len(patients)) + rng.integers(n_folds)) % n_folds
    return fold


def split(design: str, labels: np.ndarray, rng: np.random.Generator) -> list[Split]:
    """Return the folds of a design: partition (of 10), repeats (3 partitions), hold-outs (10 or 30 of 80/10/10)."""
    if design.endswith("hold-outs"):
        folds = [partition(labels, 10, rng) for _ in range(int(design.split()[0]))]
        return [(fold > 1, fold == 0) for fold in folds]
    folds = [partition(labels, 10, rng) for _ in range(3 if design == "repeats" else 1)]
    return [(fold != tested, fold == tested) for fold in folds for tested in range(10)]


def score_fixed(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the first feature."""
    return test[:, 0]


def score_linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the projections on Fisher's discriminant with a little ridge."""
    means = np.stack([train[labels == label].mean(0) for label in (0, 1)])
    within = train - means[labels]
    covariance = within.T @ within / len(labels) + 0.1 * np.eye(train.shape[1])
    return test @ np.linalg.solve(covariance, means[1] - means[0])


def score_nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the share of the second label among five nearest neighbors."""
    distances = ((test[:, None] - train[None]) ** 2).sum(2)
    return labels[np.argpartition(distances, 5, axis=1)[:, :5]].mean(1)


SCORERS: dict[str, Scorer] = {"fixed": score_fixed, "linear": score_linear, "nearest": score_nearest}


def predict_folds(
    features: np.ndarray, labels: np.ndarray, splits: list[Split], scorer: Scorer, rng: np.random.Generator
) -> pd.DataFrame:
    """Return an `evaluate` table of all folds; a random shift and slope per fold is how it is calibrated."""
    parts = []
    for fold, (train, test) in enumerate(splits):
        score = scorer(features[train], labels[train], features[test])
        p = 1 / (1 + np.exp(-(score * rng.uniform(0.5, 1) + rng.normal())))
        patient = np.flatnonzero(test)
        columns = {"fold": fold, "slide_id": patient, "patient_id": patient, "label": np.take(CLASSES, labels[test])}
        parts.append(pd.DataFrame(columns | {"p_a": 1 - p, "p_b": p}))
    return pd.concat(parts, ignore_index=True)


def simulate_rows(
    design: str, scorer: str, n: int, dims: int, shifts: tuple[float, ...], rng: np.random.Generator
) -> list[uncertainty.Influence]:
    """Return the AUC's influence of each row on one cohort; half of the noise is common to the rows.

    Args:
        design: as `split` takes it.
        scorer: one of SCORERS.
        n: patients, of two equal labels.
        dims: features.
        shifts: per row, how far the labels are apart in each of SIGNAL_DIMS features.
        rng: of the cohort.
    """
    labels = np.arange(n) % 2
    splits, common = split(design, labels, rng), rng.normal(size=(n, dims))
    rows = []
    for shift in shifts:
        features = math.sqrt(0.5) * common + math.sqrt(0.5) * rng.normal(size=(n, dims))
        features[labels == 1, :SIGNAL_DIMS] += shift
        predictions = predict_folds(features, labels, splits, SCORERS[scorer], rng)
        inflation = uncertainty.KNN_INFLATION if scorer == "nearest" else uncertainty.TRAINING_INFLATION
        rows.append(uncertainty.influences(predictions, CLASSES, inflation)["auc"])
    return rows


def differs(row: uncertainty.Influence, reference: uncertainty.Influence) -> bool:
    """Return whether the interval of the difference leaves out 0."""
    compared = compare.compare_with_reference(row, reference)
    return compared["low"] > 0 or compared["high"] < 0


def t_test(differences: np.ndarray, test_share: float) -> float:
    """Return p of the paired t-test over folds, corrected by n_test / n_train (Nadeau and Bengio, 2003); 0: plain."""
    from scipy import stats

    k = len(differences)
    error = math.sqrt((1 / k + test_share) * differences.var(ddof=1))
    return float(2 * stats.t.sf(abs(differences.mean()) / error, k - 1))


def rates(design: str, scorer: str, n: int, dims: int, shift: float, cohorts: int, seed: int = 1) -> dict[str, float]:
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
    for design in ("partition", "repeats", "10 hold-outs"):
        yield design, "fixed", 400, 3, 1.2
        yield design, "linear", 100, 20, 0.8
        yield design, "linear", 400, 20, 0.7
        yield design, "nearest", 400, 20, 0.9
    yield "30 hold-outs", "fixed", 400, 3, 1.2
    yield "30 hold-outs", "linear", 100, 20, 0.8


def main() -> None:
    """Print the table."""
    print(f"Shares of {COHORTS} cohorts. Wanted: an interval holds the truth in .95, equal rows differ in .05\n")
    print(f"| folds | score | patients | features | AUC | {' | '.join(NAMES)} |")
    print("|---|---|---:|---:|---:|" + "---:|" * len(NAMES))
    for case in cases():
        found = rates(*case, COHORTS)
        print(
            f"| {' | '.join(map(str, case[:4]))} | {' | '.join(f'{value:.3f}' for value in found.values())} |",
            flush=True,
        )
