"""Each slide gets prototypes of its own regions; small slides none; moves are counted in regions."""

import numpy as np
import pytest

from slpd_core.pretraining import prototypes


def cluster(embeddings, slide_of, ids, M=2, K=1, epoch=0, **more):
    options = {"M": M, "K": K, "restarts": 5, "iterations": 10, "seed": 1, "epoch": epoch}
    return prototypes.cluster_slides(embeddings, slide_of, ids, **options, **more)


def test_each_slide_finds_the_clusters_planted_in_it():
    """Regions of the slides are mixed; each slide has an offset and four kinds of region of its own."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 4, 6)) * 20 + rng.normal(size=(3, 1, 6)) * 50
    slide_of, kind = rng.permutation(np.array([(slide, kind) for slide in range(3) for kind in range(4)] * 9)).T
    embeddings = kinds[slide_of, kind] + rng.normal(size=(108, 6)) * 0.01
    found = cluster(embeddings, slide_of, ["a", "b", "c"], M=4)
    np.testing.assert_allclose(found.centers[slide_of, found.assignment], kinds[slide_of, kind], atol=0.1)


def test_a_slide_clusters_alike_whatever_the_others_are():
    rng = np.random.default_rng(0)
    embeddings, slide_of = rng.normal(size=(30, 5)), np.repeat([0, 1, 2], 10)
    together = cluster(embeddings, slide_of, ["a", "b", "c"])
    alone = cluster(embeddings[10:20], np.zeros(10, int), ["b"])
    np.testing.assert_array_equal(together.centers[1], alone.centers[0])
    np.testing.assert_array_equal(together.assignment[10:20], alone.assignment)
    assert (cluster(embeddings, slide_of, ["a", "b", "c"], epoch=1).centers != together.centers).any()


def test_small_slides_get_no_prototypes_and_are_no_neighbors():
    embeddings = np.random.default_rng(0).normal(size=(11, 5))
    slide_of = np.array([0] * 5 + [1] + [2] * 5)
    found = cluster(embeddings, slide_of, ["a", "tiny", "b", "none"], K=2)
    assert (found.assignment[slide_of == 1] == -1).all()
    assert (found.assignment[slide_of != 1] >= 0).all()
    assert found.neighbors.tolist() == [[2, -1], [-1, -1], [0, -1], [-1, -1]]
    assert not found.centers[[1, 3]].any()
    assert (found.matches[[1, 3]] == -1).all()


def test_all_slides_too_small():
    found = cluster(np.ones((2, 3)), np.array([0, 1]), ["a", "b"])
    assert (found.assignment == -1).all()
    assert (found.neighbors == -1).all()


@pytest.mark.parametrize(
    ("least", "has"),
    [(None, "1110"), (1, "1110"), (4, "1110"), (5, "1010"), (7, "1000"), (9, "0000")],
)
def test_slides_of_too_few_regions_get_no_prototypes(least, has):
    """Slides of 8, 4, 6 and 1 regions, two prototypes each."""
    embeddings, slide_of = np.random.default_rng(0).normal(size=(19, 5)), np.repeat([0, 1, 2, 3], [8, 4, 6, 1])
    found, has = cluster(embeddings, slide_of, list("abcd"), min_regions=least), np.array(list(has)) == "1"
    np.testing.assert_array_equal(found.centers.any((1, 2)), has)
    np.testing.assert_array_equal(found.assignment >= 0, has[slide_of])
    np.testing.assert_array_equal(found.neighbors[:, 0] >= 0, has & (has.sum() > 1))
    assert has[found.neighbors[found.neighbors >= 0]].all()
    assert np.isfinite(found.centers).all()


def test_slides_of_a_patient_are_no_neighbors():
    """A slide without prototypes stands between them: patients are those of the slides, not of the clustered ones."""
    embeddings, slide_of = np.random.default_rng(0).normal(size=(21, 5)), np.repeat([0, 1, 2, 3, 4], [5, 1, 5, 5, 5])
    ids, group = list("abcde"), np.array([6, 8, 6, 8, 6])
    found = cluster(embeddings, slide_of, ids, K=3, groups=group)
    assert [sorted(row) for row in found.neighbors.tolist()] == [
        [-1, -1, 3],
        [-1] * 3,
        [-1, -1, 3],
        [0, 2, 4],
        [-1, -1, 3],
    ]
    assert (cluster(embeddings, slide_of, ids, groups=np.zeros(5, int)).neighbors == -1).all()
    assert sorted(cluster(embeddings, slide_of, ids, K=3).neighbors[0]) == [2, 3, 4]


def test_partners_may_be_shared():
    rng = np.random.default_rng(0)
    embeddings, slide_of = rng.normal(size=(60, 5)), np.repeat(np.arange(6), 10)
    optimal, nearest = (
        cluster(embeddings, slide_of, list("abcdef"), M=3, matching=way) for way in ("optimal", "nearest")
    )
    np.testing.assert_array_equal(optimal.neighbors, nearest.neighbors)
    assert (np.sort(optimal.matches, axis=2) == np.arange(3)).all()
    assert (np.sort(nearest.matches, axis=2) != np.arange(3)).any()
    for slide, (neighbor,) in enumerate(nearest.neighbors):
        a, b = (
            nearest.centers[one] / np.linalg.norm(nearest.centers[one], axis=1)[:, None] for one in (slide, neighbor)
        )
        np.testing.assert_array_equal(nearest.matches[slide, 0], (a @ b.T).argmax(1))


def test_all_regions_as_one_slide_are_clustered_globally():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(40, 6)) * 20
    embeddings = np.repeat(kinds, 50, axis=0) + rng.normal(size=(2000, 6)) * 0.01
    found = cluster(embeddings, np.zeros(2000, int), ["all"], M=200, K=2)
    assert found.centers.shape == (1, 200, 6)
    distance = np.linalg.norm(embeddings - found.centers[0, found.assignment], axis=1)
    assert np.median(distance) < 0.1
    assert (found.neighbors == -1).all()
    assert (found.matches == -1).all()
    assert prototypes.reassigned_fraction(found, found, np.zeros(2000, int)) == 0


def test_no_slides_and_no_regions():
    found = cluster(np.ones((0, 3)), np.zeros(0, int), ["a", "b"])
    assert found.centers.shape == (2, 2, 3)
    assert (found.neighbors == -1).all()
    assert cluster(np.ones((0, 3)), np.zeros(0, int), []).centers.shape == (0, 2, 3)


def test_moving_counts_regions_not_names():
    embeddings, slide_of = np.random.default_rng(0).normal(size=(20, 5)), np.repeat([0, 1], 10)
    before = cluster(embeddings, slide_of, ["a", "b"])
    swapped = prototypes.Prototypes(before.centers[:, ::-1], 1 - before.assignment, before.neighbors, before.matches)
    assert prototypes.reassigned_fraction(before, swapped, slide_of) == 0
    one = before.assignment.copy()
    one[3] = 1 - one[3]
    moved = prototypes.Prototypes(before.centers, one, before.neighbors, before.matches)
    assert prototypes.reassigned_fraction(before, moved, slide_of) == pytest.approx(1 / 20)


def test_a_turn_of_the_embedding_space_moves_no_region():
    """Every axis turned by 90 degrees in its plane: the new centers are nearest, by cosine, to the wrong old ones."""
    rng, slide_of = np.random.default_rng(0), np.repeat([0, 1], 12)
    angles = np.tile(np.array([0, 90, 180, 270]), 6) * np.pi / 180
    embeddings = 10 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + rng.normal(size=(24, 2)) * 0.1
    before = cluster(embeddings, slide_of, ["a", "b"], M=4)
    after = cluster(embeddings @ np.array([[0.0, 1.0], [-1.0, 0.0]]), slide_of, ["a", "b"], M=4, epoch=1)
    assert len(set(before.assignment[:12])) == 4
    assert prototypes.reassigned_fraction(before, after, slide_of) == 0


def test_no_prototypes_no_moves():
    none = cluster(np.ones((2, 3)), np.array([0, 1]), ["a", "b"])
    assert np.isnan(prototypes.reassigned_fraction(none, none, np.array([0, 1])))


def test_a_stain_of_whole_slides_does_not_say_which_are_similar_once_they_are_centred():
    """Slides 0 and 2, 1 and 3 have the same two kinds of region; 0 and 1, 2 and 3 the same large offset."""
    rng = np.random.default_rng(0)
    kinds, offsets = rng.normal(size=(2, 2, 6)), 10 * rng.normal(size=(2, 6))
    slide_of = np.repeat(np.arange(4), 8)
    kind, offset = kinds[slide_of % 2, np.arange(32) % 2], offsets[slide_of // 2]
    embeddings = (kind + offset + 0.01 * rng.normal(size=(32, 6))).astype(np.float32)
    given = {"M": 2, "K": 1, "restarts": 3, "iterations": 5, "seed": 1, "epoch": 0}
    ids = ["a", "b", "c", "d"]
    as_they_are = prototypes.cluster_slides(embeddings, slide_of, ids, **given)
    centered = prototypes.cluster_slides(embeddings, slide_of, ids, center_slides=True, **given)
    assert as_they_are.neighbors[:, 0].tolist() == [1, 0, 3, 2]
    assert centered.neighbors[:, 0].tolist() == [2, 3, 0, 1]
    np.testing.assert_array_equal(centered.centers, as_they_are.centers)
    for slide, near in enumerate([2, 3, 0, 1]):  # matched by kind
        own, theirs = (centered.centers[number] - offsets[number // 2] for number in (slide, near))
        np.testing.assert_allclose(own, theirs[centered.matches[slide, 0]], atol=0.05)


def test_no_slide_is_centred_where_none_has_prototypes():
    found = prototypes.cluster_slides(
        np.zeros((2, 3), np.float32),
        np.arange(2),
        ["a", "b"],
        M=2,
        K=1,
        restarts=1,
        iterations=1,
        seed=1,
        epoch=0,
        center_slides=True,
    )
    assert (found.neighbors == -1).all()
