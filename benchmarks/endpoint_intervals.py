"""How often intervals of the scores of ordinal, continuous and survival endpoints hold the truth, by simulation.

Cohorts of one slide per patient, tested once in ten folds. Two rows see different noise of equal strength, half of it
common: they are equal. `fixed` predictions need no training; `linear` ones are trained in each fold on 20 features, of
which three tell the truth: ridge regression, its rounded ranks, or Cox regression.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from slpd_core.endpoints.cox import fit_cox
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.endpoints.regression import fit_ridge, predict_ridge
from slpd_core.report import significance, uncertainty

COHORTS = 400
DIMS, SIGNAL_DIMS, FOLDS = 20, 3, 10
ENDPOINTS: dict[str, Endpoint] = {
    "ordinal": make_endpoint("ordinal", ["a", "b", "c", "d"]),
    "regression": make_endpoint("regression"),
    "survival": make_endpoint("survival"),
}


def draw_truth(endpoint: Endpoint, hidden: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return the truth of patients whose hidden value, of unit variance, features tell.

    Ranks have edges at -1, 0 and 1. Times are exponential, their logarithm falls with the hidden value, and about half
    of them are censored.
    """
    if endpoint.kind == "ordinal":
        return pd.DataFrame({"label": np.array(endpoint.classes)[np.digitize(hidden, (-1, 0, 1))]})
    if endpoint.kind == "regression":
        return pd.DataFrame({"value": hidden})
    time, censored = rng.exponential(np.exp(-hidden)), rng.exponential(np.ones(len(hidden)))
    return pd.DataFrame({"time": np.minimum(time, censored), "event": time <= censored})


def predict(endpoint: Endpoint, value: np.ndarray) -> pd.DataFrame:
    """Return predictions that follow a value on the scale of the hidden one."""
    if endpoint.kind != "ordinal":
        return pd.DataFrame({endpoint.prediction_columns[0]: value})
    return pd.DataFrame(np.eye(4)[np.digitize(value, (-1, 0, 1))], columns=endpoint.prediction_columns)


def train(endpoint: Endpoint, truth: pd.DataFrame, features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return what a linear model says of all patients that was trained on some."""
    if endpoint.kind == "survival":
        time, event = endpoint.encode(truth)[train].T
        model = fit_cox(features[train], time, event, l2=10.0)
        risks: np.ndarray = (features - model["mean"]) / model["scale"] @ model["coef"]
        return risks
    targets = endpoint.encode(truth)[train].astype(float)
    predicted = predict_ridge(fit_ridge(features[train], targets, l2=10.0), features)
    return predicted - 1.5 if endpoint.kind == "ordinal" else predicted  # ranks 1 and 2 meet at 0


def simulate_rows(
    endpoint: Endpoint, scorer: str, n: int, strength: float, rng: np.random.Generator
) -> list[dict[str, uncertainty.Influence]]:
    """Return the influences of two rows on one cohort.

    Args:
        endpoint: Of the task.
        scorer: fixed or linear.
        n: Patients.
        strength: Correlation of the hidden value with the features' part that tells it.
        rng: Of the cohort.
    """
    hidden, fold = rng.normal(size=n), rng.permutation(np.arange(n) % FOLDS)
    truth, common = draw_truth(endpoint, hidden, rng), rng.normal(size=(n, DIMS))
    rows = []
    for _ in range(2):
        features = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(size=(n, DIMS))
        features[:, :SIGNAL_DIMS] *= np.sqrt(1 - strength**2)
        features[:, :SIGNAL_DIMS] += strength * hidden[:, None]
        value = strength * features[:, 0]
        if scorer == "linear":
            for i in range(FOLDS):
                value[fold == i] = train(endpoint, truth, features, fold != i)[fold == i]
        table = pd.concat(
            [pd.DataFrame({"fold": fold, "patient_id": range(n)}), truth, predict(endpoint, value)], axis=1
        )
        training = uncertainty.TRAINING if scorer == "linear" else 0.0
        rows.append(uncertainty.compute_influences(table, endpoint, training))
    return rows


def rates(
    endpoint: Endpoint, scorer: str, n: int, strength: float, cohorts: int, seed: int = 7
) -> dict[str, tuple[float, float, float]]:
    """Return of each score its mean, how often an interval holds it, and how often two equal rows differ."""
    rng = np.random.default_rng(seed)
    pairs = [simulate_rows(endpoint, scorer, n, strength, rng) for _ in range(cohorts)]
    shares = {}
    for score in endpoint.scores:
        truth = np.nanmean([row[score].values.mean() for pair in pairs for row in pair])
        ends = np.array([row[score].interval() for pair in pairs for row in pair])
        compared = [significance.compare_with_reference(*(row[score] for row in pair)) for pair in pairs]
        differ = [comparison["low"] > 0 or comparison["high"] < 0 for comparison in compared]
        holds = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        shares[score] = float(truth), float(holds.mean()), float(np.mean(differ))
    return shares


def cases() -> Iterator[tuple[str, str, int, float]]:
    """Yield endpoint, scorer, patients and strength of each block of the table."""
    for kind in ENDPOINTS:
        for n in (100, 300):
            yield kind, "fixed", n, 0.7
            yield kind, "linear", n, 0.5


def main() -> None:
    """Print the table."""
    print(f"Shares of {COHORTS} cohorts. Wanted: an interval holds the truth in .95, equal rows differ in .05\n")
    print("| endpoint | score | predictions | patients | mean | interval holds | differ |")
    print("|---|---|---|---:|---:|---:|---:|")
    for kind, scorer, n, strength in cases():
        for score, values in rates(ENDPOINTS[kind], scorer, n, strength, COHORTS).items():
            numbers = " | ".join(f"{value:.3f}" for value in values)
            print(f"| {kind} | {score} | {scorer} | {n} | {numbers} |", flush=True)
