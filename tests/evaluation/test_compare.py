"""Intervals and tests against scikit-learn, scipy, and cohorts whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.evaluation import compare


def slides_of(labels, p, patients=None):
    columns = {"patient_id": patients if patients is not None else [f"p{n}" for n in range(len(labels))]}
    frame = pd.DataFrame(columns | {"label": np.array(["a", "b"])[labels], "p_a": 1 - p, "p_b": p})
    return frame.set_index(pd.Index([f"s{n}" for n in range(len(labels))], name="slide_id"))


@given(st.integers(0, 999), st.integers(4, 40))
def test_the_weighted_auc_is_that_of_scikit_learn(seed, n):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, n) / 5, np.append([True, False], rng.random(n - 2) < 0.5)
    weights = rng.integers(0, 4, (5, n)).astype(float)
    found = compare.weighted_auc(scores, positive, weights)
    for auc, weight in zip(found, weights, strict=True):
        if weight[positive].sum() and weight[~positive].sum():
            assert auc == pytest.approx(roc_auc_score(positive, scores, sample_weight=weight))
        else:
            assert math.isnan(auc)


def test_a_slide_that_several_folds_test_counts_once():
    rows = [(0, "s", "p", "a", 0.2), (1, "s", "p", "a", 0.6), (0, "t", "q", "b", 0.9)]
    frame = pd.DataFrame(rows, columns=["fold", "slide_id", "patient_id", "label", "p_b"]).assign(p_a=0.0)
    found = compare.pooled(frame, ["a", "b"])
    assert found["p_b"].to_dict() == {"s": pytest.approx(0.4), "t": 0.9}


def test_the_interval_holds_the_true_auc_as_often_as_it_says():
    """Scores of unit normals 1 apart have an AUC of .760: it lies within in about 95 % of 200 cohorts."""
    rng, inside, widths = np.random.default_rng(0), 0, []
    for _ in range(200):
        labels = rng.permutation(np.arange(80) % 2)
        scores = rng.normal(size=80) + labels
        found = compare.patient_bootstrap(slides_of(labels, scores), ["a", "b"], rng)
        inside += found["auc_low"] <= 0.7602 <= found["auc_high"]
        widths.append(found["auc_high"] - found["auc_low"])
    assert 180 <= inside <= 199
    assert 0.15 < np.mean(widths) < 0.27


def test_patients_are_resampled_whole():
    """Ten slides alike of each patient are worth one: the interval is as wide as that of one slide each."""
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    scores = rng.normal(size=40) + labels
    one = compare.patient_bootstrap(slides_of(labels, scores), ["a", "b"], np.random.default_rng(2))
    patients = [f"p{n}" for n in range(40)] * 10
    ten = slides_of(np.tile(labels, 10), np.tile(scores, 10), patients)
    assert compare.patient_bootstrap(ten, ["a", "b"], np.random.default_rng(2)) == pytest.approx(one)


def test_one_label_has_no_interval():
    found = compare.patient_bootstrap(slides_of(np.zeros(4, int), np.ones(4)), ["a", "b"], np.random.default_rng(0))
    assert all(math.isnan(value) for value in found.values())


def test_folds_that_share_nothing_are_the_paired_t_test():
    from scipy import stats

    differences = np.random.default_rng(0).normal(0.3, 1, 10)
    plain = stats.ttest_1samp(differences, 0).pvalue
    assert compare.corrected_t_test(differences, 0.0) == pytest.approx(plain)
    assert compare.corrected_t_test(differences, 1 / 9) > plain
    assert compare.corrected_t_test(np.append(differences, np.nan), 0.0) == pytest.approx(plain)


@pytest.mark.parametrize(("differences", "p"), [([0.0] * 5, 1), ([0.1] * 5, 0), ([0.1], math.nan), ([], math.nan)])
def test_differences_without_spread(differences, p):
    assert compare.corrected_t_test(np.array(differences), 0.1) == pytest.approx(p, nan_ok=True)


def test_holm_by_hand():
    np.testing.assert_allclose(compare.holm([0.04, 0.01, math.nan, 0.03]), [0.06, 0.03, math.nan, 0.06])
    assert compare.holm([0.6, 0.7]).tolist() == [1, 1]
    assert compare.holm([]).tolist() == []


def test_each_row_is_held_against_the_best():
    rng = np.random.default_rng(0)
    best = pd.Series(0.9 + 0.02 * rng.normal(size=10))
    rows = [best - 0.2 + 0.01 * rng.normal(size=10), best, best - 0.001 * rng.normal(size=10), best * np.nan]
    found = compare.against_best(rows, 1 / 9)
    assert found["auc_less"].isna().tolist() == [
        False,
        rows[1].mean() > rows[2].mean(),
        rows[2].mean() > rows[1].mean(),
        True,
    ]
    assert found.loc[0, "auc_less"] == pytest.approx(0.2, abs=0.02)
    assert found.loc[0, "p"] < 1e-6
    other = 2 if rows[1].mean() > rows[2].mean() else 1
    assert found.loc[other, "p"] > 0.05
    assert compare.against_best([], 0.1).empty
    assert compare.against_best([best * np.nan], 0.1)["p"].isna().all()
