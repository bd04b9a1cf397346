"""What is watched while training, on cohorts where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from slpd_core.pretraining import prototype_stats, stage_two
from slpd_core.pretraining.prototypes import ClusteringParams, Prototypes


def test_what_is_watched_of_the_prototypes(section, make_cohort):
    cohort = make_cohort(6, 1, 6)
    embeddings = np.random.default_rng(0).normal(size=(13, 24))
    found = stage_two.cluster_dataset(cohort, embeddings, section.extract(ClusteringParams), seed=1, epoch=0)
    row = prototype_stats.prototype_stats(replace(cohort, patient_ids=["p", "q", "p"]), cohort.slide_of, found, found)
    assert row["slides_without_prototypes_fraction"] == pytest.approx(1 / 3)
    assert row["same_patient_fraction"] == 1
    assert row["reassigned_fraction"] == 0
    assert row["min_cluster_size"] >= 1


def test_a_dead_prototype_shows_as_a_cluster_of_none(section, make_cohort):
    """Slide 1 is too small for prototypes and counts for nothing; prototype 1 of slide 2 has lost its regions."""
    cohort = make_cohort(6, 1, 5)
    centers, none = np.ones((3, 2, 24), np.float32), np.full((3, 1), -1)
    living = Prototypes(centers, np.array([0, 0, 1, 1, 1, 1, -1, 0, 1, 1, 1, 1]), none, np.full((3, 1, 2), -1))
    dead = replace(living, assignment=np.where(cohort.slide_of == 2, 0, living.assignment))
    assert prototype_stats.prototype_stats(cohort, cohort.slide_of, None, living)["min_cluster_size"] == 1
    assert prototype_stats.prototype_stats(cohort, cohort.slide_of, None, dead)["min_cluster_size"] == 0
    nothing = replace(living, assignment=np.full(12, -1))
    assert np.isnan(prototype_stats.prototype_stats(cohort, cohort.slide_of, None, nothing)["min_cluster_size"])
