"""The C-index and the time-dependent AUC equal scikit-survival's and pair-by-pair definitions."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.endpoints import concordance
from tests.fixtures.endpoints import draw_survival, plant_hazards

SEEDS, SIZES = st.integers(0, 9999), st.integers(2, 40)


def has_pairs(time, event):
    """Whether any two cases are comparable: only the last may not be an event of its own."""
    return any((time > t).any() or (~event & (time == t)).any() for t in time[event])


@given(SEEDS, SIZES, st.booleans())
def test_the_c_index_is_that_of_scikit_survival(sksurv, seed, n, ties):
    time, event, risk = draw_survival(seed, n, ties=ties)
    c = concordance.concordance_index(time, event, risk)
    if has_pairs(time, event):
        assert c == pytest.approx(sksurv.metrics.concordance_index_censored(event, time, risk)[0])
    else:
        assert math.isnan(c)


@given(SEEDS, SIZES)
def test_reversed_risks_have_the_complement(seed, n):
    time, event, risk = draw_survival(seed, n)
    forward, backward = (concordance.concordance_index(time, event, sign * risk) for sign in (1, -1))
    assert forward + backward == pytest.approx(1) if has_pairs(time, event) else math.isnan(forward + backward)


@given(SEEDS, SIZES)
def test_only_the_order_of_risks_counts(seed, n):
    time, event, risk = draw_survival(seed, n)
    warped = concordance.concordance_index(time, event, np.exp(3 * risk) - 7)
    assert warped == pytest.approx(concordance.concordance_index(time, event, risk), nan_ok=True)


@given(SEEDS, SIZES)
def test_the_c_index_of_one_event_time_is_the_auc(seed, n):
    """Everybody else is censored later: the C-index tells two classes apart."""
    rng = np.random.default_rng(seed)
    event, risk = np.append([True, False], rng.random(n) < 0.5), rng.integers(0, 4, n + 2)
    time = np.where(event, 1.0, 2.0)
    assert concordance.concordance_index(time, event, risk) == pytest.approx(sklearn.metrics.roc_auc_score(event, risk))


def test_the_c_index_of_planted_hazards_is_known():
    """Of exponential times with log hazards a and b, the first dies first with probability sigmoid(a - b)."""
    risk = np.repeat([0.0, 1.2], 2000)
    time, event = plant_hazards(0, risk, censoring=1e9)
    assert event.all()
    sigmoid = 1 / (1 + math.exp(-1.2))
    assert concordance.concordance_index(time, event, risk) == pytest.approx(sigmoid / 2 + 0.25, abs=0.01)


def test_censoring_leaves_the_c_index_of_the_right_order_at_1():
    risk = np.arange(30.0)
    assert concordance.concordance_index(30 - risk, np.arange(30) % 3 > 0, risk) == 1


def test_shuffled_risks_are_at_chance():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=1500)
    time, event = plant_hazards(1, risk)
    assert concordance.concordance_index(time, event, risk) > 0.7
    assert concordance.concordance_index(time, event, rng.permutation(risk)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("time", "event"), [([], []), ([1.0], [1]), ([1.0, 2.0], [0, 0]), ([1.0, 1.0], [1, 1])], ids=str
)
def test_the_c_index_is_undefined_without_a_comparable_pair(time, event):
    assert math.isnan(concordance.concordance_index(np.array(time), np.array(event), np.zeros(len(time))))


@pytest.mark.parametrize("times", [np.arange(5.0), np.full(5, 2.0)], ids=["distinct times", "tied times"])
def test_equal_risks_are_at_one_half(times):
    event = np.array([1, 0, 1, 0, 0])
    assert concordance.concordance_index(times, event, np.full(5, 3.0)) == 0.5


def test_one_event_is_compared_with_all_that_outlive_it():
    time, event = np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 1, 0, 0])
    assert concordance.concordance_index(time, event, np.array([9.0, 2.0, 2.0, 1.0])) == 0.75


@given(SEEDS, st.integers(6, 40))
def test_the_dynamic_auc_is_that_of_scikit_survival(sksurv, seed, n):
    time, event, risk = draw_survival(seed, n, ties=False)
    risk = np.round(risk)  # of the risks some are equal, of the times none: see the next test
    at = np.quantile(time, [0.3, 0.5, 0.8])
    if at[0] >= time[event].min():  # where nobody has had an event it divides by 0
        aucs = concordance.cumulative_dynamic_auc(time, event, risk, at)
        y = sksurv.util.Surv.from_arrays(event, time)
        expected, mean = sksurv.metrics.cumulative_dynamic_auc(y, y, risk, at)
        np.testing.assert_allclose(aucs, expected)
        assert concordance.mean_dynamic_auc(time, event, aucs, at) == pytest.approx(mean)


@given(SEEDS, st.integers(2, 25))
def test_the_dynamic_auc_is_its_definition(seed, n):
    """Pair by pair, with ties of all kinds and censoring that is estimated on other cases."""
    time, event, risk = draw_survival(seed, n)
    others = draw_survival(seed + 1, n)[:2]
    at = np.unique(time)
    weight = 1 / np.maximum(concordance.censoring_survival(*others, time), 1e-12)
    for t, auc in zip(at, concordance.cumulative_dynamic_auc(time, event, risk, at, censoring=others), strict=True):
        won = total = 0.0
        for i in np.flatnonzero(event & (time <= t)):
            for j in np.flatnonzero(time > t):
                total += weight[i]
                won += weight[i] * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
        if total and weight[event & (time <= t)].max() < 1e11:
            assert auc == pytest.approx(won / total)
        else:
            assert math.isnan(auc)


def test_censoring_by_chance_hardly_moves_the_dynamic_auc():
    risk = np.random.default_rng(0).normal(size=3000)
    whole = concordance.cumulative_dynamic_auc(*plant_hazards(1, risk, censoring=1e9), risk, np.array([0.5, 1.0]))
    censored = concordance.cumulative_dynamic_auc(*plant_hazards(1, risk, censoring=1.5), risk, np.array([0.5, 1.0]))
    np.testing.assert_allclose(censored, whole, atol=0.02)


def test_the_mean_skips_times_where_the_auc_is_undefined():
    time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4, bool)
    at = np.array([0.5, 1.0, 3.0, 9.0])
    aucs = concordance.cumulative_dynamic_auc(time, event, np.array([2.0, 4.0, 3.0, 1.0]), at)
    np.testing.assert_allclose(aucs, [math.nan, 1 / 3, 1.0, math.nan])
    assert concordance.mean_dynamic_auc(time, event, aucs, at) == pytest.approx((1 / 3 * 0.25 + 1.0 * 0.5) / 0.75)


def test_the_times_are_quartiles_of_the_events():
    time, event = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 99.0]), np.array([1, 1, 1, 1, 1, 0])
    assert concordance.auc_times(time, event).tolist() == [1, 2, 3]
    assert concordance.auc_times(np.full(6, 5.0), event).tolist() == [5]
    assert concordance.auc_times(time, np.zeros(6)).tolist() == []


@given(SEEDS, SIZES)
def test_the_scores_of_a_part_are_both(seed, n):
    time, event, risk = draw_survival(seed, n)
    at = concordance.auc_times(time, event)
    scores = concordance.score_survival(time, event, risk, at)
    aucs = concordance.cumulative_dynamic_auc(time, event, risk, at)
    expected = (concordance.concordance_index(time, event, risk), concordance.mean_dynamic_auc(time, event, aucs, at))
    assert tuple(scores) == concordance.SURVIVAL_SCORES
    np.testing.assert_equal([*scores.values()], expected)


def test_the_scores_of_no_case_are_undefined():
    scores = concordance.score_survival(*np.empty((3, 0)), np.array([1.0]))
    assert np.isnan([*scores.values()]).all()


@pytest.mark.parametrize("seed", range(5))
def test_case_discordance_is_that_of_the_pairs_of_each_case(seed):
    time, event, risk = draw_survival(seed, 12)
    fractions, weights = concordance.case_discordance(time, event, risk), np.zeros(12)
    for i in range(12):
        wrong = []
        for j in range(12):
            for first, other in ((i, j), (j, i)):  # of which the first has its event before the other
                if event[first] and (time[first] < time[other] or (time[first] == time[other] and not event[other])):
                    wrong.append(0.5 if risk[first] == risk[other] else float(risk[first] < risk[other]))
        weights[i] = len(wrong)
        assert fractions[i] == pytest.approx(np.mean(wrong) if wrong else np.nan, nan_ok=True)
    index = concordance.concordance_index(time, event, risk)
    assert np.average(np.nan_to_num(fractions), weights=weights) == pytest.approx(1 - index)
