"""What a gallery shows: which slides, which of their prototypes, and the regions nearest to each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from slpd_core.drawing.gallery import MAX_COLUMNS, MAX_TILES, GalleryCell, GalleryRow

COHORT_PROTOTYPES = 3 * MAX_COLUMNS  # shown, at most, of a run that clusters the whole cohort as one

T = TypeVar("T")


@dataclass(frozen=True)
class PrototypeGallery:
    """The prototypes of a run: R regions of N slides; where it clusters the whole cohort as one, N is 1.

    Attributes:
        titles: (N,), of the slides.
        embeddings: float32 (R, D).
        slide_of: int64 (R,), row of titles.
        assignment: (R,), each region's prototype within its slide, -1 for none.
        nearest: (N,), the most similar slide, -1 for none.
        matches: (N, M), the partner there of each prototype, -1 for none.
    """

    titles: list[str]
    embeddings: np.ndarray
    slide_of: np.ndarray
    assignment: np.ndarray
    nearest: np.ndarray
    matches: np.ndarray

    def sizes(self, slide: int) -> np.ndarray:
        """Count the regions of each prototype of a slide.

        Args:
            slide: Row of titles.

        Returns:
            int64 (M,).
        """
        assigned = self.assignment[(self.slide_of == slide) & (self.assignment >= 0)]
        return np.bincount(assigned, minlength=self.matches.shape[1])


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Select items, evenly spaced and in their order.

    Args:
        items: To select from.
        count: At most.

    Returns:
        As many of the items, or all.
    """
    index = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in index]


def central_regions(embeddings: np.ndarray, members: np.ndarray) -> list[int]:
    """Select the regions nearest to their mean.

    Args:
        embeddings: (R, D).
        members: Rows of embeddings to select from.

    Returns:
        TILES of them at most, the nearest first.
    """
    if not len(members):
        return []
    vectors = embeddings[members]
    distance = np.linalg.norm(vectors - vectors.mean(0), axis=1)
    return [int(i) for i in members[np.argsort(distance, kind="stable")[:MAX_TILES]]]


def prototype_cells(gallery: PrototypeGallery, slide: int, prototypes: Iterable[int]) -> list[GalleryCell]:
    """Lay out a cell for each of some prototypes of a slide.

    Args:
        gallery: Of the run.
        slide: Row of titles.
        prototypes: Of the slide.

    Returns:
        Cells; one without regions for a prototype that has none.
    """
    in_slide = gallery.slide_of == slide
    members = [np.flatnonzero(in_slide & (gallery.assignment == prototype)) for prototype in prototypes]
    return [
        GalleryCell(central_regions(gallery.embeddings, rows), len(rows) / max(1, in_slide.sum())) for rows in members
    ]


def largest(sizes: np.ndarray, count: int) -> list[int]:
    """Select the prototypes with most regions.

    Args:
        sizes: (M,).
        count: At most.

    Returns:
        Those that have any, the largest first.
    """
    order = np.argsort(-sizes, kind="stable")[:count]
    return [int(i) for i in order[sizes[order] > 0]]


def plan_slides(gallery: PrototypeGallery, count: int) -> list[GalleryRow]:
    """Lay out two rows per slide: its largest prototypes, and their partners in the most similar slide.

    Args:
        gallery: Of the run.
        count: Slides at most.

    Returns:
        The rows.
    """
    clustered = np.unique(gallery.slide_of[gallery.assignment >= 0]).tolist()
    strips = [] if clustered else [GalleryRow("No slide has prototypes: all have too few regions to cluster.", [])]
    for slide in evenly_spaced(clustered, count):
        shown = largest(gallery.sizes(slide), MAX_COLUMNS)
        strips.append(GalleryRow(gallery.titles[slide], prototype_cells(gallery, slide, shown)))
        near = int(gallery.nearest[slide])
        if near < 0:
            strips.append(GalleryRow("no other slide to compare it with", [], main=False))
            continue
        partners = gallery.matches[slide, shown].tolist()
        strips.append(
            GalleryRow(
                f"most similar slide: {gallery.titles[near]}", prototype_cells(gallery, near, partners), main=False
            )
        )
    return strips


def plan_cohort(gallery: PrototypeGallery) -> list[GalleryRow]:
    """Lay out the largest prototypes of a run that clusters the whole cohort as one.

    Args:
        gallery: Of the run.

    Returns:
        Rows of MAX_COLUMNS cells.
    """
    shown = largest(gallery.sizes(0), COHORT_PROTOTYPES)
    M = gallery.matches.shape[1]
    title = f"The {len(shown)} largest of {M} prototypes of all slides together, none of them matched"
    cells = prototype_cells(gallery, 0, shown)
    rows = [cells[start : start + MAX_COLUMNS] for start in range(0, len(cells), MAX_COLUMNS)] or [[]]
    return [GalleryRow("" if i else title, row, main=not i) for i, row in enumerate(rows)]
