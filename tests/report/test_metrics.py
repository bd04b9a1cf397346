"""Metrics equal numbers worked out by hand, pairs counted one by one, and scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.report import metrics


def two(p):
    return np.stack([1 - np.array(p), np.array(p)], axis=1)


def test_by_hand():
    scores = metrics.score_predictions(two([0.1, 0.4, 0.6, 0.9, 0.3]), np.array([0, 1, 0, 1, 1]))
    assert scores["accuracy"] == pytest.approx(2 / 5)
    assert scores["auc"] == pytest.approx(4 / 6)  # of 2 x 3 pairs, .1 below all three and .6 below .9 only
    assert scores["balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    # F1 of a class: 2 x right / (predicted + true); one is right of each class.
    assert scores["f1"] == pytest.approx((2 * 1 / (3 + 2) + 2 * 1 / (2 + 3)) / 2)
    assert scores["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)  # .9, .4 after .6, .3


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_the_pairs_in_order_ties_half(cases):
    p, labels = np.array([p / 4 for p, _ in cases]), np.array([int(label) for _, label in cases])
    pairs = [(a > b) + 0.5 * (a == b) for a in p[labels == 1] for b in p[labels == 0]]
    auc = metrics.score_predictions(two(p), labels)["auc"]
    assert auc == pytest.approx(np.mean(pairs)) if pairs else math.isnan(auc)


@given(st.integers(2, 5), st.integers(20, 60), st.integers(0, 999))
def test_scores_are_those_of_scikit_learn(C, n, seed):
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        balanced_accuracy_score,
        f1_score,
        roc_auc_score,
    )

    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(C), rng.integers(C, size=n))
    p = rng.dirichlet(np.ones(C), len(labels)).round(2) + 1e-9  # rounded: with ties
    p /= p.sum(1, keepdims=True)
    scores = metrics.score_predictions(p, labels)
    auc = roc_auc_score(labels, p[:, 1]) if C == 2 else roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert scores["auc"] == pytest.approx(auc)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, p.argmax(1)))
    assert scores["f1"] == pytest.approx(f1_score(labels, p.argmax(1), average="macro"))
    precision = average_precision_score(labels, p[:, 1] if C == 2 else p)
    assert scores["average_precision"] == pytest.approx(precision)


def test_three_classes_are_one_against_the_rest():
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]])
    scores = metrics.score_predictions(p, np.array([0, 1, 2, 2]))
    assert scores["auc"] == pytest.approx(np.mean([1.0, 2 / 3, (1 + 1 + 1 + 0.5) / 4]))
    assert scores["accuracy"] == 0.75
    without = metrics.score_predictions(p[:2], np.array([0, 1]))
    assert without["auc"] == 1.0


@pytest.mark.parametrize(
    ("labels", "C", "counted"),
    [
        ([0, 1, 1], 2, [1]),
        ([1, 1], 2, []),
        ([0, 0], 2, []),
        ([0, 2, 2], 3, [0, 2]),
        ([0, 1, 2], 3, [0, 1, 2]),
        ([2], 3, []),
        ([], 3, []),
    ],
)
def test_classes_count_that_stand_beside_others(labels, C, counted):
    assert metrics.scored_classes(np.array(labels, np.int64), C) == counted


def test_one_class_in_the_test_part_has_no_auc():
    scores = metrics.score_predictions(two([0.2, 0.7]), np.array([1, 1]))
    assert math.isnan(scores["auc"])
    assert scores["accuracy"] == 0.5
    assert scores["balanced_accuracy"] == 0.5
    assert math.isnan(metrics.score_predictions(np.full((2, 3), 1 / 3), np.array([2, 2]))["auc"])


def test_no_slide_has_no_scores():
    assert all(
        math.isnan(score) for score in metrics.score_predictions(np.empty((0, 2)), np.empty(0, np.int64)).values()
    )


def predictions():
    frame = pd.DataFrame({"fold": [0, 0, 1, 1, 2], "label": ["b", "a", "b", "a", "a"]})
    return frame.assign(p_a=[0.1, 0.9, 0.6, 0.2, 0.8], p_b=[0.9, 0.1, 0.4, 0.8, 0.2])


def test_a_slide_that_several_folds_test_counts_once():
    rows = [(0, "s", "p", "a", 0.2), (1, "s", "p", "a", 0.6), (0, "t", "q", "b", 0.9)]
    frame = pd.DataFrame(rows, columns=["fold", "slide_id", "patient_id", "label", "p_b"]).assign(p_a=0.0)
    pooled = metrics.pool_predictions(frame, ["a", "b"])
    assert pooled["p_b"].to_dict() == {"s": pytest.approx(0.4), "t": 0.9}
    assert pooled["label"].to_dict() == {"s": "a", "t": "b"}


def test_a_patient_is_the_mean_of_its_slides_in_each_fold():
    rows = [(0, "p", "a", 0.2), (0, "p", "a", 0.6), (1, "p", "a", 0.8), (1, "q", "b", 0.9), (1, "q", "a", 0.7)]
    frame = pd.DataFrame(rows, columns=["fold", "patient_id", "label", "p_b"])
    frame["p_a"] = 1 - frame["p_b"]
    patients = metrics.average_by_patient(frame, ["a", "b"])
    assert patients[["fold", "patient_id", "label"]].to_numpy().tolist() == [
        [0, "p", "a"],
        [1, "p", "a"],
        [1, "q", "a"],
        [1, "q", "b"],
    ]
    assert patients["p_b"].tolist() == pytest.approx([0.4, 0.8, 0.7, 0.9])
    assert (patients["p_a"] + patients["p_b"]).tolist() == pytest.approx([1] * 4)


def test_folds_and_their_summary():
    per_fold = metrics.score_folds(predictions(), ["a", "b"])
    assert per_fold["accuracy"].tolist() == [1, 0, 1]
    assert per_fold["n"].tolist() == [2, 2, 1]
    assert per_fold["auc"].tolist()[:2] == [1, 0]
    assert math.isnan(per_fold["auc"][2])
    summary = metrics.summarize_folds(per_fold)
    assert summary["accuracy_mean"] == pytest.approx(2 / 3)
    assert summary["accuracy_sd"] == pytest.approx(math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 2))
    assert (summary["auc_mean"], summary["folds"]) == (0.5, 3)


def test_one_fold_has_no_deviation():
    summary = metrics.summarize_folds(metrics.score_folds(predictions().query("fold == 0"), ["a", "b"]))
    assert summary["accuracy_mean"] == 1
    assert math.isnan(summary["accuracy_sd"])


def test_folds_whose_auc_is_undefined_leave_the_rest():
    per_fold = pd.DataFrame({"auc": [1, math.nan, 0.5]} | {key: [1, 0.5, 0] for key in {*metrics.SCORES} - {"auc"}})
    summary = metrics.summarize_folds(per_fold)
    assert (summary["auc_mean"], summary["folds"]) == (0.75, 3)
    assert summary["auc_sd"] == pytest.approx(math.sqrt(2 * 0.25**2))
    undefined = metrics.summarize_folds(per_fold.assign(auc=math.nan))
    assert math.isnan(undefined["auc_mean"])
    assert math.isnan(undefined["auc_sd"])
    assert metrics.summarize_folds(metrics.score_folds(predictions().head(0), ["a", "b"]))["folds"] == 0
