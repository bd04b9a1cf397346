"""The stains of slides that are encoded: each slide's transform is fitted once, on a sample of its regions."""

from concurrent.futures import Future
from dataclasses import replace
from threading import Lock

import numpy as np

from slpd_core import artifacts
from slpd_core.runtime import log
from slpd_core.slides.stains import Method, StainTransform, fit_stains
from slpd_core.wsi.region_reader import RegionReader

SAMPLE_PX = 256  # side of a square that is sampled, at the target um/px
N_SAMPLES = 64  # squares of a slide
PIXEL_STEP = 5  # every fifth row and column of a square is sampled


def place_samples(regions: artifacts.Regions) -> artifacts.Regions:
    """Place the squares that a slide's stains are fitted on: evenly spaced over all of its regions.

    Args:
        regions: The slide's regions, at least one.

    Returns:
        At most N_SAMPLES squares to read.
    """
    grid = max(1, regions.size_px // SAMPLE_PX)
    side_px = min(SAMPLE_PX, regions.size_px)
    side = regions.size_level0_px * side_px / regions.size_px
    n_cells = len(regions.coords) * grid * grid
    # The fractional part of multiples of the golden ratio spreads the squares over rows and columns alike.
    spread = np.arange(N_SAMPLES) * ((1 + 5**0.5) / 2) % 1
    cells = np.unique((spread * n_cells).astype(np.int64)) if n_cells > N_SAMPLES else np.arange(n_cells)
    region, cell = np.divmod(cells, grid * grid)
    steps = np.rint(np.stack([cell % grid, cell // grid], axis=1) * side).astype(np.int64)
    coords = regions.coords[region] + steps
    return replace(regions.select(region), coords=coords, size_px=side_px, size_level0_px=round(side))


class SlideStains:
    """Transforms of stains, one per slide; several threads may ask for them at once.

    Args:
        method: "macenko" or "reinhard".
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._fits: dict[RegionReader, Future[StainTransform | None]] = {}
        self._lock = Lock()

    def normalize(self, reader: RegionReader, pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Normalize the stains of a region; those of a slide that cannot be fitted stay, with a warning.

        Args:
            reader: Of the region's slide.
            pixels: uint8 RGB (side, side, 3).
            out: Array of that shape to write to, which may be `pixels`; None: a new one.

        Returns:
            uint8 RGB (side, side, 3).

        Raises:
            SlideError, OSError, ValueError: As `RegionReader.read`, for every region of a slide whose sample failed.
        """
        transform = self._fit(reader)
        if transform is not None:
            return transform.apply(pixels, out)
        if out is None:
            return pixels
        out[:] = pixels
        return out

    def _fit(self, reader: RegionReader) -> StainTransform | None:
        with self._lock:
            if reader not in self._fits:
                future: Future[StainTransform | None] = Future()
                self._fits[reader] = future
                try:
                    future.set_result(self._fit_slide(reader))
                except Exception as error:  # of any kind: raised again here, and for the slide's other regions
                    future.set_exception(error)
        return self._fits[reader].result()

    def _fit_slide(self, reader: RegionReader) -> StainTransform | None:
        samples = reader.with_regions(place_samples(reader.regions))
        try:
            pixels = [samples.read(i)[::PIXEL_STEP, ::PIXEL_STEP] for i in range(len(samples.regions.coords))]
        finally:
            samples.close()
        transform = fit_stains(np.concatenate([sample.reshape(-1, 3) for sample in pixels]), self.method)
        slide_id = reader.regions.slide.slide_id
        if transform is None:
            log.warning("%s: no two stains found, its colors are not normalized", slide_id)
        return transform
