"""Tokens: every patch of a slide's regions, encoded by the frozen patch encoder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder_file import parse_metadata
from slpd_core.runtime import log, progress
from slpd_core.slides import token_cache
from slpd_core.slides.cohort_precision import format_encoder_meta, resolve_cohort_precision
from slpd_core.slides.patch_pixels import count_patches, record_mean_colors
from slpd_core.slides.tokenizer import RegionTokenizer, load_tokenizer
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.region_reader import iter_region_pixels

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


def _encode_slide(
    slide_path: Path,
    regions: artifacts.Regions,
    tokenizer: RegionTokenizer,
    tokens_path: Path,
    *,
    token_dim: int,
    provenance: artifacts.Meta,
    jpeg_scaled_decoding: bool,
    quarantine: tuple[type[Exception], ...],
    state_dir: Path | None,
) -> artifacts.Regions:
    """Write the tokens and mean colors of a slide's regions; return the regions, none if the slide is quarantined."""
    slide_id, patch_px = regions.slide.slide_id, tokenizer.patch_px
    mark_path = outages.name_mark(state_dir, slide_id, tokens_path)
    pixels = iter_region_pixels(
        slide_path,
        regions,
        jpeg_scaled_decoding=jpeg_scaled_decoding,
        raise_slide_error=OSError in quarantine,
        state_dir=state_dir,
    )
    shown = progress(pixels, len(regions.coords), slide_id, "regions")
    grid = regions.size_px // patch_px
    try:
        with artifacts.create_tokens(tokens_path, regions, grid, token_dim, provenance) as written:
            for i, tokens in enumerate(tokenizer(record_mean_colors(shown, patch_px, written.mean_color))):
                written.tokens[i] = tokens
        outages.note_read(mark_path)
    except SlideError as error:  # other errors, as of a full disk, are not the slide's
        if SlideError not in quarantine:
            raise
        regions = as_quarantined(regions, outages.explain(error, mark_path, slide_path))
        log.warning("quarantined: %s", regions.slide.reason)
    return regions


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
        regions = _encode_slide(
            slide_path,
            regions,
            load_tokenizer(weights_path, precision=precision, device=device, **options),
            tokens_path,
            token_dim=token_dim,
            provenance=provenance,
            jpeg_scaled_decoding=section.jpeg_scaled_decoding,
            quarantine=quarantine,
            state_dir=state_dir,
        )
        if cache_dir and len(regions.coords):
            token_cache.store(cache_dir, fingerprint, tokens_path)
    if not len(regions.coords):
        with artifacts.create_tokens(tokens_path, regions, grid, token_dim, provenance):
            pass
    artifacts.write_regions(encoded_path, regions, provenance)
