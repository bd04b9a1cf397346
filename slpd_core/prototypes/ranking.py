"""Ranking: the slides most similar to a query by their prototypes; only what a bound does not exclude is matched."""

from bisect import insort
from dataclasses import dataclass

import numpy as np

from slpd_core.config import check_arguments
from slpd_core.config.base import Positive
from slpd_core.prototypes.clustering import parallel_map
from slpd_core.prototypes.matching import match_pair, normalize_vectors

BOUNDED_SLIDES = 256  # bounded at a time: their prototypes stay in cache
RANKED_QUERIES = 128  # at a time


@dataclass(frozen=True)
class SimilarSlides:
    """The K most similar slides of each of Q queries, most similar first.

    Attributes:
        indices: int64 (Q, K), -1 where fewer slides are allowed.
        similarity: float64 (Q, K), the mean cosine of matched prototypes (paper, eq. 3); nan for none.
        matches: int64 (Q, K, M), the partner of each of the query's prototypes there; -1 for none.
        cosines: float64 (Q, K, M), of the query's prototypes and their partners; nan for none.
    """

    indices: np.ndarray
    similarity: np.ndarray
    matches: np.ndarray
    cosines: np.ndarray


@check_arguments(K=Positive)
def search_slides(
    queries: np.ndarray,
    prototypes: np.ndarray,
    K: int,
    *,
    query_groups: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> SimilarSlides:
    """Find the K most similar slides of each query: exactly those, in their order, that `match_prototypes` gives.

    Args:
        queries: Prototypes of the slides to find others for, (Q, M, D).
        prototypes: Those of the slides to find, (N, M, D).
        K: Slides to find per query.
        query_groups: int64 (Q,), the group of each query, such as its patient; None: none has one.
        groups: int64 (N,), the group of each slide; a query finds no slide of its own group.

    Returns:
        The slides; of equals the one of the lower index comes first.

    Raises:
        ValueError: Shapes do not fit, or only one of the groups is given.
    """
    _check_shapes(queries, prototypes, query_groups, groups)
    (Q, M, _), unit = queries.shape, normalize_vectors(queries.astype(np.float32))
    similar = SimilarSlides(
        indices=np.full((Q, K), -1, np.int64),
        similarity=np.full((Q, K), np.nan),
        matches=np.full((Q, K, M), -1, np.int64),
        cosines=np.full((Q, K, M), np.nan),
    )
    for start in range(0, Q, RANKED_QUERIES):
        rows = slice(start, start + RANKED_QUERIES)
        bounds = _bound_similarity(unit[rows], prototypes)
        if query_groups is not None and groups is not None:
            bounds[query_groups[rows, None] == groups] = -np.inf
        for query, bound in enumerate(bounds, start):
            for rank, (negated, index, partners, cosines) in enumerate(_rank(queries[query], prototypes, bound, K)):
                similar.indices[query, rank], similar.similarity[query, rank] = index, -negated
                similar.matches[query, rank], similar.cosines[query, rank] = partners, cosines
    return similar


def _check_shapes(
    queries: np.ndarray, prototypes: np.ndarray, query_groups: np.ndarray | None, groups: np.ndarray | None
) -> None:
    """Raise ValueError where queries, slides and groups do not fit."""
    if queries.ndim != 3 or queries.shape[1:] != prototypes.shape[1:]:
        raise ValueError(
            f"queries {queries.shape} and prototypes {prototypes.shape}: give (Q, M, D) and (N, M, D), of one encoder "
            "and with equally many prototypes per slide"
        )
    if (query_groups is None) != (groups is None):
        raise ValueError("query_groups and groups: give both or neither")
    for name, array, slides in (("query_groups", query_groups, queries), ("groups", groups, prototypes)):
        if array is not None and array.shape != slides.shape[:1]:
            raise ValueError(f"{name}: {array.shape} for {len(slides)} slides; give one group per slide")


def _bound_similarity(unit: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Bound the similarity of queries and slides from above: unit vectors (Q, M, D), (N, M, D) → float32 (Q, N)."""
    (Q, M, D), N = unit.shape, len(prototypes)
    bounds, rows = np.empty((Q, N), np.float32), unit.reshape(-1, D)

    def bound(start: int) -> None:
        block = slice(start, start + BOUNDED_SLIDES)
        columns = prototypes[block].reshape(-1, D).astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("rd,rd->r", columns, columns))
        cosine = rows @ columns.T / np.maximum(norms, 1e-12)
        cosine = np.ascontiguousarray(cosine.reshape(Q, M, -1, M).transpose(1, 3, 0, 2))
        bounds[:, block] = np.minimum(_bound_sum(cosine), _bound_sum(cosine.swapaxes(0, 1)))

    parallel_map(bound, range(0, N, BOUNDED_SLIDES))
    bounds /= M
    bounds += 2 * (D + M) * np.finfo(np.float32).eps  # more than single precision rounds
    return bounds


def _bound_sum(cosine: np.ndarray) -> np.ndarray:
    """Bound the greatest sum of M entries, one in each row and column: (M, M, Q, n) → (Q, n).

    The greatest of each row; and where no row has its greatest in a column, what one has to give up to take it: the
    first reduction of rows and columns by the Hungarian method.
    """
    greatest = cosine.max(1)
    bound: np.ndarray = greatest.sum(0) + (cosine - greatest[:, None]).max(0).sum(0)
    return bound


def _rank(
    query: np.ndarray, prototypes: np.ndarray, bounds: np.ndarray, K: int
) -> list[tuple[float, int, np.ndarray, np.ndarray]]:
    """Rank the slides of a query (M, D), -inf in bounds (N,) for those that are not allowed.

    Matches slides in the order of their bounds, until the next is bounded below the K-th best. Returns minus the
    similarity, the index, the partners and their cosines of K slides, or of all that are allowed.
    """
    best: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    for index in np.argsort(-bounds, kind="stable").tolist():
        if bounds[index] == -np.inf or (len(best) == K and bounds[index] < -best[-1][0]):
            break
        similarity, partners, cosines = match_pair(query, prototypes[index])
        insort(best, (-similarity, index, partners, cosines))
        del best[K:]
    return best
