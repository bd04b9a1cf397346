"""Encoding: the regions of slides, read ahead and turned into tokens; a slide that cannot be read is quarantined."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from torch import Tensor

from slpd_core import artifacts
from slpd_core.runtime import log, progress
from slpd_core.slides.patch_pixels import mean_colors
from slpd_core.slides.slide_stains import SlideStains
from slpd_core.slides.stains import Method
from slpd_core.slides.tokenizer import RegionTokenizer
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import RegionReader, read_regions_ahead


def as_quarantined(regions: artifacts.Regions, reason: str) -> artifacts.Regions:
    """Quarantine a slide.

    Args:
        regions: Its regions.
        reason: Why.

    Returns:
        The same slide, quarantined and without regions.
    """
    slide = replace(regions.slide, status=artifacts.QUARANTINED, reason=reason)
    return replace(regions.select(slice(0)), slide=slide)


@dataclass(frozen=True, eq=False)
class SlideTask:
    """A slide to encode.

    Attributes:
        slide_path: The file that the sheet names.
        regions: Its regions, at least one.
        tokens_path: The file to write.
        provenance: Metadata of its tokens.
    """

    slide_path: Path
    regions: artifacts.Regions
    tokens_path: Path
    provenance: artifacts.Meta

    @property
    def slide_id(self) -> str:
        """Id of the slide."""
        return self.regions.slide.slide_id

    def mark_path(self, state_dir: Path | None) -> Path | None:
        """Return the job's mark of failures to read the slide, in a folder of marks."""
        return outages.name_mark(state_dir, self.slide_id, self.tokens_path)

    def create(self, patch_px: int, token_dim: int) -> AbstractContextManager[artifacts.Tokens]:
        """Create the slide's tokens, to be filled region by region."""
        grid = self.regions.size_px // patch_px
        return artifacts.create_tokens(self.tokens_path, self.regions, grid, token_dim, self.provenance)


def quarantine_slide(slide: SlideTask, error: SlideError, state_dir: Path | None) -> artifacts.Regions:
    """Quarantine a slide with the reason of an error, which is logged.

    Args:
        slide: The slide.
        error: The error.
        state_dir: Folder of marks on failures to read; None keeps none.

    Returns:
        The slide without regions.
    """
    reason = outages.explain(error, slide.mark_path(state_dir), slide.slide_path)
    log.warning("quarantined: %s", reason)
    return as_quarantined(slide.regions, reason)


def encode_slides(
    slides: Sequence[SlideTask],
    tokenizer: RegionTokenizer,
    *,
    token_dim: int,
    reading_threads: int = 1,
    jpeg_scaled_decoding: bool = False,
    stain_normalization: Method | None = None,
    quarantine: tuple[type[Exception], ...] = (),
    state_dir: Path | None = None,
) -> Generator[tuple[SlideTask, artifacts.Regions], None, None]:
    """Write the tokens and mean colors of slides, whose regions are read ahead across slides.

    Args:
        slides: The slides.
        tokenizer: Encodes their regions.
        token_dim: Length of a token.
        reading_threads: Threads that read.
        jpeg_scaled_decoding: As in `Slide`.
        stain_normalization: "macenko" or "reinhard", applied to what is encoded, not to mean colors; None: none.
        quarantine: Errors that quarantine a slide; others are raised.
        state_dir: Folder of memos and marks on the slides' files.

    Yields:
        Each slide once it is written, with its regions; at last the quarantined ones, not written, without regions.

    Raises:
        SlideError: A slide is broken, and is not to be quarantined.
        OSError: A file cannot be read or written.
    """
    options = {"jpeg_scaled_decoding": jpeg_scaled_decoding, "raise_slide_error": OSError in quarantine}
    readers = {RegionReader(slide.slide_path, slide.regions, **options, state_dir=state_dir): slide for slide in slides}
    errors: dict[SlideTask, SlideError] = {}
    stains = SlideStains(stain_normalization) if stain_normalization else None
    encoded = _encode_regions(readers, tokenizer, errors, stains, threads=reading_threads, quarantine=quarantine)
    for slide, of_slide in groupby(encoded, key=itemgetter(0)):
        count = len(slide.regions.coords)
        try:
            with slide.create(tokenizer.patch_px, token_dim) as written:
                for _, i, colors, tokens in progress(of_slide, count, slide.slide_id, "regions"):
                    written.mean_color[i], written.tokens[i] = colors, tokens
                if slide in errors:
                    raise errors[slide]  # so that no file is left
        except SlideError:
            if slide not in errors:
                raise
            continue
        outages.note_read(slide.mark_path(state_dir))
        yield slide, slide.regions
    for slide, error in errors.items():
        if SlideError not in quarantine:
            raise error
        yield slide, quarantine_slide(slide, error, state_dir)


def _encode_regions(
    readers: Mapping[RegionReader, SlideTask],
    tokenizer: RegionTokenizer,
    errors: dict[SlideTask, SlideError],
    stains: SlideStains | None,
    *,
    threads: int,
    quarantine: tuple[type[Exception], ...],
) -> Iterator[tuple[SlideTask, int, np.ndarray, np.ndarray]]:
    """Encode the regions of slides: slide, index, mean colors, tokens; note the errors of slides.

    It ends at an error that does not quarantine its slide.
    """
    started: deque[tuple[SlideTask, int, np.ndarray]] = deque()

    def process(reader: RegionReader, pixels: np.ndarray) -> tuple[np.ndarray | Tensor, np.ndarray]:
        pinned = tokenizer.pinned_like(pixels)
        copy = None if pinned is None else pinned.numpy()
        colors = mean_colors(pixels, tokenizer.patch_px, copy_to=None if stains else copy)
        normalized = stains.normalize(reader, pixels, copy) if stains else pixels
        return normalized if pinned is None else pinned, colors

    def iter_read() -> Iterator[np.ndarray | Tensor]:
        for reader, i, result in read_regions_ahead(readers, process, threads=threads):
            slide = readers[reader]
            try:
                pixels, colors = result.result()
            except SlideError as error:  # other errors, as of a full disk, are not the slide's
                errors.setdefault(slide, error)
                if SlideError not in quarantine:
                    return  # what was read before it is still encoded
            else:
                started.append((slide, i, colors))
                yield pixels

    for tokens in tokenizer(iter_read()):
        yield *started.popleft(), tokens
