"""Kaplan–Meier curves and the log-rank test equal scikit-survival's, scipy's and hand-made ones."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.endpoints import survival
from tests.fixtures.endpoints import draw_survival, plant_hazards

SEEDS, SIZES = st.integers(0, 9999), st.integers(2, 40)
# Freireich et al. (Blood 1963): weeks of remission under 6-MP and placebo, as in every textbook
DRUG = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
DRUG_EVENT = [1] * 9 + [0] * 12
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


@given(SEEDS, SIZES, st.booleans(), st.sampled_from([0.8, 0.95]))
def test_the_curve_is_that_of_scikit_survival(sksurv, seed, n, ties, level):
    time, event, _ = draw_survival(seed, n, ties=ties)
    curve = survival.kaplan_meier(time, event, level=level)
    times, probabilities, (low, high) = sksurv.nonparametric.kaplan_meier_estimator(
        event, time, conf_level=level, conf_type="log-log"
    )
    np.testing.assert_array_equal(curve.time, times)
    np.testing.assert_allclose(curve.survival, probabilities, atol=1e-12)
    alive = probabilities > 0
    np.testing.assert_allclose(curve.low[alive], low[alive], atol=1e-12)
    np.testing.assert_allclose(curve.high[alive], high[alive], atol=1e-12)
    assert np.isnan(curve.low[~alive]).all()
    assert np.isnan(curve.high[~alive]).all()


@given(SEEDS, SIZES)
def test_the_counts_are_those_at_each_time(seed, n):
    time, event, _ = draw_survival(seed, n)
    curve = survival.kaplan_meier(time, event)
    for t, at_risk, events in zip(curve.time, curve.at_risk, curve.events, strict=True):
        assert (at_risk, events) == ((time >= t).sum(), (event & (time == t)).sum())


@given(SEEDS, SIZES)
def test_without_censoring_the_curve_is_the_fraction_that_lives_longer(seed, n):
    time, _, _ = draw_survival(seed, n)
    curve = survival.kaplan_meier(time, np.ones(n, bool))
    at = np.arange(-1, n) / 2
    np.testing.assert_allclose(curve.at(at), [(time > t).mean() for t in at], atol=1e-12)
    assert curve.median() == np.sort(time)[math.ceil(n / 2) - 1]
    horizon = 0.3 * n
    assert curve.restricted_mean(horizon) == pytest.approx(np.minimum(time, horizon).mean())


@given(SEEDS, SIZES)
def test_the_restricted_mean_is_the_area_below_the_curve(seed, n):
    time, event, _ = draw_survival(seed, n)
    curve, horizon = survival.kaplan_meier(time, event), 0.7 * n
    grid = (np.arange(20_000) + 0.5) * horizon / 20_000
    assert curve.restricted_mean(horizon) == pytest.approx(curve.at(grid).mean() * horizon, abs=1e-3 * n)


def test_the_curve_of_the_remissions_is_the_published_one():
    curve = survival.kaplan_meier(np.array(DRUG), np.array(DRUG_EVENT))
    published = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    np.testing.assert_allclose(curve.at([6, 7, 10, 13, 16, 22, 23]), published, atol=5e-4)
    assert curve.median() == 23
    assert survival.kaplan_meier(np.array(PLACEBO), np.ones(21)).median() == 8


def test_without_an_event_nobody_dies():
    curve = survival.kaplan_meier(np.array([1.0, 2.0, 2.0]), np.zeros(3, bool))
    assert (curve.survival == 1).all()
    assert (curve.low == 1).all()
    assert (curve.high == 1).all()
    assert math.isnan(curve.median())
    assert curve.restricted_mean(9) == 9


def test_all_deaths_at_one_time_are_one_step():
    curve = survival.kaplan_meier(np.full(4, 3.0), np.ones(4, bool))
    np.testing.assert_array_equal(curve.at([2.9, 3, 4]), [1, 0, 0])
    assert curve.median() == curve.restricted_mean(10) == 3


@pytest.mark.parametrize(("event", "after"), [(True, 0.0), (False, 1.0)])
def test_one_case_is_a_curve(event, after):
    assert survival.kaplan_meier(np.array([2.0]), np.array([event])).at([1, 2]).tolist() == [1, after]


def test_no_case_has_no_curve():
    curve = survival.kaplan_meier(np.empty(0), np.empty(0, bool))
    assert len(curve.time) == 0
    assert np.isnan([*curve.at([1.0]), curve.median(), curve.restricted_mean(1)]).all()


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = []
    for seed in range(400):
        curve = survival.kaplan_meier(*plant_hazards(seed, np.zeros(60)), level=0.9)
        i = np.searchsorted(curve.time, 0.7, side="right") - 1
        held.append(curve.low[i] <= math.exp(-0.7) <= curve.high[i])
    assert np.mean(held) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 400))


@given(SEEDS, SIZES)
def test_censoring_is_estimated_just_before_each_time(seed, n):
    time, event, _ = draw_survival(seed, n)
    at = np.arange(-1, n) / 2
    for t, g in zip(at, survival.censoring_survival(time, event, at), strict=True):
        product = 1.0
        for s in np.unique(time[time < t]):
            censored = (~event & (time == s)).sum()
            if censored:  # those with an event at the same time have left before
                product *= 1 - censored / ((time > s).sum() + censored)
        assert g == pytest.approx(product)


def test_a_risk_is_split_at_the_median_of_its_reference():
    risk = np.array([3.0, 1.0, 2.0, 4.0])
    assert survival.split_at_median(risk).tolist() == [True, False, False, True]
    assert survival.split_at_median(risk, np.array([2.0, 3.0, 9.0])).tolist() == [False, False, False, True]
    assert not survival.split_at_median(np.ones(5)).any()
    assert survival.split_at_median(np.empty(0)).shape == (0,)


@given(SEEDS, SIZES, st.booleans())
def test_the_log_rank_test_is_that_of_scikit_survival(sksurv, seed, n, ties):
    time, event, risk = draw_survival(seed, n, ties=ties)
    group = risk > np.median(risk)
    statistic, p = survival.logrank_test(time, event, group)
    if math.isnan(statistic):
        shared = [t for t in time[event] if len(set(group[time >= t])) == 2]
        assert not shared or all((event & (time == t)).sum() == (time >= t).sum() for t in shared)
    else:
        expected = sksurv.compare.compare_survival(sksurv.util.Surv.from_arrays(event, time), group)
        np.testing.assert_allclose((statistic, p), expected, atol=1e-9)


def test_the_log_rank_test_of_the_remissions_is_the_published_one():
    time, group = np.array(DRUG + PLACEBO), np.repeat([True, False], 21)
    statistic, p = survival.logrank_test(time, np.array(DRUG_EVENT + [1] * 21), group)
    assert statistic == pytest.approx(16.79, abs=5e-3)
    assert p == pytest.approx(scipy.stats.chi2.sf(statistic, 1), rel=1e-6)


@pytest.mark.parametrize(
    ("time", "event", "group"),
    [
        ([], [], []),
        ([1.0], [1], [True]),
        ([1.0, 2.0], [1, 1], [True, True]),
        ([1.0, 2.0], [0, 0], [True, False]),
        ([1.0, 1.0], [1, 1], [True, False]),
    ],
    ids=["no case", "one case", "one group", "no event", "all die at once"],
)
def test_the_log_rank_test_is_undefined_without_a_comparison(time, event, group):
    assert np.isnan(survival.logrank_test(np.array(time), np.array(event), np.array(group, bool))).all()


def test_the_log_rank_test_errs_as_often_as_it_says():
    ps = [survival.logrank_test(*plant_hazards(seed, np.zeros(50)), np.arange(50) % 2 == 0)[1] for seed in range(300)]
    assert np.mean(np.array(ps) < 0.1) == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 300))


@pytest.mark.parametrize(
    ("time", "event", "words"),
    [
        ([1.0, 2.0], [1], "times (2,) and events (1,)"),
        ([[1.0]], [[1]], "one of each per case"),
        ([1.0, -2.0], [1, 0], "time -2;"),
        ([1.0, math.nan], [1, 0], "time nan;"),
        ([1.0, math.inf], [1, 0], "time inf;"),
        ([1.0, 2.0], [1, 2], "event 2; code an event as 1"),
    ],
)
def test_survival_that_is_none_is_refused(time, event, words):
    with pytest.raises(ValueError, match="survival: ") as error:
        survival.kaplan_meier(np.array(time), np.array(event))
    assert words in str(error.value)
