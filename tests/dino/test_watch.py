"""What is watched in any run, where the answer is known."""

import numpy as np
import pytest

from slpd_core.dino import watch


def test_effective_rank_of_known_matrices():
    assert watch.effective_rank(np.eye(8)) == pytest.approx(8, rel=0.01)
    assert watch.effective_rank(np.outer(np.arange(9.0), np.ones(5))) == pytest.approx(1, rel=0.01)
    # Singular values 3 and 1: the exponential of the entropy of (3/4, 1/4).
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert watch.effective_rank(np.diag([3.0, 1.0, 0.0])) == pytest.approx(expected)


def test_effective_rank_of_a_collapsed_run_is_near_one():
    rng = np.random.default_rng(0)
    collapsed = rng.normal(size=24) + 1e-6 * rng.normal(size=(200, 24))
    assert watch.effective_rank(collapsed.astype(np.float32)) == pytest.approx(1, abs=0.01)
    assert watch.effective_rank(rng.normal(size=(200, 24)).astype(np.float32)) > 20


def test_the_sample_is_spread_over_the_cohort_and_no_larger():
    assert watch.fixed_sample(3).tolist() == [0, 1, 2]
    rows = watch.fixed_sample(100_000)
    assert len(rows) == len(set(rows)) == watch.SAMPLE
    assert (rows[0], rows[-1]) == (0, 99_999)
