"""Scores and ridge regression equal scikit-learn's, scipy's and the closed form."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.endpoints import regression

SEEDS, SIZES = st.integers(0, 9999), st.integers(3, 40)


def draw(seed, n):
    """Targets and predictions with ties, neither the same for all."""
    rng = np.random.default_rng(seed)
    return np.append([0, 1], rng.integers(0, 5, n)), np.append([1, 0], rng.integers(0, 5, n)) / 2


@given(SEEDS, SIZES)
def test_the_scores_are_those_of_scikit_learn_and_scipy(seed, n):
    targets, predictions = draw(seed, n)
    scores = regression.score_regression(targets, predictions)
    assert tuple(scores) == regression.REGRESSION_SCORES
    assert scores["r2"] == pytest.approx(sklearn.metrics.r2_score(targets, predictions))
    assert scores["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(targets, predictions))
    assert scores["spearman"] == pytest.approx(scipy.stats.spearmanr(targets, predictions).statistic)


@pytest.mark.parametrize(
    ("targets", "predictions", "undefined"),
    [
        ([], [], {"r2", "mae", "spearman"}),
        ([1.0], [2.0], {"r2", "spearman"}),
        ([1.0, 1.0], [2.0, 3.0], {"r2", "spearman"}),
        ([1.0, 2.0], [3.0, 3.0], {"spearman"}),
    ],
    ids=["no case", "one case", "equal targets", "equal predictions"],
)
def test_scores_are_undefined_where_nothing_varies(targets, predictions, undefined):
    scores = regression.score_regression(np.array(targets), np.array(predictions))
    assert {name for name, score in scores.items() if math.isnan(score)} == undefined


def test_the_mean_target_has_an_r_squared_of_0_and_a_worse_one_less():
    targets = np.array([1.0, 2.0, 6.0])
    assert regression.r_squared(targets, np.full(3, 3.0)) == 0
    assert regression.r_squared(targets, -targets) < 0
    assert regression.r_squared(targets, targets) == 1


def test_the_scale_of_targets_is_their_mean_and_deviation():
    assert regression.target_scale(np.array([1.0, 3.0])) == (2, 1)
    assert regression.target_scale(np.array([10.0, 30.0])) == (20, 10)
    assert regression.target_scale(np.array([4.0, 4.0])) == (4, 1)


@given(SEEDS, st.integers(5, 30), st.sampled_from([0.1, 10.0]))
def test_ridge_regression_is_its_closed_form(seed, n, l2):
    rng = np.random.default_rng(seed)
    features, targets = rng.normal(size=(n, 8)) * 5 + 3, rng.normal(size=n) * 100 + 7
    x = (features - features.mean(0)) / features.std(0)
    coef = np.linalg.solve(x.T @ x + l2 * np.eye(8), x.T @ (targets - targets.mean()))
    model = regression.fit_ridge(features, targets, l2=l2)
    np.testing.assert_allclose(regression.predict_ridge(model, features), x @ coef + targets.mean(), rtol=1e-6)


def test_planted_targets_are_predicted_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 10))
    targets = features[:, 0] + rng.normal(size=2000)  # R² is 1/2
    train, test = slice(1000), slice(1000, None)
    model = regression.fit_ridge(features[train], targets[train], l2=1.0)
    assert regression.r_squared(targets[test], regression.predict_ridge(model, features[test])) == pytest.approx(
        0.5, abs=0.06
    )
    model = regression.fit_ridge(features[train], rng.permutation(targets[train]), l2=1.0)
    assert abs(regression.r_squared(targets[test], regression.predict_ridge(model, features[test]))) < 0.06


def test_a_feature_that_is_the_same_for_all_tells_nothing():
    model = regression.fit_ridge(np.array([[1.0, 5.0], [2.0, 5.0]]), np.array([0.0, 1.0]))
    assert model["coef"][1] == 0
