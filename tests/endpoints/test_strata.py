"""Strata are even, respect ties and counts, and `partition` spreads them over folds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slpd_core.endpoints import strata
from slpd_core.evaluation import partition
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


def test_numbers_are_grouped_by_quartile_and_named_by_its_end():
    groups = strata.regression_groups(np.array([4.0, 1.0, 3.0, 2.0, 8.0, 5.0, 6.0, 7.25]))
    names = ["q1 (up to 2)", "q2 (up to 4)", "q3 (up to 6)", "q4 (above 6)"]
    assert groups.tolist() == [names[i] for i in (1, 0, 1, 0, 3, 2, 2, 3)]
    assert strata.regression_groups(np.array([4.0, 4.0])).tolist() == ["all", "all"]
    assert len(strata.regression_groups(np.empty(0))) == 0


@given(SEEDS, st.integers(1, 60))
def test_survival_is_grouped_by_event_then_by_time(seed, n):
    time, event, _ = draw_survival(seed, n)
    groups = strata.survival_groups(time, event)
    assert [("event" in name) for name in groups] == event.tolist()
    for side in (event, ~event):
        early = np.array([name.startswith("early") for name in groups[side]], bool)
        assert not (early.any() and not early.all()) or time[side][early].max() < time[side][~early].min()


def test_one_event_is_a_group_of_its_own():
    groups = strata.survival_groups(np.arange(8.0), np.arange(8) == 3)
    early, late = "early censored (up to 4)", "late censored (above 4)"
    assert groups.tolist() == [early] * 3 + ["event", early] + [late] * 3


@settings(max_examples=15)
@given(SEEDS, st.integers(2, 5))
def test_folds_share_events_and_late_times_evenly(seed, n_folds):
    rng = np.random.default_rng(seed)
    time, event = rng.exponential(size=100), rng.random(100) < 0.4
    label = strata.survival_groups(time, event)
    patients = [f"p{i:03d}" for i in range(100)]
    slides = pd.DataFrame({"slide_id": patients, "patient_id": patients, "label": label})
    fold = partition.partition(slides, n_folds, seed)
    table = pd.crosstab(fold, label)
    assert np.ptp(table.to_numpy(), axis=0).max() <= 1
    assert table.to_numpy().min() >= 1


def test_names_of_groups_are_of_signs_that_every_font_has():
    time = np.arange(8.0)
    for groups in (strata.regression_groups(time), strata.survival_groups(time, np.arange(8) % 2 == 0)):
        assert all(name.isascii() for name in groups)
