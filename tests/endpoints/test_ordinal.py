"""Kappa and errors of ranks equal scikit-learn's."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.endpoints import ordinal

SEEDS, SIZES = st.integers(0, 9999), st.integers(2, 40)


@given(SEEDS, SIZES, st.integers(2, 5))
def test_kappa_is_that_of_scikit_learn(seed, n, C):
    rng = np.random.default_rng(seed)
    ranks, predicted = np.append([0, 1], rng.integers(0, C, n)), np.append([1, 0], rng.integers(0, C, n))
    expected = sklearn.metrics.cohen_kappa_score(ranks, predicted, weights="quadratic", labels=range(C))
    assert ordinal.quadratic_weighted_kappa(ranks, predicted) == pytest.approx(expected)


def test_agreement_is_1_and_a_constant_guess_is_0():
    ranks = np.array([0, 1, 2, 2])
    assert ordinal.quadratic_weighted_kappa(ranks, ranks) == 1
    assert ordinal.quadratic_weighted_kappa(ranks, np.ones(4, int)) == pytest.approx(0)
    assert ordinal.quadratic_weighted_kappa(ranks, 2 - ranks) < 0
    assert math.isnan(ordinal.quadratic_weighted_kappa(np.ones(3, int), np.ones(3, int)))


def test_shuffled_ranks_are_at_chance():
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 4, 4000)
    assert ordinal.quadratic_weighted_kappa(ranks, rng.permutation(ranks)) == pytest.approx(0, abs=0.05)


@given(SEEDS, SIZES)
def test_the_scores_are_of_the_most_probable_class(seed, n):
    rng = np.random.default_rng(seed)
    ranks, probabilities = rng.integers(0, 4, n), rng.dirichlet(np.ones(4), n)
    scores = ordinal.score_ordinal(ranks, probabilities)
    predicted = probabilities.argmax(1)
    assert tuple(scores) == ordinal.ORDINAL_SCORES
    assert scores["mae"] == pytest.approx(np.abs(ranks - predicted).mean())
    assert scores["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(ranks, predicted))
    np.testing.assert_equal(scores["kappa"], ordinal.quadratic_weighted_kappa(ranks, predicted))


def test_the_scores_of_no_case_are_undefined():
    assert np.isnan([*ordinal.score_ordinal(np.empty(0, int), np.empty((0, 3))).values()]).all()
