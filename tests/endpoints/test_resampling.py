"""Intervals by patients equal scipy's bootstrap, hold the truth, and know what a patient is."""

import math

import numpy as np
import pytest
import scipy.stats

from slpd_core.endpoints import concordance, resampling
from tests.fixtures.endpoints import plant_hazards


def mean(values):
    return float(values.mean())


def test_one_row_per_patient_has_the_interval_of_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    patients = np.array([f"p{i}" for i in range(80)])
    interval = resampling.bootstrap_interval(mean, patients, values, rng=np.random.default_rng(1), n_resamples=4000)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(interval, expected, atol=0.02)


def test_rows_of_a_patient_are_drawn_together():
    """Copies of each patient's rows, in any order, add no knowledge."""
    values = np.random.default_rng(0).normal(size=40)
    patients = np.arange(40)
    shuffled = np.random.default_rng(3).permutation(np.repeat(patients, 5))
    plain = resampling.bootstrap_interval(mean, patients, values, rng=np.random.default_rng(1))
    copied = resampling.bootstrap_interval(mean, shuffled, values[shuffled], rng=np.random.default_rng(1))
    np.testing.assert_allclose(copied, plain)


def test_the_level_is_how_often_the_truth_is_held():
    held, width = [], []
    for seed in range(100):
        risk = np.random.default_rng(seed).normal(size=120)
        time, event = plant_hazards(seed, risk)
        arrays = (np.arange(120), time, event, risk)
        low, high = resampling.bootstrap_interval(
            concordance.concordance_index, *arrays, rng=np.random.default_rng(seed), n_resamples=100, level=0.8
        )
        held.append(low <= TRUE_C <= high)
        width.append(high - low)
    assert np.mean(held) == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 100))


# The C-index of exponential times whose log hazard is standard normal: the mean of sigmoid(|z|), z ~ N(0, 2), but for
# the pairs that censoring hides; taken from 4,000 cases under the same censoring.
BIG = np.random.default_rng(10**6).normal(size=4000)
TRUE_C = concordance.concordance_index(*plant_hazards(10**6, BIG), BIG)


def test_resamples_without_the_statistic_do_not_count():
    events = np.array([0, 0, 0, 0, 0, 0, 1, 1])

    def sometimes(values):
        return float(values.mean()) if values.any() else math.nan

    low, high = resampling.bootstrap_interval(sometimes, np.arange(8), events, rng=np.random.default_rng(0))
    assert 0 < low < high < 1
    never = resampling.bootstrap_interval(lambda _: math.nan, np.arange(8), events, rng=np.random.default_rng(0))
    assert np.isnan(never).all()
    rarely = events * [0, 0, 0, 0, 0, 0, 1, 0]  # defined in 66 % of the resamples
    assert not np.isnan(
        resampling.bootstrap_interval(sometimes, np.arange(8), rarely, rng=np.random.default_rng(0))
    ).any()

    def seldom(values):
        return math.nan if values.any() else 0.0  # defined in 34 %

    assert np.isnan(resampling.bootstrap_interval(seldom, np.arange(8), rarely, rng=np.random.default_rng(0))).all()


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a"]], ids=["no row", "one row", "one patient"])
def test_one_patient_has_no_interval(patients):
    values = np.ones(len(patients))
    interval = resampling.bootstrap_interval(mean, np.array(patients), values, rng=np.random.default_rng(0))
    assert np.isnan(interval).all()


def test_a_difference_of_two_risks_is_resampled_in_pairs():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=150)
    time, event = plant_hazards(1, risk)

    def difference(time, event, first, second):
        return concordance.concordance_index(time, event, first) - concordance.concordance_index(time, event, second)

    arrays = (np.arange(150), time, event, risk)
    same = resampling.bootstrap_interval(difference, *arrays, 2 * risk, rng=np.random.default_rng(2), n_resamples=50)
    assert same == (0, 0)
    low, _ = resampling.bootstrap_interval(difference, *arrays, rng.normal(size=150), rng=np.random.default_rng(2))
    assert low > 0


def test_the_jackknife_leaves_out_all_rows_of_a_patient():
    patients = np.array(["b", "a", "b", "c"])
    values = np.array([1.0, 2.0, 4.0, 9.0])
    np.testing.assert_allclose(resampling.without_each_patient(mean, patients, values), [14 / 3, 11 / 2, 7 / 3])
    assert resampling.without_each_patient(mean, np.empty(0), np.empty(0)).shape == (0,)
