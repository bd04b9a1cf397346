"""Every slide opened, and the regions of a few counted to foretell those of all."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts, config
from slpd_core.runtime import progress
from slpd_core.slides import regions, tissue
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide, iter_region_pixels

NONE: Mapping[str, Path] = MappingProxyType({})
SAMPLED = 6  # slides whose tissue is sought


@dataclass(frozen=True)
class SlideProbe:
    """A slide's row of the sheet, and what opening it showed: its width and height, um/px; or why it did not open.

    bounds_xy: the corner of its scanned area, level-0 px. remarks: what to know of a slide that opens, a sentence each.
    """

    row: dict[str, Any]
    size_px: tuple[int, int] = (0, 0)
    mpp: float = 0.0
    bounds_xy: tuple[int, int] = (0, 0)
    problem: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def slide_id(self) -> str:
        """Its name."""
        return str(self.row["slide_id"])

    @property
    def mm2(self) -> float:
        """Its area on the glass."""
        return self.size_px[0] * self.size_px[1] * self.mpp**2 / 1e6

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.row["path"])

    @property
    def sheet_mpp(self) -> float | None:
        """The sheet's um/px, None without."""
        return None if np.isnan(self.row["mpp"]) else float(self.row["mpp"])


def open_all(sheet: pd.DataFrame, settings: config.Config, threads: int) -> list[SlideProbe]:
    """Open every slide of a sheet and find its um/px, several at a time."""

    def look_at(row: dict[str, Any]) -> SlideProbe:
        found = SlideProbe(row)
        try:
            with Slide(found.path, found.sheet_mpp, missing_tiles=settings.tissue.missing_tiles) as slide:
                info = artifacts.SlideInfo(found.slide_id, artifacts.OK, "", *slide.size, slide.mpp, slide.mpp_source)
                # Refuses a slide coarser than regions are read.
                regions.select_regions(artifacts.Tissue(info, ()), **settings.regions.model_dump())
                return SlideProbe(row, slide.size, slide.mpp, slide.bounds_xy, remarks=slide.remarks)
        except (SlideError, OSError) as error:
            return SlideProbe(row, problem=str(error))

    rows = sheet.to_dict("records")
    with ThreadPoolExecutor(threads) as pool:
        return list(progress(pool.map(look_at, rows), len(rows), "opening", "slides"))


@dataclass(frozen=True)
class CohortSample:
    """What a few slides say of all: their regions, the seconds their tissue took, those a region took to be read."""

    of: list[SlideProbe]
    regions: list[artifacts.Regions]
    tissue_seconds: float
    read_seconds: float

    def regions_of(self, slides: list[SlideProbe]) -> int:
        """The regions to expect of slides, by their area."""
        area = sum(slide.mm2 for slide in self.of)
        return round(sum(len(found.coords) for found in self.regions) * sum(slide.mm2 for slide in slides) / area)


def sample(slides: list[SlideProbe], settings: config.Config, outlines: Mapping[str, Path] = NONE) -> CohortSample:
    """Find the tissue and regions of slides evenly spaced by size, and read a region; slides: one or more that open."""
    by_size = sorted(slides, key=lambda slide: (slide.mm2, slide.slide_id))
    picked = [by_size[number] for number in np.unique(np.linspace(0, len(by_size) - 1, SAMPLED).round().astype(int))]
    started = time.perf_counter()
    found = [*progress(_regions(picked, settings, outlines), len(picked), "tissue", "slides")]
    spent = (time.perf_counter() - started) / len(picked)
    return CohortSample(picked, found, spent, _seconds_to_read(picked, found, settings.tokens.jpeg_scaled_decoding))


def _regions(
    slides: list[SlideProbe], settings: config.Config, outlines: Mapping[str, Path]
) -> Iterator[artifacts.Regions]:
    options = settings.tissue.model_dump(exclude={"masks"})
    for slide in slides:
        mask_path = outlines.get(slide.slide_id)
        segmented, _ = tissue.segment(slide.slide_id, slide.path, slide.sheet_mpp, mask_path=mask_path, **options)
        yield regions.select_regions(segmented, **settings.regions.model_dump())


def _seconds_to_read(slides: list[SlideProbe], found: list[artifacts.Regions], jpeg_scaled_decoding: bool) -> float:
    """Seconds to read a region, of the first slide that has one."""
    for slide, of_slide in zip(slides, found, strict=True):
        if len(of_slide.coords):
            middle = len(of_slide.coords) // 2
            one = artifacts.Regions(
                of_slide.slide,
                of_slide.coords[middle : middle + 1],
                of_slide.tissue_fraction[middle : middle + 1],
                of_slide.size_px,
                of_slide.size_level0_px,
                of_slide.target_mpp,
            )
            started = time.perf_counter()
            for _ in iter_region_pixels(slide.path, one, jpeg_scaled_decoding=jpeg_scaled_decoding, give_up=True):
                return time.perf_counter() - started
    return 0.0
