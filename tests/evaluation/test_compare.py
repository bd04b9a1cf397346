"""Paired comparisons against scipy and by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from slpd_core.evaluation import compare


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
