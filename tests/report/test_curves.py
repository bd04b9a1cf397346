"""Curves equal their definitions, scores of other libraries, and values computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from slpd_core.endpoints.classification import score_classes
from slpd_core.endpoints.concordance import cumulative_dynamic_auc
from slpd_core.report import curves
from tests.fixtures.endpoints import draw_survival


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_drawn_curve_is_the_auc(ties):
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.4
    score = truth + rng.normal(size=400)
    score = score.round() if ties else score
    area = np.trapezoid(curves.roc_curve(truth, score), curves.FALSE_POSITIVE_RATES)
    assert area == pytest.approx(roc_auc_score(truth, score), abs=0.01)


def test_a_perfect_curve_starts_in_the_corner():
    curve = curves.roc_curve(np.array([False, True, True]), np.array([0.1, 0.8, 0.9]))
    assert curve[0] == 0
    assert (curve[1:] == 1).all()


def test_curves_of_three_classes_are_their_mean():
    probabilities, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    each = [curves.roc_curve(labels == c, probabilities[:, c]) for c in range(3)]
    np.testing.assert_allclose(curves.fold_roc_curves([(probabilities, labels)])[0], np.mean(each, axis=0))


def test_calibration_by_hand():
    """Ten slides predicted at .6, of which six are right, and ten at .9, of which all are."""
    p = np.array([[0.4, 0.6]] * 10 + [[0.9, 0.1]] * 10)
    sure, right, error = curves.calibration_curve(p, np.array([1] * 6 + [0] * 4 + [0] * 10))
    assert sorted({round(value, 6) for value in sure}) == [0.6, 0.9]
    assert right[:2].mean() == pytest.approx(0.6)
    assert right[2:].tolist() == [1, 1]
    assert error[2:].tolist() == [0, 0]
    assert error[0] == pytest.approx(np.sqrt(right[0] * (1 - right[0]) / 5))


def test_a_calibrated_model_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 30_000)
    labels = (p.cumsum(1) < rng.random((len(p), 1))).sum(1)
    sure, right, error = curves.calibration_curve(p, labels)
    assert len(sure) == 10
    assert (abs(sure - right) < 4 * error).all()


@pytest.mark.parametrize("C", [2, 3, 4])
@pytest.mark.parametrize("present", [1, 2, 3])
def test_the_drawn_curve_has_the_auc_of_the_table(C, present):
    rng = np.random.default_rng([C, present])
    labels = rng.integers(min(C, present), size=300)
    probabilities = rng.dirichlet(np.ones(C), 300) + 0.3 * np.eye(C)[labels]
    area = np.trapezoid(curves.fold_roc_curves([(probabilities, labels)])[0], curves.FALSE_POSITIVE_RATES)
    assert area == pytest.approx(score_classes(labels, probabilities)["auc"], abs=0.01, nan_ok=True)


def test_the_band_is_the_deviation_of_a_sample():
    """Of 0.4, 0.5 and 0.9 the mean is 0.6, the sum of squares 0.14, the deviation √(0.14 / 2); 0, 0, 1 fall below 0."""
    low, high = curves.deviation_band(np.array([[0.4, 0.0], [0.5, 0.0], [0.9, 1.0]]))
    np.testing.assert_allclose(low, [0.6 - 0.07**0.5, 0])
    np.testing.assert_allclose(high, [0.6 + 0.07**0.5, 1 / 3 + (1 / 3) ** 0.5])
    assert curves.deviation_band(np.array([[0.8], [0.9], [1.0], [1.0]]))[1] == [1]


def test_the_band_is_over_the_folds_that_are_defined_at_a_point():
    band = curves.deviation_band(np.array([[0.4, 0.4, 0.4], [0.5, 0.5, np.nan], [0.9, np.nan, np.nan]]))
    for point, folds in ((0, [[0.4], [0.5], [0.9]]), (1, [[0.4], [0.5]])):
        assert [end[point] for end in band] == [end[0] for end in curves.deviation_band(np.array(folds))]
    assert np.isnan([end[2] for end in band]).all()


# Ten cases, five of them positive, by falling probability
PROBABILITY = np.array([0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05])
TRUTH = np.array([1, 1, 0, 1, 0, 1, 0, 0, 1, 0], bool)


@pytest.mark.parametrize(
    ("threshold", "true", "false"), [(0.05, 5, 5), (0.1, 5, 4), (0.2, 4, 4), (0.5, 3, 2), (0.8, 2, 0), (0.99, 0, 0)]
)
def test_net_benefit_by_hand(threshold, true, false):
    """At 0.2 a false positive costs a quarter of a true one, at 0.5 as much, at 0.8 four times as much."""
    odds = {0.05: 1 / 19, 0.1: 1 / 9, 0.2: 1 / 4, 0.5: 1, 0.8: 4, 0.99: 99}[threshold]
    benefit = curves.net_benefit(PROBABILITY, TRUTH, np.array([threshold]))
    np.testing.assert_allclose(benefit, [true / 10 - false / 10 * odds], atol=1e-12)


@given(st.integers(0, 9999), st.integers(1, 50))
def test_net_benefit_of_treating_all_none_and_the_right_ones(seed, n):
    rng = np.random.default_rng(seed)
    truth, thresholds = rng.random(n) < 0.4, curves.THRESHOLDS
    prevalence = truth.mean()
    everyone = curves.net_benefit(np.ones(n), truth, thresholds)
    np.testing.assert_allclose(everyone, prevalence - (1 - prevalence) * thresholds / (1 - thresholds), atol=1e-12)
    assert not curves.net_benefit(np.zeros(n), truth, thresholds).any()
    np.testing.assert_allclose(curves.net_benefit(truth.astype(float), truth, thresholds), prevalence)
    any_model = curves.net_benefit(rng.random(n), truth, thresholds)
    assert (any_model <= prevalence + 1e-12).all()


def test_a_calibrated_model_has_the_greatest_net_benefit():
    """Vickers and Elkin: no other decision by the same information gains more than the true probabilities."""
    rng = np.random.default_rng(0)
    p = rng.random(40_000)
    truth = rng.random(len(p)) < p
    calibrated = curves.net_benefit(p, truth, curves.THRESHOLDS[:90])
    for other in (p**2, np.sqrt(p), np.ones(len(p)), np.zeros(len(p))):
        assert (calibrated > curves.net_benefit(other, truth, curves.THRESHOLDS[:90]) - 0.005).all()


def test_net_benefit_of_no_case_is_undefined():
    assert np.isnan(curves.net_benefit(np.empty(0), np.empty(0, bool), curves.THRESHOLDS)).all()


def test_calibration_of_a_regression_by_hand():
    """Ten cases predicted at 1, ten at 5; their targets are 0 and 2, and 5 to 14."""
    predictions = np.repeat([1.0, 5.0], 10)
    targets = np.concatenate([[0, 2] * 5, np.arange(5, 15)]).astype(float)
    predicted, mean, error = curves.calibrate_regression(targets, predictions)
    np.testing.assert_allclose(predicted, [1, 5])
    np.testing.assert_allclose(mean, [1, 9.5])
    np.testing.assert_allclose(error, [np.sqrt(10 / 9) / 10**0.5, np.sqrt(82.5 / 9) / 10**0.5])


@pytest.mark.parametrize(("n", "bins"), [(0, 0), (1, 1), (9, 1), (12, 2), (500, 10)])
def test_a_calibrated_regression_lies_on_the_line_whatever_the_number_of_cases(n, bins):
    rng = np.random.default_rng(n)
    predictions = rng.normal(size=n)
    predicted, mean, error = curves.calibrate_regression(predictions + rng.normal(size=n), predictions)
    assert len(predicted) == len(mean) == len(error) == bins
    assert (np.diff(predicted) > 0).all()
    assert np.isnan(error).all() if n == 1 else (abs(mean - predicted) < 4 * error).all()


@given(st.integers(0, 9999))
def test_aucs_of_folds_are_those_of_each_and_weights_may_be_of_another_cohort(seed):
    folds = [draw_survival(seed + fold, 20) for fold in range(3)]
    time, event = (np.concatenate([fold[i] for fold in folds]) for i in range(2))
    times = curves.event_time_grid(time, event, n_times=5)
    aucs = curves.fold_dynamic_aucs(folds, times, censoring=(time, event))
    assert aucs.shape == (3, len(times))
    for fold, auc in zip(folds, aucs, strict=True):
        np.testing.assert_array_equal(auc, cumulative_dynamic_auc(*fold, times, censoring=(time, event)))


def test_the_times_of_a_curve_span_most_events():
    time, event = np.arange(101.0), np.ones(101, bool)
    np.testing.assert_allclose(curves.event_time_grid(time, event, n_times=5), [10, 30, 50, 70, 90])
    assert curves.event_time_grid(time, time == 7).tolist() == [7]
    assert curves.event_time_grid(time, ~event).tolist() == []
    assert curves.fold_dynamic_aucs([(time, ~event, time)], np.empty(0)).shape == (1, 0)
