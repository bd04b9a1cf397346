"""Open every slide, and forecast the regions of all from those of a few."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import progress
from slpd_core.slides import regions, tissue
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import iter_region_pixels

NO_OUTLINES: Mapping[str, Path] = MappingProxyType({})
SAMPLED_SLIDES = 6  # whose tissue and regions are looked for


@dataclass(frozen=True)
class SlideProbe:
    """A slide's row of the sheet, and its header or the reason why it did not open.

    Attributes:
        row: The row.
        size_px: Level-0 width and height.
        mpp: um/px.
        bounds_xy: Corner of the scanned area, level-0 px.
        problem: Why it did not open; "" where it did.
        remarks: Sentences on a slide that opens.
    """

    row: dict[str, Any]
    size_px: tuple[int, int] = (0, 0)
    mpp: float = 0.0
    bounds_xy: tuple[int, int] = (0, 0)
    problem: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def slide_id(self) -> str:
        """Its id."""
        return str(self.row["slide_id"])

    @property
    def mm2(self) -> float:
        """Its area on the glass, mm2."""
        return self.size_px[0] * self.size_px[1] * self.mpp**2 / 1e6

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.row["path"])

    @property
    def sheet_mpp(self) -> float | None:
        """The sheet's um/px; None where it states none."""
        return None if np.isnan(self.row["mpp"]) else float(self.row["mpp"])


def probe_slides(
    sheet: pd.DataFrame, *, region_options: Mapping[str, Any], missing_tiles: str = "error", threads: int = 1
) -> list[SlideProbe]:
    """Open every slide of a sheet and resolve its um/px.

    Args:
        sheet: Rows with slide_id, path and mpp.
        region_options: The keywords of `select_regions`; a slide coarser than regions are read is a problem.
        missing_tiles: "error", or "white" for tiles that a plain TIFF leaves out.
        threads: Slides opened at a time.

    Returns:
        One probe per row.
    """

    def probe(row: dict[str, Any]) -> SlideProbe:
        unopened = SlideProbe(row)
        try:
            with Slide(unopened.path, unopened.sheet_mpp, missing_tiles=missing_tiles) as slide:
                info = artifacts.SlideInfo(
                    unopened.slide_id, artifacts.OK, "", *slide.size, slide.mpp, slide.mpp_source
                )
                regions.select_regions(artifacts.Tissue(info, ()), **region_options)
                return SlideProbe(row, slide.size, slide.mpp, slide.bounds_xy, remarks=slide.remarks)
        except (SlideError, OSError) as error:
            return replace(unopened, problem=str(error))

    rows = sheet.to_dict("records")
    with ThreadPoolExecutor(threads) as pool:
        return list(progress(pool.map(probe, rows), len(rows), "opening", "slides"))


@dataclass(frozen=True)
class CohortSample:
    """A few slides that stand for all.

    Attributes:
        slides: The slides.
        regions: Their regions.
        tissue_seconds: Seconds to find the tissue of one.
        read_seconds: Seconds to read a region.
    """

    slides: list[SlideProbe]
    regions: list[artifacts.Regions]
    tissue_seconds: float
    read_seconds: float

    def expected_regions(self, slides: Sequence[SlideProbe]) -> int:
        """Forecast the regions of slides by their area.

        Args:
            slides: The slides.

        Returns:
            Their regions, all together.
        """
        sampled = sum(len(regions.coords) for regions in self.regions)
        area = sum(slide.mm2 for slide in self.slides)
        return round(sampled * sum(slide.mm2 for slide in slides) / area)


def sample_cohort(
    slides: Sequence[SlideProbe],
    *,
    tissue_options: Mapping[str, Any],
    region_options: Mapping[str, Any],
    jpeg_scaled_decoding: bool = False,
    outlines: Mapping[str, Path] = NO_OUTLINES,
) -> CohortSample:
    """Find the tissue and regions of slides evenly spaced by size, and time the reading of a region.

    Args:
        slides: One or more that open.
        tissue_options: The keywords of `segment_file`, but for the outline's path.
        region_options: The keywords of `select_regions`.
        jpeg_scaled_decoding: Whether JPEG tiles are decoded at half size.
        outlines: By slide id, the outline by hand.

    Returns:
        The sample.
    """
    by_size = sorted(slides, key=lambda slide: (slide.mm2, slide.slide_id))
    picked = [by_size[i] for i in np.unique(np.linspace(0, len(by_size) - 1, SAMPLED_SLIDES).round().astype(int))]

    def iter_regions() -> Iterator[artifacts.Regions]:
        for slide in picked:
            mask_path = outlines.get(slide.slide_id)
            outlined, _ = tissue.segment_file(
                slide.slide_id, slide.path, slide.sheet_mpp, mask_path=mask_path, **tissue_options
            )
            yield regions.select_regions(outlined, **region_options)

    started = time.perf_counter()
    sampled = [*progress(iter_regions(), len(picked), "tissue", "slides")]
    tissue_seconds = (time.perf_counter() - started) / len(picked)
    return CohortSample(
        picked, sampled, tissue_seconds, _time_reading(picked, sampled, jpeg_scaled_decoding=jpeg_scaled_decoding)
    )


def _time_reading(
    slides: Sequence[SlideProbe], sampled: Sequence[artifacts.Regions], *, jpeg_scaled_decoding: bool
) -> float:
    """Seconds to read the middle region of the first slide that has one; 0 where none has."""
    for slide, of_slide in zip(slides, sampled, strict=True):
        if len(of_slide.coords):
            middle = slice(len(of_slide.coords) // 2, len(of_slide.coords) // 2 + 1)
            one = of_slide.select(middle)
            started = time.perf_counter()
            for _ in iter_region_pixels(
                slide.path, one, jpeg_scaled_decoding=jpeg_scaled_decoding, raise_slide_error=True
            ):
                return time.perf_counter() - started
    return 0.0
