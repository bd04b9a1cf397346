"""Intervals against scikit-learn, and cohorts whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.evaluation import bootstrap, metrics


def slides_of(labels, p, patients=None):
    columns = {"patient_id": patients if patients is not None else [f"p{n}" for n in range(len(labels))]}
    frame = pd.DataFrame(columns | {"label": np.array(["a", "b"])[labels], "p_a": 1 - p, "p_b": p})
    return frame.set_index(pd.Index([f"s{n}" for n in range(len(labels))], name="slide_id"))


@given(st.integers(0, 999), st.integers(4, 40))
def test_the_weighted_auc_is_that_of_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, n) / 5, np.append([True, False], rng.random(n - 2) < 0.5)
    weights = rng.integers(0, 4, (5, n)).astype(float)
    found = bootstrap.weighted_auc(scores, positive, weights)
    for auc, weight in zip(found, weights, strict=True):
        if weight[positive].sum() and weight[~positive].sum():
            assert auc == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores, sample_weight=weight))
        else:
            assert math.isnan(auc)


@given(st.integers(0, 999), st.integers(3, 30), st.integers(2, 4))
def test_every_weighted_score_is_that_of_scikit_learn(seed, n, C):
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(0, C, n), rng.integers(0, 5, (n, C)) / 4
    weights = rng.integers(0, 3, (4, n)).astype(float)
    weights[:, 0] = 1
    hits = bootstrap.weighted_hits(p.argmax(1), labels, C, weights)
    precision = bootstrap.weighted_average_precision(p[:, 1], labels == 1, weights)
    for i, weight in enumerate(weights):
        times = weight.astype(int)  # a resample is the cohort with its slides that often
        again, guessed = labels.repeat(times), p.argmax(1).repeat(times)
        assert hits["accuracy"][i] == pytest.approx(sklearn.metrics.accuracy_score(again, guessed))
        recalls = sklearn.metrics.recall_score(again, guessed, average=None, labels=np.unique(again), zero_division=0)
        assert hits["balanced_accuracy"][i] == pytest.approx(recalls.mean())
        assert hits["f1"][i] == pytest.approx(
            sklearn.metrics.f1_score(again, guessed, average="macro", zero_division=0)
        )
        if (again == 1).any():
            expected = sklearn.metrics.average_precision_score(again == 1, p[:, 1].repeat(times))
            assert precision[i] == pytest.approx(expected)
        else:
            assert math.isnan(precision[i])


@given(st.integers(0, 99), st.integers(2, 3))
def test_pooled_scores_are_those_of_all_slides_and_lie_within(seed, C):
    rng = np.random.default_rng(seed)
    labels, classes = np.append(np.arange(C), rng.integers(0, C, 12)), [*"abc"[:C]]
    p = rng.dirichlet(np.ones(C), len(labels))
    frame = pd.DataFrame({f"p_{name}": p[:, c] for c, name in enumerate(classes)})
    frame = frame.assign(label=np.array(classes)[labels], patient_id=np.arange(len(labels)))
    found = bootstrap.patient_bootstrap(frame, classes, rng)
    for score, value in metrics.scores(p, labels).items():
        assert found[f"{score}_pooled"] == pytest.approx(value)
        assert found[f"{score}_low"] <= found[f"{score}_high"]


def test_a_slide_that_several_folds_test_counts_once():
    rows = [(0, "s", "p", "a", 0.2), (1, "s", "p", "a", 0.6), (0, "t", "q", "b", 0.9)]
    frame = pd.DataFrame(rows, columns=["fold", "slide_id", "patient_id", "label", "p_b"]).assign(p_a=0.0)
    found = bootstrap.pooled(frame, ["a", "b"])
    assert found["p_b"].to_dict() == {"s": pytest.approx(0.4), "t": 0.9}


def test_the_interval_holds_the_true_auc_as_often_as_it_says():
    """Scores of unit normals 1 apart have an AUC of .760: it lies within in about 95 % of 200 cohorts."""
    rng, inside, widths = np.random.default_rng(0), 0, []
    for _ in range(200):
        labels = rng.permutation(np.arange(80) % 2)
        scores = rng.normal(size=80) + labels
        found = bootstrap.patient_bootstrap(slides_of(labels, scores), ["a", "b"], rng)
        inside += found["auc_low"] <= 0.7602 <= found["auc_high"]
        widths.append(found["auc_high"] - found["auc_low"])
    assert 180 <= inside <= 199
    assert 0.15 < np.mean(widths) < 0.27


def test_patients_are_resampled_whole():
    """Ten slides alike of each patient are worth one: the interval is as wide as that of one slide each."""
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    scores = rng.normal(size=40) + labels
    one = bootstrap.patient_bootstrap(slides_of(labels, scores), ["a", "b"], np.random.default_rng(2))
    patients = [f"p{n}" for n in range(40)] * 10
    ten = slides_of(np.tile(labels, 10), np.tile(scores, 10), patients)
    assert bootstrap.patient_bootstrap(ten, ["a", "b"], np.random.default_rng(2)) == pytest.approx(one)


def test_one_label_has_no_interval():
    found = bootstrap.patient_bootstrap(slides_of(np.zeros(4, int), np.ones(4)), ["a", "b"], np.random.default_rng(0))
    assert {name for name, value in found.items() if math.isnan(value)} == {
        f"{score}_{what}" for score in ("auc", "average_precision") for what in ("pooled", "low", "high")
    }


def test_no_slide_has_no_scores():
    nothing = slides_of(np.zeros(0, int), np.ones(0))
    found = bootstrap.patient_bootstrap(nothing, ["a", "b"], np.random.default_rng(0))
    assert all(math.isnan(value) for value in found.values())
