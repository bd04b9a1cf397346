"""Tokens: every patch of the slides' regions, encoded by the frozen patch encoder."""

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
from slpd_core.slides import kept_tokens, token_cache
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
        if SlideError not in quarantine:
            raise error
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
    """Encode the regions of slides: slide, index, mean colors, tokens; note the errors of slides.

    It ends at an error that does not quarantine its slide.
    """
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
                errors.setdefault(slide, error)
                if SlideError not in quarantine:
                    return  # what was read before it is still encoded
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


def _copy_encoded(slide: SlideTask, cache_dir: Path | None, kept_dir: Path | None) -> bool:
    """Take a slide's tokens from an earlier job; tell whether there were any."""
    fingerprint = slide.provenance["fingerprint"]
    if kept_dir and kept_tokens.restore(kept_dir, fingerprint, slide.regions, slide.tokens_path):
        return True
    return cache_dir is not None and token_cache.get(cache_dir, fingerprint, slide.regions, slide.tokens_path)


def _store_encoded(slide: SlideTask, cache_dir: Path | None, kept_dir: Path | None) -> None:
    """Keep a slide's tokens for later jobs."""
    if kept_dir:
        kept_tokens.keep(kept_dir, slide.tokens_path)
    if cache_dir:
        token_cache.store(cache_dir, slide.provenance["fingerprint"], slide.tokens_path)


def _write_encoded(
    slide: SlideTask, regions: artifacts.Regions, encoded_path: Path, encoder_meta: Mapping[str, Any]
) -> None:
    """Write the regions that were encoded, and the tokens of a slide without regions."""
    if not len(regions.coords):
        empty = replace(slide, regions=regions)
        with _create_tokens(empty, encoder_meta["patch_px"], encoder_meta["token_dim"]):
            pass
    artifacts.write_regions(encoded_path, regions, slide.provenance)


def run(
    *,
    slide_paths: Sequence[Path],
    regions_paths: Sequence[Path],
    weights_path: Path,
    tokens_paths: Sequence[Path],
    encoded_paths: Sequence[Path],
    section: config.TokenEncodingConfig,
    device: str,
    quarantine: tuple[type[Exception], ...],
    threads: int = 1,
    cache_dir: Path | None = None,
    state_dir: Path | None = None,
    kept_dir: Path | None = None,
) -> None:
    """Encode the regions of slides; one that cannot be read is quarantined with the reason and keeps none.

    Args:
        slide_paths: The files that the sheet names.
        regions_paths: Regions, one file per slide.
        weights_path: The patch encoder.
        tokens_paths: The files to write.
        encoded_paths: The encoded regions without tokens, to write for the ledger. Rebuilt tokens leave this small file
            the same, so Snakemake does not rerun the stages after the ledger.
        section: The stage's settings.
        device: "cpu" or "cuda".
        quarantine: Errors that quarantine a slide; others are raised.
        threads: Threads that read regions for a GPU; on a CPU one does.
        cache_dir: Cache that cohorts share, see `token_cache`.
        state_dir: Folder of memos and marks on the slides' files, and of the record of the cohort's precision.
        kept_dir: Folder from which a job that was stopped takes the slides that it has encoded, see `kept_tokens`.
    """
    encoder_meta = parse_metadata(artifacts.read_weights(weights_path)[1])
    precision = resolve_cohort_precision(
        section.precision,
        device=device,
        encoder_meta=encoder_meta,
        state_dir=state_dir,
        encoded_dir=encoded_paths[0].parent,
    )
    to_encode: dict[SlideTask, Path] = {}
    for slide_path, regions_path, tokens_path, encoded_path in zip(
        slide_paths, regions_paths, tokens_paths, encoded_paths, strict=True
    ):
        regions, regions_meta = artifacts.read_regions(regions_path)
        count_patches(regions_path, regions.size_px, encoder_meta["patch_px"])  # raises where patches do not fit
        slide = SlideTask(
            slide_path,
            regions,
            tokens_path,
            build_provenance(section.model_dump(), regions_meta, encoder_meta, precision),
        )
        if not len(regions.coords):
            _write_encoded(slide, regions, encoded_path, encoder_meta)
        elif _copy_encoded(slide, cache_dir, kept_dir):
            artifacts.write_regions(encoded_path, regions, slide.provenance)
        else:
            to_encode[slide] = encoded_path
    if not to_encode:
        return
    encoded = encode_slides(
        [*to_encode],
        load_tokenizer(
            weights_path,
            precision=precision,
            device=device,
            **section.model_dump(include={"batch_size", "compile"}),
        ),
        token_dim=encoder_meta["token_dim"],
        reading_threads=threads if device == "cuda" else 1,
        jpeg_scaled_decoding=section.jpeg_scaled_decoding,
        quarantine=quarantine,
        state_dir=state_dir,
    )
    with closing(encoded):
        for slide, regions in encoded:
            _write_encoded(slide, regions, to_encode[slide], encoder_meta)
            if len(regions.coords):
                _store_encoded(slide, cache_dir, kept_dir)
