"""What is watched in any run, where the answer is known."""

import math

import numpy as np
import pytest

from slpd_core.ssl import monitoring


def test_effective_rank_of_known_matrices():
    assert monitoring.effective_rank(np.eye(8)) == pytest.approx(8, rel=0.01)
    assert monitoring.effective_rank(np.outer(np.arange(9.0), np.ones(5))) == pytest.approx(1, rel=0.01)
    # Singular values 3 and 1: the exponential of the entropy of (3/4, 1/4).
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert monitoring.effective_rank(np.diag([3.0, 1.0, 0.0])) == pytest.approx(expected)


def test_effective_rank_of_a_collapsed_run_is_near_one():
    rng = np.random.default_rng(0)
    collapsed = rng.normal(size=24) + 1e-6 * rng.normal(size=(200, 24))
    assert monitoring.effective_rank(collapsed.astype(np.float32)) == pytest.approx(1, abs=0.01)
    assert monitoring.effective_rank(rng.normal(size=(200, 24)).astype(np.float32)) > 20


def test_the_sample_is_spread_over_the_cohort_and_no_larger():
    assert monitoring.fixed_sample(3).tolist() == [0, 1, 2]
    rows = monitoring.fixed_sample(100_000)
    assert len(rows) == len(set(rows)) == monitoring.SAMPLE
    assert (rows[0], rows[-1]) == (0, 99_999)


def test_labels_are_told_by_the_neighbours_of_other_patients():
    """Two directions; of patient d, whose label is b, the embeddings look like label a's."""
    a, b = np.array([1.0, 0.1]), np.array([0.1, 1.0])
    patients = np.array(["p", "p", "q", "q", "r", "d", "d", "d", "nobody"])
    labels = np.array(["a", "a", "a", "b", "b", "b", "b", "b", ""])
    embeddings = np.array([a, 2 * a, a, b, 3 * b, a, a, a, b])
    assert monitoring.knn_accuracy(embeddings, labels, patients, k=1) == 5 / 8  # all but those of d
    assert monitoring.knn_accuracy(embeddings[3:], labels[3:], patients[3:]) is math.nan
    assert monitoring.knn_accuracy(embeddings[:2], labels[:2], patients[:2]) is math.nan


def test_neighbours_of_the_own_patient_do_not_vote_even_where_there_are_too_few_others():
    labels, patients = np.array(["a", "a", "a", "b"]), np.array(["p", "p", "p", "q"])
    assert monitoring.knn_accuracy(np.eye(4), labels, patients) == 0
