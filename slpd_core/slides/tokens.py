"""Tokens: every patch of a slide's regions, encoded by the frozen patch encoder."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder_file import parse_metadata
from slpd_core.runtime import log, progress
from slpd_core.slides import token_cache
from slpd_core.slides.cohort_precision import format_encoder_meta, resolve_cohort_precision
from slpd_core.slides.patch_pixels import count_patches, mean_colors
from slpd_core.slides.tokenizer import RegionTokenizer, load_tokenizer
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import RegionReader, read_regions_ahead

VERSION = 5


def as_quarantined(regions: artifacts.Regions, reason: str) -> artifacts.Regions:
    """Quarantine a slide.

    Args:
        regions: Its regions.
        reason: Why.

    Returns:
        The same slide, quarantined and without regions.
    """
    slide = replace(regions.slide, status=artifacts.QUARANTINED, reason=reason)
    return replace(regions, slide=slide, coords=regions.coords[:0], tissue_fraction=regions.tissue_fraction[:0])


def build_provenance(
    settings: Mapping[str, Any], regions_meta: artifacts.Meta, encoder_meta: Mapping[str, Any], precision: str
) -> artifacts.Meta:
    """Build the metadata of a slide's tokens.

    Args:
        settings: The stage's settings.
        regions_meta: Metadata of the regions.
        encoder_meta: Metadata of the patch encoder, as `encoders.patch_encoder_file.parse_metadata` returns.
        precision: Precision that the encoder runs in.

    Returns:
        The metadata.
    """
    inputs = (regions_meta["fingerprint"], encoder_meta["fingerprint"], precision)
    return artifacts.provenance("tokens", VERSION, dict(settings), *inputs) | {
        "precision": precision,
        **format_encoder_meta(encoder_meta),
    }


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


def encode_slides(
    slides: Sequence[SlideTask],
    tokenizer: RegionTokenizer,
    *,
    token_dim: int,
    reading_threads: int = 1,
    jpeg_scaled_decoding: bool = False,
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
        quarantine, state_dir: As in `run`.

    Yields:
        Each slide once it is written, with its regions; at last the quarantined ones, not written, without regions.

    Raises:
        SlideError: A slide is broken, and is not to be quarantined.
        OSError: A file cannot be read or written.
    """
    options = {"jpeg_scaled_decoding": jpeg_scaled_decoding, "raise_slide_error": OSError in quarantine}
    readers = {RegionReader(slide.slide_path, slide.regions, **options, state_dir=state_dir): slide for slide in slides}
    errors: dict[SlideTask, SlideError] = {}
    encoded = _encode_regions(readers, tokenizer, errors, threads=reading_threads, quarantine=quarantine)
    for slide, of_slide in groupby(encoded, key=itemgetter(0)):
        info, count = slide.regions.slide, len(slide.regions.coords)
        try:
            with _create_tokens(slide, tokenizer.patch_px, token_dim) as written:
                for _, i, colors, tokens in progress(of_slide, count, info.slide_id, "regions"):
                    written.mean_color[i], written.tokens[i] = colors, tokens
                if slide in errors:
                    raise errors[slide]  # so that no file is left
        except SlideError:
            if slide not in errors:
                raise
            continue
        outages.note_read(_mark_path(slide, state_dir))
        yield slide, slide.regions
    for slide, error in errors.items():
        reason = outages.explain(error, _mark_path(slide, state_dir), slide.slide_path)
        log.warning("quarantined: %s", reason)
        yield slide, as_quarantined(slide.regions, reason)


