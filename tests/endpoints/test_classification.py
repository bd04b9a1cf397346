"""Scores of classes equal numbers worked out by hand, pairs counted one by one, and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.endpoints.classification import score_classes, scored_classes


def two(p):
    return np.stack([1 - np.array(p), np.array(p)], axis=1)


def test_by_hand():
    scores = score_classes(np.array([0, 1, 0, 1, 1]), two([0.1, 0.4, 0.6, 0.9, 0.3]))
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
    auc = score_classes(labels, two(p))["auc"]
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
    scores = score_classes(labels, p)
    auc = roc_auc_score(labels, p[:, 1]) if C == 2 else roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert scores["auc"] == pytest.approx(auc)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, p.argmax(1)))
    assert scores["f1"] == pytest.approx(f1_score(labels, p.argmax(1), average="macro"))
    precision = average_precision_score(labels, p[:, 1] if C == 2 else p)
    assert scores["average_precision"] == pytest.approx(precision)


def test_three_classes_are_one_against_the_rest():
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]])
    scores = score_classes(np.array([0, 1, 2, 2]), p)
    assert scores["auc"] == pytest.approx(np.mean([1.0, 2 / 3, (1 + 1 + 1 + 0.5) / 4]))
    assert scores["accuracy"] == 0.75
    without = score_classes(np.array([0, 1]), p[:2])
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
    assert scored_classes(np.array(labels, np.int64), C) == counted


def test_one_class_in_the_test_part_has_no_auc():
    scores = score_classes(np.array([1, 1]), two([0.2, 0.7]))
    assert math.isnan(scores["auc"])
    assert scores["accuracy"] == 0.5
    assert scores["balanced_accuracy"] == 0.5
    assert math.isnan(score_classes(np.array([2, 2]), np.full((2, 3), 1 / 3))["auc"])


def test_no_slide_has_no_scores():
    assert all(math.isnan(score) for score in score_classes(np.empty(0, np.int64), np.empty((0, 2))).values())
