"""The pixels of a slide's regions, one after another, the next one read ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from slpd_core import artifacts
from slpd_core.wsi import identity
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.outages import catch_os_errors
from slpd_core.wsi.reader import Slide


def iter_regions(slide: Slide, regions: artifacts.Regions) -> Iterator[np.ndarray]:
    """Iterate over the pixels of an open slide's regions; the next one is read in the meantime.

    Args:
        slide: An open slide.
        regions: Its regions.

    Yields:
        uint8 RGB (size_px, size_px, 3) at target_mpp, in the order of the coordinates.

    Raises:
        SlideError: The slide's data are broken; names the position.
    """
    size = (regions.size_px, regions.size_px)
    with ThreadPoolExecutor(1) as thread:
        ahead = None
        for x, y in regions.coords.tolist():
            pixels = thread.submit(slide.read, (x, y), size, regions.target_mpp)
            if ahead is not None:
                yield ahead.result()
            ahead = pixels
        if ahead is not None:
            yield ahead.result()


def iter_region_pixels(
    slide_path: Path,
    regions: artifacts.Regions,
    *,
    jpeg_scaled_decoding: bool = True,
    raise_slide_error: bool = False,
    state_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """Iterate over the pixels of the regions of a slide's file, if it is still the same slide.

    An outage looks like a broken slide, but passes. So after a SlideError all of the file is read, and then the region
    once more.

    Args:
        slide_path: The file that the sheet names.
        regions: The regions, with the fingerprint of the slide that their tissue was found on.
        jpeg_scaled_decoding: As in `Slide`.
        raise_slide_error: Whether a file that cannot be read counts as a bad slide.
        state_dir: Folder of the slides' memos, see `identity.slide_fingerprint`.

    Yields:
        uint8 RGB (size_px, size_px, 3), in the order of the coordinates.

    Raises:
        SlideError: The slide is broken; an UnreadableSlideError if its file cannot be read and `raise_slide_error`.
        OSError: The file cannot be read, and not `raise_slide_error`.
        ValueError: The file is another slide than the one whose tissue was found.
    """
    done, reread = 0, False
    with catch_os_errors(slide_path, raise_slide_error=raise_slide_error):
        while done < len(regions.coords):
            if reread or regions.slide.fingerprint:
                check_unchanged(slide_path, regions.slide, None if reread else state_dir)
            rest = replace(regions, coords=regions.coords[done:])
            try:
                for pixels in _open_and_read(slide_path, rest, jpeg_scaled_decoding=jpeg_scaled_decoding):
                    yield pixels
                    done += 1
            except SlideError:
                if reread:
                    raise
                reread = True


def check_unchanged(slide_path: Path, slide: artifacts.SlideInfo, state_dir: Path | None) -> None:
    """Check that a file is still the slide whose tissue was found; without a memo all of it is read.

    Args:
        slide_path: The file that the sheet names.
        slide: The slide whose tissue was found.
        state_dir: Folder of the slides' memos; None reads the file.

    Raises:
        ValueError: It is another slide.
        OSError: The file cannot be read.
    """
    memo_path = state_dir and state_dir / f"{slide.slide_id}.json"
    if identity.slide_fingerprint(slide_path, memo_path) != slide.fingerprint and slide.fingerprint:
        raise ValueError(
            f"{slide_path}: replaced since the tissue of {slide.slide_id} was found; run snakemake again, it rebuilds "
            "the slide's stages"
        )


def _open_and_read(slide_path: Path, regions: artifacts.Regions, *, jpeg_scaled_decoding: bool) -> Iterator[np.ndarray]:
    info, scaled = regions.slide, jpeg_scaled_decoding
    with Slide(slide_path, info.mpp, jpeg_scaled_decoding=scaled, missing_tiles=info.missing_tiles) as slide:
        yield from iter_regions(slide, regions)
