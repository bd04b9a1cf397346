"""k-means finds planted clusters, of a group as of many, and a group's result is its own."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from slpd_core.pretraining import reference
from slpd_core.prototypes import clustering


@pytest.fixture(params=["products", "rows"])
def each_way(request, monkeypatch):
    """Groups of any size take the way of small ones, then that of large ones, in blocks of some rows."""
    if request.param == "rows":
        monkeypatch.setattr(clustering, "GRAM_ROWS", 0)
        monkeypatch.setattr(clustering, "DISTANCES_AT_ONCE", 80)
        monkeypatch.setattr(clustering, "threadpool_limits", nullcontext)  # which looks through all libraries each time


def kmeans(x, M, restarts, iterations, rng):
    return clustering.kmeans(x, [np.arange(len(x))], M, restarts=restarts, iterations=iterations, rngs=[rng])


def planted(rng, M=3, per=8, dim=6):
    centers = rng.normal(size=(M, dim)) * 20
    truth = rng.permutation(np.repeat(np.arange(M), per))
    return centers[truth] + rng.normal(size=(len(truth), dim)), truth


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("seed", range(6))
def test_planted_clusters_are_found(seed):
    rng = np.random.default_rng(seed)
    x, truth = planted(rng)
    (centers,), assignment = kmeans(x, 3, 30, 5, rng)
    assert len({(a, t) for a, t in zip(assignment, truth, strict=True)}) == 3
    for number in range(3):
        np.testing.assert_allclose(centers[number], x[assignment == number].mean(0), atol=1e-3)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("offset", [0, 1e4])
def test_as_good_as_scikit_learn_and_a_large_offset_blurs_nothing(offset):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 4)) + offset
    (centers,), assignment = kmeans(x, 4, 30, 12, rng)
    own = np.stack([x[assignment == number].mean(0) for number in range(4)])
    ours = ((x - own[assignment]) ** 2).sum()
    assert ours <= KMeans(4, n_init=50, random_state=0).fit(x).inertia_ * 1.02
    np.testing.assert_allclose(centers, own, atol=1e-3)  # single precision of 1e4


class Starts:
    """A generator whose every restart begins with the first rows."""

    def random(self, shape):
        return np.broadcast_to(np.arange(shape[1]), shape)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_it_is_the_textbook_algorithm(iterations):
    x = np.random.default_rng(5).normal(size=(40, 3))
    expected, nearest = reference.lloyd(torch.from_numpy(x), [torch.arange(5)], iterations)
    (centers,), assignment = kmeans(x, 5, 1, iterations, Starts())
    np.testing.assert_allclose(centers, expected, atol=1e-5)
    np.testing.assert_array_equal(assignment, nearest)


@pytest.mark.usefixtures("each_way")
def test_the_best_restart_is_kept():
    """The first restart starts from three rows of one cluster and stays there; the last from one of each."""
    x = np.array([[0.0, 0], [0.1, 0], [0, 0.1], [9, 0], [9.1, 0], [0, 9], [0.1, 9]])
    starts = iter([[0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 2, 4, 5, 6], [0, 3, 5, 1, 2, 4, 6]])

    class Ordered:
        def random(self, shape):
            return np.stack([np.argsort(next(starts)) for _ in range(shape[0])])

    _, assignment = kmeans(x, 3, 3, 1, Ordered())
    assert assignment.tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.usefixtures("each_way")
def test_two_clusters_empty_at_once_take_two_different_rows():
    """All three starts are the same row, so clusters 1 and 2 lose every region to cluster 0 in the first iteration."""
    x = np.zeros((23, 2))
    x[[7, 15]] = [[9, 0], [0, -8]]
    (centers,), assignment = kmeans(x, 3, 1, 1, Starts())
    np.testing.assert_allclose(centers[1:], x[[7, 15]], atol=1e-5)
    assert (assignment[7], assignment[15]) == (1, 2)
    assert (np.delete(assignment, [7, 15]) == 0).all()


@pytest.mark.usefixtures("each_way")
def test_the_worst_served_row_is_far_from_its_centre_not_from_the_mean():
    """Starts 0 and 1 are the same row. Row 5, farthest from the mean, is near start 2; row 3 is served worst."""
    x = np.array([[0.0, 0], [0, 0], [30, 0], [20, 0], [0, 3], [31, 0], *[[0, 0]] * 8])
    (centers,), _ = kmeans(x, 3, 1, 1, Starts())
    np.testing.assert_allclose(centers[1], [20, 0], atol=1e-5)


@pytest.mark.usefixtures("each_way")
def test_equal_rows_and_as_many_rows_as_clusters():
    rng = np.random.default_rng(0)
    (centers,), assignment = kmeans(np.ones((6, 3)), 3, 5, 10, rng)
    np.testing.assert_array_equal(centers, np.ones((3, 3)))
    assert set(assignment) <= {0, 1, 2}
    x = rng.normal(size=(3, 5))
    (centers,), assignment = kmeans(x, 3, 5, 10, rng)
    np.testing.assert_allclose(centers[assignment], x, atol=1e-5)


def cohort(rng, dim):
    """Rows of twelve groups, mixed; many of the groups are of equal size, and row 0 is in none."""
    group_of = np.append(-1, rng.permutation(np.repeat(np.arange(12), [9, 9, 9, 30, 30, 4, 9, 57, 57, 57, 4, 1030])))
    x = rng.normal(size=(len(group_of), dim)).astype(np.float32) + 3
    return x, [np.flatnonzero(group_of == number) for number in range(12)]


@pytest.mark.parametrize("dim", [5, 192, 256])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_group_is_clustered_alike_to_the_bit_whatever_the_others_are(dim, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, groups = cohort(np.random.default_rng(0), dim)
    every = partial(clustering.kmeans, restarts=3, iterations=4)
    rngs = [np.random.default_rng(number) for number in range(12)]
    centers, assignment = every(x, groups, 4, rngs=rngs)
    assert assignment[0] == -1
    assert (assignment[1:] >= 0).all()
    for number, rows in enumerate(groups):
        alone, own = every(x[rows], [np.arange(len(rows))], 4, rngs=[np.random.default_rng(number)])
        np.testing.assert_array_equal(centers[number], alone[0])
        np.testing.assert_array_equal(assignment[rows], own)
    monkeypatch.setattr(clustering, "BATCH_VALUES", 1)  # each group in a batch of its own
    again = every(x, groups, 4, rngs=[np.random.default_rng(number) for number in range(12)])
    np.testing.assert_array_equal(again[0], centers)
    np.testing.assert_array_equal(again[1], assignment)


def test_no_groups():
    centers, assignment = clustering.kmeans(np.ones((4, 2)), [], 3, restarts=2, iterations=2, rngs=[])
    assert centers.shape == (0, 3, 2)
    assert assignment.tolist() == [-1] * 4


def test_a_failure_in_a_thread_is_not_lost():
    with pytest.raises(ZeroDivisionError):
        clustering.parallel_map(lambda number: 1 // number, [1, 0])
