"""Strata are even, respect ties and counts, and `partition` spreads them over folds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slpd_core.endpoints import strata
from slpd_core.evaluation import folds
from tests.fixtures.endpoints import draw_survival

SEEDS, SIZES = st.integers(0, 9999), st.integers(0, 60)


@given(SEEDS, SIZES, st.integers(1, 6), st.integers(1, 12))
def test_bins_are_ordered_hold_enough_and_keep_equal_values_together(seed, n, n_bins, min_count):
    values = np.random.default_rng(seed).integers(0, 9, n).astype(float)
    bins = strata.quantile_bins(values, n_bins=n_bins, min_count=min_count)
    assert len(bins) == n
    used = np.unique(bins)
    assert used.tolist() == [*range(len(used))]
    assert len(used) <= n_bins
    assert len(used) <= 1 or np.bincount(bins).min() >= min_count
    assert all(values[bins == i].max() < values[bins == i + 1].min() for i in used[:-1])


@pytest.mark.parametrize("n_bins", [2, 3, 4, 5])
def test_bins_of_distinct_values_are_even(n_bins):
    values = np.random.default_rng(0).permutation(60)
    counts = np.bincount(strata.quantile_bins(values, n_bins=n_bins))
    assert counts.tolist() == [60 // n_bins] * n_bins


def test_bins_are_as_many_as_hold_enough():
    assert strata.quantile_bins(np.arange(9.0), min_count=3).max() == 2
    assert strata.quantile_bins(np.arange(9.0), min_count=4).max() == 1
    assert strata.quantile_bins(np.arange(9.0), min_count=5).max() == 0
    assert strata.quantile_bins(np.repeat([0.0, 5.0], [90, 10])).sum() == 10


def test_classes_are_their_own_strata():
    assert strata.class_strata(np.array([2, 1, 2])).tolist() == ["2", "1", "2"]
    assert strata.class_strata(np.array(["low", "high"], object)).tolist() == ["low", "high"]


def test_targets_are_stratified_from_the_lowest():
    assert strata.regression_strata(np.array([4.0, 1.0, 3.0, 2.0]), n_bins=2).tolist() == ["q2", "q1", "q2", "q1"]
    assert strata.regression_strata(np.array([4.0, 1.0]), min_count=3).tolist() == ["q1", "q1"]


@given(SEEDS, st.integers(2, 60))
def test_survival_is_stratified_by_event_then_by_time(seed, n):
    time, event, _ = draw_survival(seed, n)
    names = strata.survival_strata(time, event, n_bins=3, min_count=2)
    assert (np.char.startswith(names, "event-") == event).all()
    for side in (event, ~event):
        bins = strata.quantile_bins(time[side], n_bins=3, min_count=2)
        assert [name[-1] for name in names[side]] == [str(i + 1) for i in bins]


def test_one_event_is_a_stratum_of_its_own():
    names = strata.survival_strata(np.arange(8.0), np.arange(8) == 3, n_bins=2)
    assert names.tolist() == ["censored-1"] * 3 + ["event-1"] + ["censored-1"] + ["censored-2"] * 3


@settings(max_examples=15)
@given(SEEDS, st.integers(2, 5))
def test_folds_share_events_and_late_times_evenly(seed, n_folds):
    rng = np.random.default_rng(seed)
    time, event = rng.exponential(size=100), rng.random(100) < 0.4
    label = strata.survival_strata(time, event, min_count=n_folds)
    patients = [f"p{i:03d}" for i in range(100)]
    slides = pd.DataFrame({"slide_id": patients, "patient_id": patients, "label": label})
    fold = folds.partition(slides, n_folds, seed)
    table = pd.crosstab(fold, label)
    assert np.ptp(table.to_numpy(), axis=0).max() <= 1
    assert table.to_numpy().min() >= 1
