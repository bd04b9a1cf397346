"""The gallery: regions of the prototypes of some slides, and of those they match, as one image."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.drawing.gallery import MAX_COLUMNS, MAX_TILES, TILE_PX, GalleryCell, GalleryRow, draw_gallery
from slpd_core.runtime import log, progress

VERSION = 1
COHORT_PROTOTYPES = 3 * MAX_COLUMNS  # shown, at most, of a run that clusters the whole cohort as one

T = TypeVar("T")


class ReadRegions(Protocol):
    """Yields the pixels of a slide's regions; raises ValueError where the slide cannot be read."""

    def __call__(
        self, slide_path: Path, regions: artifacts.Regions, *, jpeg_scaled_decoding: bool, raise_slide_error: bool
    ) -> Iterator[np.ndarray]:
        """uint8 (side, side, 3) each."""
        ...


@dataclass(frozen=True)
class PrototypeGallery:
    """The prototypes of a run: R regions of N slides; where it clusters the whole cohort as one, N is 1.

    Attributes:
        titles: (N,), of the slides.
        labels: (N,).
        embeddings: float32 (R, D).
        slide_of: int64 (R,), row of titles.
        assignment: (R,), each region's prototype within its slide, -1 for none.
        nearest: (N,), the most similar slide, -1 for none.
        matches: (N, M), the partner there of each prototype, -1 for none.
    """

    titles: list[str]
    labels: list[str]
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


def pick_slides(labels: Sequence[str], candidates: Sequence[int], count: int) -> list[int]:
    """Pick slides, about equally many per label, evenly spaced among those of each.

    Args:
        labels: Of all slides.
        candidates: Rows of labels.
        count: At most.

    Returns:
        Rows of labels, by label.
    """
    kinds = sorted({labels[slide] for slide in candidates})
    each = -(-count // max(1, len(kinds)))
    groups = [evenly_spaced([slide for slide in candidates if labels[slide] == kind], each) for kind in kinds]
    turns = [slide for turn in zip_longest(*groups) for slide in turn if slide is not None]
    return sorted(turns[:count], key=lambda slide: (labels[slide], slide))


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
    for slide in pick_slides(gallery.labels, clustered, count):
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


def read_tiles(
    rows: Iterable[int],
    embed: pd.DataFrame,
    paths: Mapping[str, Path],
    regions_dir: Path,
    read_regions: ReadRegions,
) -> dict[int, np.ndarray]:
    """Read thumbnails of regions.

    Args:
        rows: Of embed.
        embed: The embeddings' table.
        paths: Slide -> its file.
        regions_dir: Of the slides' regions.
        read_regions: Reads their pixels.

    Returns:
        Row -> uint8 RGB (side, side, 3), TILE_PX wide or that of a still smaller region; a slide that cannot be read
        is missing, with a warning.
    """
    tiles: dict[int, np.ndarray] = {}
    slides = [*embed.loc[sorted(set(rows))].groupby("slide_id")]
    for slide_id, shown in progress(slides, len(slides), "gallery", "slides"):
        regions, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
        side = min(TILE_PX, regions.size_level0_px)
        small = replace(
            regions,
            coords=shown[["x", "y"]].to_numpy(),
            size_px=side,
            target_mpp=regions.slide.mpp * regions.size_level0_px / side,
        )
        try:
            tiles.update(
                zip(
                    shown.index,
                    read_regions(paths[slide_id], small, jpeg_scaled_decoding=True, raise_slide_error=True),
                    strict=False,
                )
            )
        except ValueError as error:
            log.warning("%s: no thumbnails: %s", slide_id, error)
    return tiles


def load_gallery(embed: pd.DataFrame, sheet: pd.DataFrame, prototypes_path: Path) -> tuple[PrototypeGallery, bool]:
    """Load the prototypes of a run.

    Args:
        embed: The embeddings' table.
        sheet: The sheet's.
        prototypes_path: Of the prototypes.

    Returns:
        The gallery, and whether the run clustered the whole cohort as one.

    Raises:
        ValueError: The prototypes are of other regions than the embeddings.
    """
    arrays, _ = artifacts.read_arrays(prototypes_path, ("slides", "neighbors", "matches", "coords", "assignment"))
    if not np.array_equal(arrays["coords"].reshape(-1, 2), embed[["x", "y"]].to_numpy()):
        raise ValueError(f"{prototypes_path}: not the regions of the embeddings; run snakemake again to renew both")
    label_of = dict(zip(sheet["slide_id"], sheet["label"], strict=True))
    names = arrays["slides"].tolist()
    as_one = not set(names) <= label_of.keys()
    row = {name: i for i, name in enumerate(names)}
    slide_of = np.array([0 if as_one else row[name] for name in embed["slide_id"]], np.int64)
    labels = [label_of.get(name, "") for name in names]
    counts = np.bincount(slide_of, minlength=len(names)).tolist()
    gallery = PrototypeGallery(
        titles=[
            f"{name} ({label}), {count} region{'s' * (count != 1)}"
            for name, label, count in zip(names, labels, counts, strict=True)
        ],
        labels=labels,
        embeddings=np.stack(embed["embedding"].to_list()) if len(embed) else np.empty((0, 1), np.float32),
        slide_of=slide_of,
        assignment=arrays["assignment"].astype(np.int64),
        nearest=arrays["neighbors"][:, 0],
        matches=arrays["matches"][:, 0],
    )
    return gallery, as_one


def run(
    *,
    sheet_path: Path,
    slide_paths: dict[str, Path],
    embed_path: Path,
    prototypes_path: Path,
    regions_dir: Path,
    out_path: Path,
    section: config.GalleryConfig,
    read_regions: ReadRegions,
) -> None:
    """Draw the gallery of the slides a run was trained on.

    Args:
        sheet_path: Of the sheet.
        slide_paths: Slide -> its file; one that cannot be read any more is shown by gray tiles.
        embed_path: Of the embeddings.
        prototypes_path: Of the prototypes.
        regions_dir: Of the slides' regions.
        out_path: Of the image.
        section: Settings of the stage.
        read_regions: Reads the pixels of a slide's regions.
    """
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    embed, _ = artifacts.read_table(embed_path, "embed")
    trained, _ = artifacts.read_arrays(prototypes_path, ("region_slide",))
    embed = embed[embed["slide_id"].isin(trained["region_slide"])].reset_index(drop=True)
    gallery, as_one = load_gallery(embed, sheet, prototypes_path)
    strips = plan_cohort(gallery) if as_one else plan_slides(gallery, section.n_slides)
    rows = [row for strip in strips for cell in strip.cells for row in cell.regions]
    tiles = read_tiles(rows, embed, slide_paths, regions_dir, read_regions)
    # 256 colours: a quarter of the bytes, and of stained tissue nothing is lost to the eye.
    artifacts.write_picture(out_path, draw_gallery(strips, tiles).quantize(256), optimize=True)
    log.info("%d strips, %d regions, %d of them read", len(strips), len(set(rows)), len(tiles))
