"""Differences to a reference row equal those of scipy and by hand; equal rows seldom differ."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import intervals
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import significance, uncertainty

ENDPOINT = make_endpoint("classification", ["a", "b"])


def predictions(scores, labels, folds):
    """An `evaluate` table of one slide per patient: scores of class b."""
    p = 1 / (1 + np.exp(-scores))
    names = [f"p{i}" for i in range(len(labels))]
    frame = pd.DataFrame({"fold": folds, "slide_id": names, "patient_id": names, "label": np.array(["a", "b"])[labels]})
    return frame.assign(p_a=1 - p, p_b=p)


def influence(scores, labels, folds, score="auc"):
    return uncertainty.compute_influences(predictions(scores, labels, folds), ENDPOINT)[score]


def test_a_difference_in_accuracy_on_one_test_set_is_the_paired_t_test():
    """The interval of one fold is scipy's for the mean of paired differences, wider by the allowance for training."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    right = [rng.random(60) < share for share in (0.8, 0.6)]
    rows = [influence(np.where(hits, 1.0, -1.0) * (labels * 2 - 1), labels, 0, "accuracy") for hits in right]
    comparison = significance.compare_with_reference(*rows)
    plain = stats.ttest_1samp(right[0].astype(float) - right[1], 0).confidence_interval(0.95)
    half = (plain.high - plain.low) / 2 * math.sqrt(1 + uncertainty.TRAINING)
    mean = right[0].mean() - right[1].mean()
    assert (comparison["difference"], comparison["low"], comparison["high"]) == pytest.approx(
        (mean, mean - half, mean + half)
    )


def test_rows_that_predict_alike_tell_nothing():
    rng = np.random.default_rng(1)
    labels, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    row = influence(rng.normal(size=40) + labels, labels, folds)
    comparison = significance.compare_with_reference(row, row)
    assert comparison["difference"] == 0
    assert [math.isnan(comparison[name]) for name in ("low", "high", "detectable")] == [True] * 3


def test_only_folds_where_both_are_defined_count():
    labels, folds = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    rng = np.random.default_rng(2)
    row, other = (influence(rng.normal(size=10), labels, folds) for _ in range(2))
    comparison = significance.compare_with_reference(row, other)
    assert comparison["difference"] == pytest.approx((row.values - other.values)[:2].mean())
    nothing = influence(np.zeros(2), np.ones(2, int), np.zeros(2, int))
    assert math.isnan(significance.compare_with_reference(nothing, nothing)["difference"])


def test_slides_that_one_row_lacks_count_for_the_other():
    """Another encoder may lack slides; their parts of one row's mean are parts of the difference too."""
    rng = np.random.default_rng(4)
    labels, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    whole = predictions(rng.normal(size=40) + labels, labels, folds)
    row, lacking = (uncertainty.compute_influences(table, ENDPOINT)["auc"] for table in (whole, whole.iloc[5:]))
    parts = row.minus(lacking).parts
    assert parts["p0"].dropna().tolist() == pytest.approx(row.parts["p0"].dropna().tolist())
    assert parts["p9"].dropna().item() == pytest.approx((row.parts["p9"] - lacking.parts["p9"]).dropna().item())


@pytest.mark.parametrize("design", ["partition", "10 hold-outs"])
def test_equal_rows_seldom_differ_and_what_is_detectable_is_mostly_detected(design):
    rng, shift = np.random.default_rng(5), 0.8
    equal = [intervals.simulate_rows(design, "fixed", 120, 3, (shift, shift), rng) for _ in range(300)]
    assert np.mean([intervals.differs(*rows) for rows in equal]) < 0.08
    detectable = np.mean([significance.compare_with_reference(*rows)["detectable"] for rows in equal])
    auc = stats.norm.cdf(shift / math.sqrt(2))
    higher = math.sqrt(2) * stats.norm.ppf(auc + detectable)  # its AUC is higher by the detectable difference
    unequal = [intervals.simulate_rows(design, "fixed", 120, 3, (higher, shift), rng) for _ in range(200)]
    assert np.mean([intervals.differs(*rows) for rows in unequal]) > 0.7


def test_a_difference_ends_where_scores_do():
    """Two AUCs of four patients differ by 1 at most, and no larger difference is detectable."""
    labels, folds = np.array([0, 1, 0, 1]), np.zeros(4)
    row, other = (influence(np.array(scores), labels, folds) for scores in ([0.0, 1, 2, 3], [3.0, 0, 1, 2]))
    comparison = significance.compare_with_reference(row, other)
    assert (comparison["low"], comparison["high"]) == (-1, 1)
    assert math.isnan(comparison["detectable"])
    wide = [dataclasses.replace(one, bounds=(-math.inf, 1.0)) for one in (row, other)]
    unbounded = significance.compare_with_reference(*wide)
    assert unbounded["low"] < -1
    assert unbounded["high"] > 1
    assert unbounded["detectable"] > 1
    assert comparison["difference"] == unbounded["difference"]
