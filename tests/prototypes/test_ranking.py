"""Slides are ranked as by matching every pair, to the bit, and few pairs are matched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slpd_core as slpd
from slpd_core.prototypes import ranking
from slpd_core.prototypes.matching import match_pair, match_prototypes
from slpd_core.prototypes.ranking import search_slides


def rank_all(query, prototypes, allowed):
    """Every allowed slide, the most similar first, of equals the first: the oracle."""
    similarity = {i: match_prototypes(query, prototypes[i])[0] for i in np.flatnonzero(allowed).tolist()}
    return sorted(similarity.items(), key=lambda item: (-item[1], item[0]))


def check_as_by_matching_all(queries, prototypes, K, query_groups=None, groups=None):
    similar = search_slides(queries, prototypes, K, query_groups=query_groups, groups=groups)
    for q, query in enumerate(queries):
        allowed = np.ones(len(prototypes), bool) if groups is None else groups != query_groups[q]
        expected = rank_all(query, prototypes, allowed)[:K]
        none = K - len(expected)
        assert similar.indices[q].tolist() == [index for index, _ in expected] + [-1] * none
        np.testing.assert_array_equal(similar.similarity[q], [s for _, s in expected] + [np.nan] * none)
        for rank, (index, similarity) in enumerate(expected):
            partners, cosines = similar.matches[q, rank], similar.cosines[q, rank]
            np.testing.assert_array_equal(partners, match_prototypes(query, prototypes[index])[1])
            assert cosines.mean() == pytest.approx(similarity)
            paired = prototypes[index][partners]
            norms = np.linalg.norm(query, axis=1) * np.linalg.norm(paired, axis=1)
            np.testing.assert_allclose(cosines, (query * paired).sum(1) / np.maximum(norms, 1e-12), atol=1e-6)
        assert (similar.matches[q, len(expected) :] == -1).all()
        assert np.isnan(similar.cosines[q, len(expected) :]).all()


@pytest.mark.parametrize("M", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_is_that_of_matching_every_pair(M, dtype, monkeypatch):
    monkeypatch.setattr(ranking, "BOUNDED_SLIDES", 7)
    monkeypatch.setattr(ranking, "RANKED_QUERIES", 2)
    rng = np.random.default_rng(M)
    kinds = rng.normal(size=(3, 16))
    prototypes = (kinds[rng.integers(3, size=(40, M))] + 0.3 * rng.normal(size=(40, M, 16))).astype(dtype)
    queries = (prototypes[:5] + 0.1 * rng.normal(size=(5, M, 16))).astype(dtype)
    given_queries, given_prototypes = queries.copy(), prototypes.copy()
    check_as_by_matching_all(queries, prototypes, 6)
    groups = rng.integers(4, size=40)
    check_as_by_matching_all(queries, prototypes, 39, groups[:5], groups)
    np.testing.assert_array_equal(queries, given_queries)
    np.testing.assert_array_equal(prototypes, given_prototypes)


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_equals_are_in_the_order_of_the_slides(M, seed):
    """Axes and their opposites, some of no length: most similarities are shared by several slides."""
    rng = np.random.default_rng(seed)
    axes = np.eye(4, 5)[rng.integers(4, size=(30, M))] * rng.integers(-1, 3, (30, M, 1))
    check_as_by_matching_all(axes[:3], axes, 8)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_similarity_does_not_depend_on_the_order_of_prototypes_or_slides(M, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, M, 24)).astype(np.float32)
    similarity = match_pair(a, b)[0]
    assert match_pair(rng.permutation(a), rng.permutation(b))[0] == similarity == match_pair(b, a)[0]


@pytest.mark.parametrize("M", [2, 4, 9])
def test_permuted_copies_are_found_first(M):
    rng = np.random.default_rng(M)
    prototypes = rng.normal(size=(500, M, 24)).astype(np.float32)
    orders = {slide: rng.permutation(M) for slide in (90, 17, 333)}
    for slide, order in orders.items():
        prototypes[slide] = prototypes[41][order]
    similar = slpd.search_slides(prototypes[[41]], prototypes, 5)
    assert similar.indices[0, :4].tolist() == [17, 41, 90, 333]
    np.testing.assert_allclose(similar.similarity[0, :4], 1, rtol=1e-12)
    assert similar.similarity[0, 4] < 0.9
    for rank, slide in ((0, 17), (2, 90), (3, 333)):
        np.testing.assert_array_equal(orders[slide][similar.matches[0, rank]], range(M))


@given(st.integers(1, 8), st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_no_slide_is_more_similar_than_its_bound(M, D, seed):
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(12, M, D)) * 10.0 ** rng.integers(-4, 5, (12, M, 1))
    prototypes[3] = prototypes[0][::-1]
    prototypes[4, 0] = 0
    unit = ranking.normalize_vectors(prototypes[:2].astype(np.float32))
    bounds = ranking._bound_similarity(unit, prototypes)
    assert all(bounds[i, j] > match_pair(prototypes[i], prototypes[j])[0] for i, j in np.ndindex(2, 12))


@pytest.mark.parametrize("M", [4, 16])
def test_few_pairs_are_matched(M, monkeypatch):
    matched = []
    monkeypatch.setattr(ranking, "match_pair", lambda *pair: matched.append(1) or match_pair(*pair))
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(20, 64))
    prototypes = (kinds[rng.integers(20, size=(2000, M))] + rng.normal(size=(2000, M, 64))).astype(np.float32)
    search_slides(prototypes[:4], prototypes, 5)
    assert 20 <= len(matched) < 400  # of 8000


def test_without_slides_or_queries_nothing_is_found():
    none = np.empty((0, 2, 3), np.float32)
    assert search_slides(none, np.ones((4, 2, 3)), 2).indices.shape == (0, 2)
    similar = search_slides(np.ones((1, 2, 3)), none, 2)
    assert similar.indices.tolist() == [[-1, -1]]
    alone = search_slides(np.ones((1, 2, 3)), np.ones((1, 2, 3)), 1, query_groups=np.zeros(1), groups=np.zeros(1))
    assert alone.indices.tolist() == [[-1]]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"prototypes": np.ones((5, 3, 4))}, r"queries \(2, 2, 4\) and prototypes \(5, 3, 4\)"),
        ({"queries": np.ones((2, 4))}, r"queries \(2, 4\)"),
        ({"groups": np.ones(5)}, "give both or neither"),
        ({"groups": np.ones(4), "query_groups": np.ones(2)}, r"groups: \(4,\) for 5 slides"),
        ({"K": 0}, "K"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, what):
    valid = {"queries": np.ones((2, 2, 4)), "prototypes": np.ones((5, 2, 4)), "K": 1}
    with pytest.raises(ValueError, match=what):
        search_slides(**valid | arguments)
