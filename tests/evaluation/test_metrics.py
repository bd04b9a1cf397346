"""Metrics against numbers worked out by hand and against pairs counted one by one."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.evaluation import metrics


def two(p):
    return np.stack([1 - np.array(p), np.array(p)], axis=1)


def test_by_hand():
    found = metrics.scores(two([0.1, 0.4, 0.6, 0.9, 0.3]), np.array([0, 1, 0, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["auc"] == pytest.approx(4 / 6)  # of 2 x 3 pairs, .1 below all three and .6 below .9 only
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 3) / 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_the_pairs_in_order_ties_half(cases):
    p, labels = np.array([p / 4 for p, _ in cases]), np.array([int(label) for _, label in cases])
    pairs = [(a > b) + 0.5 * (a == b) for a in p[labels == 1] for b in p[labels == 0]]
    found = metrics.scores(two(p), labels)["auc"]
    assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


def test_three_classes_are_one_against_the_rest():
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]])
    found = metrics.scores(p, np.array([0, 1, 2, 2]))
    assert found["auc"] == pytest.approx(np.mean([1.0, 2 / 3, (1 + 1 + 1 + 0.5) / 4]))
    assert found["accuracy"] == 0.75
    without = metrics.scores(p[:2], np.array([0, 1]))
    assert without["auc"] == 1.0


def test_one_class_in_the_test_part_has_no_auc():
    found = metrics.scores(two([0.2, 0.7]), np.array([1, 1]))
    assert math.isnan(found["auc"])
    assert found["accuracy"] == 0.5


def predictions():
    frame = pd.DataFrame({"fold": [0, 0, 1, 1, 2], "label": ["b", "a", "b", "a", "a"]})
    return frame.assign(p_a=[0.1, 0.9, 0.6, 0.2, 0.8], p_b=[0.9, 0.1, 0.4, 0.8, 0.2])


def test_folds_and_their_summary():
    per_fold = metrics.fold_scores(predictions(), ["a", "b"])
    assert per_fold["accuracy"].tolist() == [1, 0, 1]
    assert per_fold["n"].tolist() == [2, 2, 1]
    assert per_fold["auc"].tolist()[:2] == [1, 0]
    assert math.isnan(per_fold["auc"][2])
    found = metrics.summary(per_fold)
    assert found["accuracy_mean"] == pytest.approx(2 / 3)
    assert found["accuracy_sd"] == pytest.approx(math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 2))
    assert (found["auc_mean"], found["folds"]) == (0.5, 3)


def test_one_fold_has_no_deviation():
    found = metrics.summary(metrics.fold_scores(predictions().query("fold == 0"), ["a", "b"]))
    assert found["accuracy_mean"] == 1
    assert math.isnan(found["accuracy_sd"])
