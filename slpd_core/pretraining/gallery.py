"""The gallery: what a run learnt, as a picture: regions of the prototypes of some slides, and of those they match."""

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
    """The prototypes a run found in R regions of N slides; where it clusters the whole cohort as one, N is 1.

    titles: (N,), of the slides, and labels (N,). embeddings: float32 (R, D). slide_of: int64 (R,), row of titles.
    assignment: (R,), each region's prototype within its slide. nearest: (N,), the row of the most similar slide;
    matches: (N, M), the partner there of each prototype. -1 stands for none.
    """

    titles: list[str]
    labels: list[str]
    embeddings: np.ndarray
    slide_of: np.ndarray
    assignment: np.ndarray
    nearest: np.ndarray
    matches: np.ndarray

    def sizes(self, slide: int) -> np.ndarray:
        """Regions of each prototype of a slide: int64 (M,)."""
        own = self.assignment[(self.slide_of == slide) & (self.assignment >= 0)]
        return np.bincount(own, minlength=self.matches.shape[1])


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """As many of the items, evenly spaced and in their order; all where there are no more."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def pick_slides(labels: Sequence[str], candidates: Sequence[int], count: int) -> list[int]:
    """Up to `count` of the candidates, about equally many a label, spread over those of each; by label.

    candidates: rows of labels.
    """
    kinds = sorted({labels[slide] for slide in candidates})
    each = -(-count // max(1, len(kinds)))
    groups = [evenly_spaced([slide for slide in candidates if labels[slide] == kind], each) for kind in kinds]
    turns = [slide for turn in zip_longest(*groups) for slide in turn if slide is not None]
    return sorted(turns[:count], key=lambda slide: (labels[slide], slide))


def central_regions(embeddings: np.ndarray, members: np.ndarray) -> list[int]:
    """Of some rows of the embeddings (R, D) the TILES nearest to their mean, the nearest first."""
    if not len(members):
        return []
    own = embeddings[members]
    distance = np.linalg.norm(own - own.mean(0), axis=1)
    return members[np.argsort(distance, kind="stable")[:MAX_TILES]].tolist()


def show(found: PrototypeGallery, slide: int, prototypes: Iterable[int]) -> list[GalleryCell]:
    """A cell for each of some prototypes of a slide; an empty one for a prototype without regions."""
    in_slide = found.slide_of == slide
    members = [np.flatnonzero(in_slide & (found.assignment == prototype)) for prototype in prototypes]
    return [GalleryCell(central_regions(found.embeddings, own), len(own) / max(1, in_slide.sum())) for own in members]


def largest(sizes: np.ndarray, count: int) -> list[int]:
    """The prototypes with most regions, the largest first, none without any; sizes: (M,)."""
    order = np.argsort(-sizes, kind="stable")[:count]
    return order[sizes[order] > 0].tolist()


def plan_slides(found: PrototypeGallery, count: int) -> list[GalleryRow]:
    """Two strips for each of up to `count` slides: its largest prototypes; their partners in the most similar slide."""
    clustered = np.unique(found.slide_of[found.assignment >= 0]).tolist()
    strips = [] if clustered else [GalleryRow("No slide has prototypes: all have too few regions to cluster.", [])]
    for slide in pick_slides(found.labels, clustered, count):
        shown = largest(found.sizes(slide), MAX_COLUMNS)
        strips.append(GalleryRow(found.titles[slide], show(found, slide, shown)))
        near = int(found.nearest[slide])
        if near < 0:
            strips.append(GalleryRow("no other slide to compare it with", [], main=False))
            continue
        partners = found.matches[slide, shown].tolist()
        strips.append(GalleryRow(f"most similar slide: {found.titles[near]}", show(found, near, partners), main=False))
    return strips


def plan_cohort(found: PrototypeGallery) -> list[GalleryRow]:
    """The largest prototypes of a run that clusters the whole cohort as one, MAX_COLUMNS per row."""
    shown = largest(found.sizes(0), COHORT_PROTOTYPES)
    M = found.matches.shape[1]
    title = f"The {len(shown)} largest of {M} prototypes of all slides together, none of them matched"
    cells = show(found, 0, shown)
    rows = [cells[start : start + MAX_COLUMNS] for start in range(0, len(cells), MAX_COLUMNS)] or [[]]
    return [GalleryRow("" if number else title, row, main=not number) for number, row in enumerate(rows)]


def read_tiles(
    rows: Iterable[int],
    embed: pd.DataFrame,
    paths: Mapping[str, Path],
    regions_dir: Path,
    read_regions: ReadRegions,
) -> dict[int, np.ndarray]:
    """Thumbnails of regions, uint8 RGB (side, side, 3), side TILE_PX or that of a region still smaller, by their rows.

    rows: of embed. paths: slide → its file. What cannot be read is missing, with a warning.
    """
    tiles: dict[int, np.ndarray] = {}
    slides = [*embed.loc[sorted(set(rows))].groupby("slide_id")]
    for slide_id, own in progress(slides, len(slides), "gallery", "slides"):
        regions, _ = artifacts.read_regions(regions_dir / f"{slide_id}.h5")
        side = min(TILE_PX, regions.size_level0_px)
        small = replace(
            regions,
            coords=own[["x", "y"]].to_numpy(),
            size_px=side,
            target_mpp=regions.slide.mpp * regions.size_level0_px / side,
        )
        try:
            tiles.update(
                zip(
                    own.index,
                    read_regions(paths[slide_id], small, jpeg_scaled_decoding=True, raise_slide_error=True),
                    strict=False,
                )
            )
        except ValueError as error:
            log.warning("%s: no thumbnails: %s", slide_id, error)
    return tiles


def load_gallery(embed: pd.DataFrame, sheet: pd.DataFrame, prototypes_path: Path) -> tuple[PrototypeGallery, bool]:
    """What a run found, and whether it clustered the whole cohort as one.

    embed, sheet: the tables. Raises ValueError where the prototypes are of other regions than the embeddings.
    """
    arrays, _ = artifacts.read_arrays(prototypes_path, ("slides", "neighbors", "matches", "coords", "assignment"))
    if not np.array_equal(arrays["coords"].reshape(-1, 2), embed[["x", "y"]].to_numpy()):
        raise ValueError(f"{prototypes_path}: not the regions of the embeddings; run snakemake again to renew both")
    label_of = dict(zip(sheet["slide_id"], sheet["label"], strict=True))
    names = arrays["slides"].tolist()
    as_one = not set(names) <= label_of.keys()
    row = {name: number for number, name in enumerate(names)}
    slide_of = np.array([0 if as_one else row[name] for name in embed["slide_id"]], np.int64)
    labels = [label_of.get(name, "") for name in names]
    counts = np.bincount(slide_of, minlength=len(names)).tolist()
    found = PrototypeGallery(
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
    return found, as_one


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
    """Draw the gallery of the slides a run was trained on; one that cannot be read any more is shown by grey tiles.

    slide_paths: the file of each slide of the cohort.
    """
    sheet, _ = artifacts.read_table(sheet_path, "sheet")
    embed, _ = artifacts.read_table(embed_path, "embed")
    trained, _ = artifacts.read_arrays(prototypes_path, ("region_slide",))
    embed = embed[embed["slide_id"].isin(trained["region_slide"])].reset_index(drop=True)
    found, as_one = load_gallery(embed, sheet, prototypes_path)
    strips = plan_cohort(found) if as_one else plan_slides(found, section.n_slides)
    rows = [row for strip in strips for cell in strip.cells for row in cell.regions]
    tiles = read_tiles(rows, embed, slide_paths, regions_dir, read_regions)
    # 256 colours: a quarter of the bytes, and of stained tissue nothing is lost to the eye.
    artifacts.write_picture(out_path, draw_gallery(strips, tiles).quantize(256), optimize=True)
    log.info("%d strips, %d regions, %d of them read", len(strips), len(set(rows)), len(tiles))
