"""Matching is the optimal permutation, and the nearest slides are those of matching every pair."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from slpd_core.pretraining import reference
from slpd_core.prototypes import matching


def cosine_of(a, b, order):
    return np.mean([a[m] @ b[o] / np.linalg.norm(a[m]) / np.linalg.norm(b[o]) for m, o in enumerate(order)])


@pytest.mark.parametrize("M", [1, 2, 3, 4, 5])
def test_matching_is_the_best_of_all_permutations(M):
    rng = np.random.default_rng(M)
    for _ in range(20):
        a, b = rng.normal(size=(2, M, 6))
        expected, best = reference.similarity(torch.from_numpy(a), torch.from_numpy(b))
        similarity, partner = matching.match_prototypes(a, b)
        assert similarity == pytest.approx(expected) == pytest.approx(cosine_of(a, b, best))
        np.testing.assert_array_equal(partner, best)


def test_matching_undoes_a_permutation():
    rng = np.random.default_rng(0)
    a, order = rng.normal(size=(4, 8)), rng.permutation(4)
    similarity, partner = matching.match_prototypes(a, a[order])
    assert similarity == pytest.approx(1)
    np.testing.assert_array_equal(order[partner], range(4))


@pytest.mark.parametrize("M", range(1, 14))
def test_the_greatest_sum_is_the_hungarian_one(M):
    cosine = np.random.default_rng(M).normal(size=(M, M, 3, 5))
    found = matching._greatest_sum(cosine.copy())
    for row, column in np.ndindex(3, 5):
        one = cosine[:, :, row, column]
        assert found[row, column] == pytest.approx(one[linear_sum_assignment(one, maximize=True)].sum())


@pytest.mark.parametrize("M", range(1, 6))
def test_the_similarity_of_all_pairs_is_the_best_of_all_permutations(M):
    rng = np.random.default_rng(M)
    a, b = (matching.normalize_vectors(rng.normal(size=(M, count, 6))) for count in (3, 7))
    found = matching._similarities(a, b) / M
    for i, j in np.ndindex(3, 7):
        assert found[i, j] == pytest.approx(
            reference.similarity(torch.from_numpy(a[:, i]), torch.from_numpy(b[:, j]))[0]
        )


@pytest.mark.parametrize("M", [1, 2, 4, 6, 8, 10, 12])
def test_nearest_slides_agree_with_matching_every_pair(M, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK_SLIDES", 4)
    monkeypatch.setattr(matching, "BLOCK_COSINES", 5 * M**2)
    centers = np.random.default_rng(0).normal(size=(11, M, 16)).astype(np.float32)
    given = centers.copy()
    neighbors, matches = matching.nearest_slides(centers, 3)
    np.testing.assert_array_equal(centers, given)
    for slide in range(11):
        similarity = {other: matching.match_prototypes(centers[slide], centers[other])[0] for other in range(11)}
        del similarity[slide]
        assert neighbors[slide].tolist() == sorted(similarity, key=similarity.__getitem__, reverse=True)[:3]
        for rank, other in enumerate(neighbors[slide]):
            pairing = matching.match_prototypes(centers[slide], centers[other])[1]
            np.testing.assert_array_equal(matches[slide, rank], pairing)


def test_of_equally_similar_slides_the_lower_index_comes_first():
    """Whole numbers along axes: the cosines are exact."""
    a, b = np.eye(4)[:2], np.eye(4)[2:]
    neighbors, _ = matching.nearest_slides(np.stack([a, b, a[::-1], 2 * a, b, 3 * a]), 5)
    assert neighbors[0].tolist() == [2, 3, 5, 1, 4]
    assert neighbors[3].tolist() == [0, 2, 5, 1, 4]
    assert neighbors[4].tolist() == [1, 0, 2, 3, 5]


@pytest.mark.parametrize("order", [list, reversed], ids=["forwards", "backwards"])
def test_the_order_in_which_blocks_are_compared_changes_nothing(order, monkeypatch):
    """Many slides are equal; with three threads a later block may well be done first."""
    monkeypatch.setattr(matching, "BLOCK_SLIDES", 4)
    monkeypatch.setattr(matching, "parallel_map", lambda work, items: [work(start) for start in order(items)])
    axes = np.eye(6)[np.random.default_rng(0).integers(0, 6, (30, 2))]
    neighbors, _ = matching.nearest_slides(axes, 5)
    cosine = np.einsum("imd,jnd->ijmn", axes, axes)
    similarity = np.maximum(cosine[..., 0, 0] + cosine[..., 1, 1], cosine[..., 0, 1] + cosine[..., 1, 0])
    np.fill_diagonal(similarity, -1)
    np.testing.assert_array_equal(neighbors, (-similarity).argsort(axis=1, kind="stable")[:, :5])


def test_the_nearest_partner_may_be_shared_and_the_similarity_stays_optimal():
    """Both prototypes of slide 0 are nearest to prototype 1 of slide 1; slide 2 is nearer by shared partners alone."""
    a = np.array([[1.0, 0], [0.8, 0.6]])
    b = np.array([[-0.6, 0.8], [1.0, 0.1]])
    c = np.array([[0.9, 0.3], [-1.0, -0.9]])
    for way, partners in (("optimal", [1, 0]), ("nearest", [1, 1])):
        neighbors, matches = matching.nearest_slides(np.stack([a, b, c]), 1, matching=way)
        assert neighbors[0, 0] == 1
        assert matches[0, 0].tolist() == partners
    shared = [matching._partners(a[:, None], other[:, None], "nearest")[0] for other in (b, c)]
    assert cosine_of(a, c, shared[1]) > cosine_of(a, b, shared[0])


@pytest.mark.parametrize(("N", "K", "found"), [(0, 1, 0), (1, 1, 0), (2, 1, 1), (3, 5, 2), (3, 0, 0)])
@pytest.mark.parametrize("way", ["optimal", "nearest"])
def test_a_cohort_smaller_than_the_number_of_neighbors(N, K, found, way):
    neighbors, matches = matching.nearest_slides(np.random.default_rng(0).normal(size=(N, 2, 4)), K, matching=way)
    assert neighbors.shape == (N, K)
    assert ((neighbors >= 0).sum(1) == found).all()
    assert ((neighbors >= 0)[:, :found]).all()
    assert (matches[neighbors < 0] == -1).all()
    assert (matches[neighbors >= 0] >= 0).all()


def test_slides_of_a_group_are_no_neighbors(monkeypatch):
    monkeypatch.setattr(matching, "BLOCK_SLIDES", 3)
    centers = np.random.default_rng(1).normal(size=(8, 2, 4))
    group = np.array([7, 3, 7, 7, 9, 3, 7, 7])
    neighbors, matches = matching.nearest_slides(centers, 4, group)
    for slide in range(8):
        others = np.flatnonzero(group != group[slide])
        similarity = [matching.match_prototypes(centers[slide], centers[other])[0] for other in others]
        wanted = others[np.argsort(similarity)[::-1]][:4].tolist()
        assert neighbors[slide].tolist() == wanted + [-1] * (4 - len(wanted))
    assert (neighbors[0] == -1).sum() == 1  # of group 7: three others only
    assert ((matches >= 0).all(2) == (neighbors >= 0)).all()


def test_one_group_has_no_neighbours_and_is_not_compared(monkeypatch):
    monkeypatch.setattr(matching, "_similarities", lambda *_: pytest.fail("compared"))
    for N in (0, 1, 5):
        neighbors, matches = matching.nearest_slides(np.ones((N, 3, 2)), 2, np.full(N, 4))
        assert (neighbors == -1).all()
        assert (matches == -1).all()


def test_prototypes_of_no_length_give_numbers():
    centers = np.zeros((3, 2, 4))
    centers[1] = 1
    neighbors, matches = matching.nearest_slides(centers, 2)
    assert neighbors.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert (matches >= 0).all()
    assert matching.match_prototypes(centers[0], centers[1])[0] == 0


@pytest.mark.parametrize("K", [1, 3])
def test_nearest_regions_of_all_are_those_of_comparing_every_pair(K, monkeypatch):
    """Of 5 slides, as of 2 patients; -1 where the others have fewer."""
    monkeypatch.setattr(matching, "COMPARED_REGIONS", 4)
    rng = np.random.default_rng(K)
    regions = rng.normal(size=(21, 6)).astype(np.float32)
    for group in (np.repeat(range(5), [6, 1, 5, 7, 2]), np.repeat([0, 1], [19, 2])):
        found = matching.nearest_regions_of_all(regions, group, K)
        for region, nearest in enumerate(found):
            cosine = {
                i: cosine_of(regions[[region]], regions[[i]], [0]) for i in np.flatnonzero(group != group[region])
            }
            expected = sorted(cosine, key=lambda i: -cosine[i])[:K]
            assert nearest.tolist() == expected + [-1] * (K - len(expected))


def test_of_one_group_no_region_is_near():
    assert (matching.nearest_regions_of_all(np.ones((3, 2), np.float32), np.zeros(3), 2) == -1).all()
