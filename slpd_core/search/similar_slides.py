"""Which slides of an index are similar to queries, and by which regions: ranked, and as tables."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from slpd_core.prototypes.ranking import SimilarSlides, search_slides
from slpd_core.search.search_index import PrototypeIndex

SIDES = ("query", "slide")


def rank_slides(
    queries: PrototypeIndex,
    index: PrototypeIndex,
    patients: Mapping[str, str],
    *,
    k: int = 5,
    exclude_same_patient: bool = False,
) -> SimilarSlides:
    """Find the slides of an index that are most similar to each query; no slide finds itself.

    Args:
        queries: Prototypes of the queries.
        index: Those of the cohort.
        patients: Patient of each slide.
        k: Slides to find per query.
        exclude_same_patient: Whether slides of the query's own patient are left out too.

    Returns:
        The slides, by their rows in the index.
    """
    slide_ids = [*index.slide_ids, *queries.slide_ids]
    names = [patients[slide] for slide in slide_ids] if exclude_same_patient else slide_ids
    groups = pd.factorize(np.array(names, object))[0]
    return search_slides(
        queries.prototypes, index.prototypes, k, query_groups=groups[len(index) :], groups=groups[: len(index)]
    )


def tabulate_slides(
    queries: PrototypeIndex,
    index: PrototypeIndex,
    similar: SimilarSlides,
    patients: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:
    """Tabulate the slides found, a row per query and slide.

    Args:
        queries, index, patients: As in `rank_slides`.
        similar: As it returns.
        labels: Of each task, the truth of slides by their id.

    Returns:
        query, rank (from 1), slide_id, similarity, same_patient, and a column per task: `label` of the task of that
        name, else label_{task}; "" where the slide has none.
    """
    columns = {"label" if task == "label" else f"label_{task}": of for task, of in labels.items()}
    rows = []
    for i, rank in np.argwhere(similar.indices >= 0).tolist():
        query, slide = queries.slide_ids[i], index.slide_ids[similar.indices[i, rank]]
        cells = (query, rank + 1, slide, similar.similarity[i, rank], patients[query] == patients[slide])
        rows.append((*cells, *(of.get(slide, "") for of in columns.values())))
    return pd.DataFrame(rows, columns=["query", "rank", "slide_id", "similarity", "same_patient", *columns])


def tabulate_regions(queries: PrototypeIndex, index: PrototypeIndex, similar: SimilarSlides) -> pd.DataFrame:
    """Tabulate the matched prototypes, a row per pair: those of the query's largest prototypes first.

    Args:
        queries, index: As in `rank_slides`.
        similar: As it returns.

    Returns:
        query, rank, slide_id and the cosine of the pair; of both sides (query_ and slide_) the number of the prototype,
        the fraction of the slide's regions that it stands for, and x and y of the region nearest to it, level-0 px.
    """
    rows = []
    for i, rank in np.argwhere(similar.indices >= 0).tolist():
        slide = int(similar.indices[i, rank])
        for prototype in np.argsort(-queries.sizes[i], kind="stable").tolist():
            cells = (queries.slide_ids[i], rank + 1, index.slide_ids[slide], similar.cosines[i, rank, prototype])
            partner = int(similar.matches[i, rank, prototype])
            rows.append(
                (*cells, *_describe_prototype(queries, i, prototype), *_describe_prototype(index, slide, partner))
            )
    of_sides = [f"{side}_{name}" for side in SIDES for name in ("prototype", "fraction", "x", "y")]
    return pd.DataFrame(rows, columns=["query", "rank", "slide_id", "cosine", *of_sides])


def _describe_prototype(index: PrototypeIndex, slide: int, prototype: int) -> tuple[int, float, int, int]:
    """Number of a prototype, its fraction of the slide's regions, x and y of the nearest region."""
    sizes, (x, y) = index.sizes[slide], index.coords[slide, prototype].tolist()
    return int(prototype), float(sizes[prototype] / sizes.sum()), x, y
