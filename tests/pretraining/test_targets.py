"""The targets of planted prototypes are the regions' own ones, their partners, or regions of the nearest slides."""

import numpy as np
import torch

from slpd_core.pretraining.prototypes import Prototypes
from slpd_core.pretraining.targets import assign_targets


def test_targets_are_the_own_prototype_and_its_partners():
    centers = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    found = Prototypes(
        centers,
        assignment=np.array([0, 1, -1, 1]),
        neighbors=np.array([[2, -1], [-1, -1], [0, 1]]),
        matches=np.array([[[1, 0], [-1, -1]], [[-1, -1], [-1, -1]], [[0, 1], [1, 0]]]),
    )
    slide_of = np.array([0, 0, 1, 2])
    clustered = np.zeros((4, 4), np.float32)
    targets = assign_targets(found, clustered, slide_of, slide_of)
    targets = targets.for_batch(torch.tensor([3, 0, 2, 1]))
    values, exists = targets["intra"]
    np.testing.assert_array_equal(exists[:, 0], [1, 1, 0, 1])
    np.testing.assert_array_equal(values[[0, 1, 3], 0], [centers[2, 1], centers[0, 0], centers[0, 1]])
    values, exists = targets["inter"]
    np.testing.assert_array_equal(exists, [[1, 1], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(values[0], [centers[0, 1], centers[1, 0]])
    np.testing.assert_array_equal(values[[1, 3], 0], [centers[2, 1], centers[2, 0]])


def test_a_region_may_be_distilled_towards_the_nearest_region_of_each_neighbour():
    rng = np.random.default_rng(0)
    slide_of, clustered = np.array([0, 0, 1, 1, 1, 2]), rng.normal(size=(6, 4)).astype(np.float32)
    neighbors = np.array([[1, 2], [2, -1], [-1, -1]])
    none = Prototypes(np.zeros((3, 2, 4), np.float32), np.zeros(6, np.int64), neighbors, np.full((3, 2, 2), -1))
    targets = assign_targets(none, clustered, slide_of, slide_of, intra=False, inter_target="region").for_batch(
        torch.arange(6)
    )
    assert list(targets) == ["inter"]
    values, exists = targets["inter"]
    np.testing.assert_array_equal(exists, [[1, 1], [1, 1], [1, 0], [1, 0], [1, 0], [0, 0]])
    for region in (0, 1):
        cosine = [a @ clustered[region] / np.linalg.norm(a) for a in clustered[2:5]]
        np.testing.assert_array_equal(values[region], [clustered[2 + np.argmax(cosine)], clustered[5]])
    np.testing.assert_array_equal(values[2:5, 0], clustered[[5] * 3])