def _encode_regions(
    readers: Mapping[RegionReader, SlideTask],
    tokenizer: RegionTokenizer,
    errors: dict[SlideTask, SlideError],
    *,
    threads: int,
    quarantine: tuple[type[Exception], ...],
) -> Iterator[tuple[SlideTask, int, np.ndarray, np.ndarray]]:
    """Encode the regions of slides: slide, index, mean colors, tokens; note the errors of slides to be quarantined."""
    started: deque[tuple[SlideTask, int, np.ndarray]] = deque()

    def process(pixels: np.ndarray) -> tuple[np.ndarray | Tensor, np.ndarray]:
        pinned = tokenizer.pinned_like(pixels)
        colors = mean_colors(pixels, tokenizer.patch_px, copy_to=None if pinned is None else pinned.numpy())
        return pixels if pinned is None else pinned, colors

    def iter_read() -> Iterator[np.ndarray | Tensor]:
        for reader, i, result in read_regions_ahead(readers, process, threads=threads):
            slide = readers[reader]
            try:
                pixels, colors = result.result()
            except SlideError as error:  # other errors, as of a full disk, are not the slide's
                if SlideError not in quarantine:
                    raise
                errors.setdefault(slide, error)
            else:
                started.append((slide, i, colors))
                yield pixels

    for tokens in tokenizer(iter_read()):
        yield *started.popleft(), tokens


def _create_tokens(slide: SlideTask, patch_px: int, token_dim: int) -> AbstractContextManager[artifacts.Tokens]:
    grid = slide.regions.size_px // patch_px
    return artifacts.create_tokens(slide.tokens_path, slide.regions, grid, token_dim, slide.provenance)


def _mark_path(slide: SlideTask, state_dir: Path | None) -> Path | None:
    return outages.name_mark(state_dir, slide.regions.slide.slide_id, slide.tokens_path)


def run(
    *,
    slide_path: Path,
    regions_path: Path,
    weights_path: Path,
    tokens_path: Path,
    encoded_path: Path,
    section: config.TokenEncodingConfig,
    device: str,
    quarantine: tuple[type[Exception], ...],
    threads: int = 1,
    cache_dir: Path | None = None,
    state_dir: Path | None = None,
) -> None:
    """Encode a slide's regions; a slide that cannot be read is quarantined with the reason and keeps none.

    Args:
        slide_path: The file that the sheet names.
        regions_path: The slide's regions.
        weights_path: The patch encoder.
        tokens_path: The file to write.
        encoded_path: The encoded regions without tokens, to write for the ledger. Rebuilt tokens leave this small file
            the same, so Snakemake does not rerun the stages after the ledger.
        section: The stage's settings.
        device: "cpu" or "cuda".
        quarantine: Errors that quarantine the slide; others are raised.
        threads: Threads that read regions for a GPU; on a CPU one does.
        cache_dir: Cache that cohorts share, see `token_cache`.
        state_dir: Folder of memos and marks on the slides' files, and of the record of the cohort's precision.
    """
    regions, regions_meta = artifacts.read_regions(regions_path)
    encoder_meta = parse_metadata(artifacts.read_weights(weights_path)[1])
    token_dim = encoder_meta["token_dim"]
    grid = count_patches(regions_path, regions.size_px, encoder_meta["patch_px"])
    precision = resolve_cohort_precision(
        section.precision,
        device=device,
        encoder_meta=encoder_meta,
        state_dir=state_dir,
        encoded_dir=encoded_path.parent,
    )
    provenance = build_provenance(section.model_dump(), regions_meta, encoder_meta, precision)
    fingerprint = provenance["fingerprint"]
    if len(regions.coords) and not (cache_dir and token_cache.get(cache_dir, fingerprint, regions, tokens_path)):
        options = section.model_dump(include={"batch_size", "compile"})
        encoded = encode_slides(
            [SlideTask(slide_path, regions, tokens_path, provenance)],
            load_tokenizer(weights_path, precision=precision, device=device, **options),
            token_dim=token_dim,
            reading_threads=threads if device == "cuda" else 1,
            jpeg_scaled_decoding=section.jpeg_scaled_decoding,
            quarantine=quarantine,
            state_dir=state_dir,
        )
        with closing(encoded):
            _, regions = next(encoded)
        if cache_dir and len(regions.coords):
            token_cache.store(cache_dir, fingerprint, tokens_path)
    if not len(regions.coords):
        with artifacts.create_tokens(tokens_path, regions, grid, token_dim, provenance):
            pass
    artifacts.write_regions(encoded_path, regions, provenance)
