"""Nearest neighbors equal scikit-learn's, and their risk the area below their own curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsRegressor

from slpd_core.endpoints import concordance, neighbors, survival
from tests.fixtures.endpoints import draw_survival, plant_hazards

SEEDS = st.integers(0, 9999)


@given(SEEDS, st.integers(1, 12), st.integers(1, 7))
def test_neighbors_are_the_nearest_and_at_most_all(seed, n, k):
    rng = np.random.default_rng(seed)
    means, queries = rng.normal(size=(n, 3)), rng.normal(size=(4, 3))
    distances = np.linalg.norm(queries[:, None] - means, axis=2)
    nearest = neighbors.nearest_cases(means, queries, k)
    np.testing.assert_array_equal(nearest, np.argsort(distances, axis=1)[:, : min(k, n)])


@given(SEEDS)
def test_knn_regression_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    means, targets, queries = rng.normal(size=(30, 3)), rng.normal(size=30), rng.normal(size=(6, 3))
    expected = KNeighborsRegressor(5).fit(means, targets).predict(queries)
    np.testing.assert_allclose(neighbors.predict_knn_regression(means, targets, queries), expected)


@given(SEEDS)
def test_without_censoring_the_risk_is_minus_the_mean_time_of_the_neighbors(seed):
    rng = np.random.default_rng(seed)
    means, queries = rng.normal(size=(20, 3)), rng.normal(size=(5, 3))
    time = rng.exponential(size=20)
    expected = -neighbors.predict_knn_regression(means, time, queries, n_neighbors=4)
    risk = neighbors.predict_knn_risk(means, time, np.ones(20), queries, n_neighbors=4)
    np.testing.assert_allclose(risk, expected)


@given(SEEDS)
def test_the_risk_of_all_neighbors_is_that_of_the_cohort(seed):
    rng = np.random.default_rng(seed)
    means, queries = rng.normal(size=(20, 3)), rng.normal(size=(5, 3))
    time, event, _ = draw_survival(seed, 20)
    mean = survival.kaplan_meier(time, event).restricted_mean(time[event].max())
    risk = neighbors.predict_knn_risk(means, time, event, queries, n_neighbors=50)
    np.testing.assert_allclose(risk, -mean)


def test_neighbors_that_live_longer_have_less_risk_though_all_are_censored():
    means = np.array([[0.0], [0.1], [9.0], [9.1]])
    time, event = np.array([1.0, 2.0, 8.0, 9.0]), np.array([1, 1, 0, 0])
    risk = neighbors.predict_knn_risk(means, time, event, np.array([[0.0], [9.0]]), n_neighbors=2)
    np.testing.assert_allclose(risk, [-1.5, -2.0])


def test_without_an_event_all_risks_are_equal():
    risk = neighbors.predict_knn_risk(np.eye(3), np.arange(3.0), np.zeros(3), np.eye(3), n_neighbors=1)
    assert np.ptp(risk) == 0


def test_planted_hazards_are_found_by_neighbors_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1200, 2))
    time, event = plant_hazards(1, 1.5 * features[:, 0])
    test = slice(600, None)
    for order, c in ((np.arange(600), 0.75), (rng.permutation(600), 0.5)):
        risk = neighbors.predict_knn_risk(features[:600], time[order], event[order], features[test], n_neighbors=15)
        assert concordance.concordance_index(time[test], event[test], risk) == pytest.approx(c, abs=0.06)
