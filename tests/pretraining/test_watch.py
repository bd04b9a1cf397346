"""What is watched while training, on cohorts where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from slpd_core.pretraining import pretrain, watch


def test_what_is_watched_of_the_prototypes(section, make_cohort):
    cohort = make_cohort(6, 1, 6)
    embeddings = np.random.default_rng(0).normal(size=(13, 24))
    found = pretrain.cluster(cohort, embeddings, section, 1, 0)
    row = watch.watch_prototypes(replace(cohort, patient_ids=["p", "q", "p"]), found, found)
    assert row["share_without_prototypes"] == pytest.approx(1 / 3)
    assert row["same_patient_neighbours"] == 1
    assert row["moved"] == 0
    assert row["smallest_cluster"] >= 1


def test_effective_rank_of_known_matrices():
    assert watch.effective_rank(np.eye(8)) == pytest.approx(7, rel=0.01)
    assert watch.effective_rank(np.outer(np.arange(9.0), np.ones(5))) == pytest.approx(1, rel=0.01)


def test_the_sample_is_spread_over_the_cohort_and_no_larger():
    assert watch.fixed_sample(3).tolist() == [0, 1, 2]
    rows = watch.fixed_sample(100_000)
    assert len(rows) == len(set(rows)) == watch.SAMPLE_REGIONS
    assert (rows[0], rows[-1]) == (0, 99_999)
