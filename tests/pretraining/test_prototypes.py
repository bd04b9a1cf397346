"""k-means finds planted clusters; matching is the optimal permutation."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from slpd_core.pretraining import prototypes


def planted(rng, M=3, per=8, dim=6):
    centres = rng.normal(size=(M, dim)) * 20
    truth = rng.permutation(np.repeat(np.arange(M), per))
    return centres[truth] + rng.normal(size=(len(truth), dim)), truth


def cluster(embeddings, slide_of, ids, M=2, K=1, epoch=0):
    options = {"M": M, "K": K, "restarts": 5, "iterations": 10, "seed": 1, "epoch": epoch}
    return prototypes.cluster_slides(embeddings, slide_of, ids, **options)


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_kmeans_finds_planted_clusters(seed):
    rng = np.random.default_rng(seed)
    x, truth = planted(rng)
    centres, assignment = prototypes.kmeans(x, 3, 20, 10, rng)
    assert len({(a, t) for a, t in zip(assignment, truth, strict=True)}) == 3
    for number in range(3):
        np.testing.assert_allclose(centres[number], x[assignment == number].mean(0), atol=1e-3)


def test_kmeans_is_as_good_as_scikit_learn():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 4))
    centres, assignment = prototypes.kmeans(x, 4, 50, 50, rng)
    ours = ((x - centres[assignment]) ** 2).sum()
    assert ours <= KMeans(4, n_init=50, random_state=0).fit(x).inertia_ * 1.02


def test_a_large_offset_does_not_blur_the_clusters():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 4)) + 1e4
    centres, assignment = prototypes.kmeans(x, 4, 50, 50, rng)
    own = np.stack([x[assignment == number].mean(0) for number in range(4)])
    ours = ((x - own[assignment]) ** 2).sum()
    assert ours <= KMeans(4, n_init=50, random_state=0).fit(x).inertia_ * 1.02
    np.testing.assert_allclose(centres, own, atol=1e-3)  # single precision of 1e4


def test_two_clusters_empty_at_once_take_two_different_rows():
    """All three starts are the same row, so clusters 1 and 2 lose every region to cluster 0 in the first iteration."""
    x = np.zeros((23, 2))
    x[[7, 15]] = [[9, 0], [0, -8]]

    class Starts:
        def choice(self, *_, **__):
            return np.array([0, 1, 2])

    centres, assignment = prototypes.kmeans(x, 3, 1, 1, Starts())
    np.testing.assert_allclose(centres[1:], x[[7, 15]], atol=1e-5)
    assert (assignment[7], assignment[15]) == (1, 2)
    assert (np.delete(assignment, [7, 15]) == 0).all()


def test_kmeans_of_equal_rows_and_of_as_many_rows_as_clusters():
    rng = np.random.default_rng(0)
    centres, assignment = prototypes.kmeans(np.ones((6, 3)), 3, 5, 10, rng)
    np.testing.assert_array_equal(centres, np.ones((3, 3)))
    assert set(assignment) <= {0, 1, 2}
    x = rng.normal(size=(3, 5))
    centres, assignment = prototypes.kmeans(x, 3, 5, 10, rng)
    np.testing.assert_allclose(centres[assignment], x, atol=1e-5)


def cosine_of(a, b, order):
    return np.mean([a[m] @ b[o] / np.linalg.norm(a[m]) / np.linalg.norm(b[o]) for m, o in enumerate(order)])


@pytest.mark.parametrize("M", [1, 2, 3, 4, 5])
def test_matching_is_the_best_of_all_permutations(M):
    rng = np.random.default_rng(M)
    for _ in range(20):
        a, b = rng.normal(size=(2, M, 6))
        best = max(permutations(range(M)), key=lambda order: cosine_of(a, b, order))
        similarity, partner = prototypes.match_prototypes(a, b)
        assert similarity == pytest.approx(cosine_of(a, b, best))
        np.testing.assert_array_equal(partner, best)


def test_matching_undoes_a_permutation():
    rng = np.random.default_rng(0)
    a, order = rng.normal(size=(4, 8)), rng.permutation(4)
    similarity, partner = prototypes.match_prototypes(a, a[order])
    assert similarity == pytest.approx(1)
    np.testing.assert_array_equal(order[partner], range(4))


@pytest.mark.parametrize("M", [2, 4, 6])
def test_nearest_slides_agree_with_matching_every_pair(M, monkeypatch):
    monkeypatch.setattr(prototypes, "BLOCK_SLIDES", 4)
    centres = np.random.default_rng(0).normal(size=(9, M, 8)).astype(np.float32)
    neighbours, matches = prototypes.nearest_slides(centres, 3)
    for slide in range(9):
        similarity = {other: prototypes.match_prototypes(centres[slide], centres[other])[0] for other in range(9)}
        del similarity[slide]
        assert neighbours[slide].tolist() == sorted(similarity, key=similarity.__getitem__, reverse=True)[:3]
        for rank, other in enumerate(neighbours[slide]):
            np.testing.assert_array_equal(
                matches[slide, rank], prototypes.match_prototypes(centres[slide], centres[other])[1]
            )


@pytest.mark.parametrize(("N", "K", "found"), [(0, 1, 0), (1, 1, 0), (2, 1, 1), (3, 5, 2)])
def test_a_cohort_smaller_than_the_number_of_neighbours(N, K, found):
    neighbours, matches = prototypes.nearest_slides(np.random.default_rng(0).normal(size=(N, 2, 4)), K)
    assert neighbours.shape == (N, K)
    assert ((neighbours >= 0).sum(1) == found).all()
    assert (matches[neighbours < 0] == -1).all()


def test_a_slide_clusters_alike_whatever_the_others_are():
    rng = np.random.default_rng(0)
    embeddings, slide_of = rng.normal(size=(30, 5)), np.repeat([0, 1, 2], 10)
    together = cluster(embeddings, slide_of, ["a", "b", "c"])
    alone = cluster(embeddings[10:20], np.zeros(10, int), ["b"])
    np.testing.assert_array_equal(together.centres[1], alone.centres[0])
    np.testing.assert_array_equal(together.assignment[10:20], alone.assignment)
    assert (cluster(embeddings, slide_of, ["a", "b", "c"], epoch=1).centres != together.centres).any()


def test_small_slides_get_no_prototypes_and_are_no_neighbours():
    embeddings = np.random.default_rng(0).normal(size=(11, 5))
    slide_of = np.array([0] * 5 + [1] + [2] * 5)
    found = cluster(embeddings, slide_of, ["a", "tiny", "b", "none"], K=2)
    assert (found.assignment[slide_of == 1] == -1).all()
    assert (found.assignment[slide_of != 1] >= 0).all()
    assert found.neighbours.tolist() == [[2, -1], [-1, -1], [0, -1], [-1, -1]]
    assert not found.centres[[1, 3]].any()
    assert (found.matches[[1, 3]] == -1).all()


def test_all_slides_too_small():
    found = cluster(np.ones((2, 3)), np.array([0, 1]), ["a", "b"])
    assert (found.assignment == -1).all()
    assert (found.neighbours == -1).all()


def test_moving_counts_regions_not_names():
    embeddings, slide_of = np.random.default_rng(0).normal(size=(20, 5)), np.repeat([0, 1], 10)
    before = cluster(embeddings, slide_of, ["a", "b"])
    swapped = prototypes.Prototypes(before.centres[:, ::-1], 1 - before.assignment, before.neighbours, before.matches)
    assert prototypes.share_moved(before, swapped, slide_of) == 0
    one = before.assignment.copy()
    one[3] = 1 - one[3]
    moved = prototypes.Prototypes(before.centres, one, before.neighbours, before.matches)
    assert prototypes.share_moved(before, moved, slide_of) == pytest.approx(1 / 20)


def test_a_turn_of_the_embedding_space_moves_no_region():
    """Every axis turned by 90 degrees in its plane: the new centres are nearest, by cosine, to the wrong old ones."""
    rng, slide_of = np.random.default_rng(0), np.repeat([0, 1], 12)
    angles = np.tile(np.array([0, 90, 180, 270]), 6) * np.pi / 180
    embeddings = 10 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + rng.normal(size=(24, 2)) * 0.1
    before = cluster(embeddings, slide_of, ["a", "b"], M=4)
    after = cluster(embeddings @ np.array([[0.0, 1.0], [-1.0, 0.0]]), slide_of, ["a", "b"], M=4, epoch=1)
    assert len(set(before.assignment[:12])) == 4
    assert prototypes.share_moved(before, after, slide_of) == 0


def test_no_prototypes_no_moves():
    none = cluster(np.ones((2, 3)), np.array([0, 1]), ["a", "b"])
    assert np.isnan(prototypes.share_moved(none, none, np.array([0, 1])))
