"""Tokens: every patch of the slides' regions, encoded by the frozen patch encoder."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from slpd_core import artifacts, config
from slpd_core.encoders.patch_encoder_file import parse_metadata
from slpd_core.runtime import log, progress
from slpd_core.slides import kept_tokens, token_cache
from slpd_core.slides.cohort_precision import format_encoder_meta, resolve_cohort_precision
from slpd_core.slides.encoding import SlideTask, encode_slides
from slpd_core.slides.imported_tokens import import_slides
from slpd_core.slides.patch_pixels import count_patches
from slpd_core.slides.stains import REFERENCES
from slpd_core.slides.tokenizer import load_tokenizer

VERSION = 5


def build_provenance(
    settings: Mapping[str, Any],
    regions_meta: artifacts.Meta,
    encoder_meta: Mapping[str, Any],
    precision: str,
    features_path: Path | None = None,
) -> artifacts.Meta:
    """Build the metadata of a slide's tokens.

    Args:
        settings: The stage's settings.
        regions_meta: Metadata of the regions.
        encoder_meta: Metadata of the patch encoder, as `encoders.patch_encoder_file.parse_metadata` returns.
        precision: Precision that the encoder runs in.
        features_path: File of another tool's features that they are taken from.

    Returns:
        The metadata.
    """
    inputs = [regions_meta["fingerprint"], encoder_meta["fingerprint"], precision]
    inputs += [artifacts.file_fingerprint(features_path)] if features_path else []
    method = settings.get("stain_normalization")
    inputs += [json.dumps(REFERENCES[method])] if method else []
    return artifacts.provenance("tokens", VERSION, dict(settings), *inputs) | {
        "precision": precision,
        **format_encoder_meta(encoder_meta),
    }


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
        with empty.create(encoder_meta["patch_px"], encoder_meta["token_dim"]):
            pass
    artifacts.write_regions(encoded_path, regions, slide.provenance)


def run(
    *,
    slide_paths: Sequence[Path],
    regions_paths: Sequence[Path],
    weights_path: Path,
    tokens_paths: Sequence[Path],
    encoded_paths: Sequence[Path],
    features_paths: Sequence[str | Path | None] = (),
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
        features_paths: For source features the files of another tool, None for a slide that has none.
        section: The stage's settings.
        device: "cpu" or "cuda".
        quarantine: Errors that quarantine a slide; others are raised.
        threads: Threads that read regions for a GPU; on a CPU one does.
        cache_dir: Cache that cohorts share, see `token_cache`.
        state_dir: Folder of memos and marks on the slides' files, and of the record of the cohort's precision.
        kept_dir: Folder from which a job that was stopped takes the slides that it has encoded, see `kept_tokens`.
    """
    encoder_meta = parse_metadata(artifacts.read_weights(weights_path)[1])
    imported = encoder_meta["source"] == "features"
    precision = resolve_cohort_precision(
        "fp16" if imported else section.precision,
        device=device,
        encoder_meta=encoder_meta,
        state_dir=state_dir,
        encoded_dir=encoded_paths[0].parent,
    )
    settings = section.model_dump(exclude={"stain_normalization"} if imported else None)
    if imported and section.stain_normalization:
        log.warning("tokens.stain_normalization does nothing here: the features are another tool's")
    features = [Path(path) if path else None for path in features_paths] or [None] * len(slide_paths)
    files = zip(slide_paths, regions_paths, tokens_paths, encoded_paths, features, strict=True)
    encoded_by_slide, features_by_slide = {}, {}
    for slide_path, regions_path, tokens_path, encoded_path, features_path in files:
        regions, regions_meta = artifacts.read_regions(regions_path)
        count_patches(regions_path, regions.size_px, encoder_meta["patch_px"])  # raises where patches do not fit
        provenance = build_provenance(settings, regions_meta, encoder_meta, precision, features_path)
        slide = SlideTask(slide_path, regions, tokens_path, provenance)
        if not len(regions.coords):
            _write_encoded(slide, regions, encoded_path, encoder_meta)
        elif _copy_encoded(slide, cache_dir, kept_dir):
            artifacts.write_regions(encoded_path, regions, slide.provenance)
        else:
            encoded_by_slide[slide], features_by_slide[slide] = encoded_path, features_path
    if not encoded_by_slide:
        return
    options: dict[str, Any] = {"token_dim": encoder_meta["token_dim"], "quarantine": quarantine, "state_dir": state_dir}
    if imported:
        encoded = import_slides(features_by_slide, patch_px=encoder_meta["patch_px"], **options)
    else:
        tokenizer_options = section.model_dump(include={"batch_size", "compile"})
        encoded = encode_slides(
            [*encoded_by_slide],
            load_tokenizer(weights_path, precision=precision, device=device, **tokenizer_options),
            reading_threads=threads if device == "cuda" else 1,
            jpeg_scaled_decoding=section.jpeg_scaled_decoding,
            stain_normalization=section.stain_normalization,
            **options,
        )
    with closing(encoded):
        for slide, regions in progress(encoded, len(encoded_by_slide), "tokens", "slides"):
            _write_encoded(slide, regions, encoded_by_slide[slide], encoder_meta)
            if len(regions.coords):
                _store_encoded(slide, cache_dir, kept_dir)
