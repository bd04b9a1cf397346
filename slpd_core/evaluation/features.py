"""Features that classifiers read, one slide at a time: region embeddings, patch tokens, their means or colors."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config

CACHE_BYTES = 1 << 30
ReadSlide = Callable[[str], np.ndarray]


def region_features(embed_path: Path, ledger: str = "") -> tuple[ReadSlide, str]:
    """Read region embeddings.

    Args:
        embed_path: The embeddings of a run.
        ledger: Fingerprint of the ledger that they must come from; "" to skip the check.

    Returns:
        A reader of a slide's embeddings, float32 (L, D), and the fingerprint of the table.

    Raises:
        ValueError: They were made from another ledger.
    """
    frame, meta = artifacts.read_table(embed_path, "embed")
    artifacts.check_ledger(embed_path, meta, ledger)
    slides = {slide_id: np.stack(rows["embedding"].to_list()) for slide_id, rows in frame.groupby("slide_id")}
    empty = np.empty((0, int(meta["embed_dim"])), np.float32)
    return lambda slide_id: slides.get(slide_id, empty), meta["fingerprint"]


class SlideCache:
    """Reads the patches of slides and keeps those that fit into CACHE_BYTES, as float16.

    The cache is one block of memory: slides that stay between slides that are freed would leave gaps that cost as much
    memory as the freed slides.

    Args:
        tokens_dir: Of {slide}.h5.
        kind: Array to read, "tokens" or the mean colors.
    """

    def __init__(self, tokens_dir: Path, kind: str) -> None:
        self.tokens_dir, self.kind = tokens_dir, kind
        self.scale = np.float32(1 / 255 if kind == "mean_color" else 1)
        self.block, self.used = np.empty(CACHE_BYTES // 2, np.float16), 0
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, slide_id: str) -> np.ndarray:
        """Read the patches of a slide; mean colors are scaled from 0..255 to 0..1.

        Args:
            slide_id: Of the slide.

        Returns:
            float32 (L, D).
        """
        patches = self.kept[slide_id] if slide_id in self.kept else self._read(slide_id)
        scaled: np.ndarray = np.multiply(patches, self.scale, dtype=np.float32)
        return scaled

    def _read(self, slide_id: str) -> np.ndarray:
        with artifacts.open_tokens(self.tokens_dir / f"{slide_id}.h5") as (opened, _):
            regions = getattr(opened, self.kind)
            end = self.used + regions.size
            if end > len(self.block):
                patches: np.ndarray = regions[()]
                return patches.reshape(-1, regions.shape[-1])
            array = self.block[self.used : end].reshape(regions.shape)
            if array.size:
                regions.read_direct(array)
        self.kept[slide_id], self.used = array.reshape(-1, array.shape[-1]), end
        return self.kept[slide_id]


def patch_features(
    tokens_dir: Path, slide_ids: list[str], ledger: pd.DataFrame, kind: str = "tokens"
) -> tuple[ReadSlide, str]:
    """Read all patches of slides.

    Args:
        tokens_dir: Of {slide}.h5.
        slide_ids: Slides to read.
        ledger: The ledger of the tokens.
        kind: "tokens", or "mean_color" for the mean RGB of each patch, scaled to 0..1.

    Returns:
        A reader of a slide's patches, float32 (L, D), and the fingerprint of all tokens.

    Raises:
        ValueError: A slide was quarantined with this patch encoder, or its tokens are not those of the ledger.
    """
    return SlideCache(tokens_dir, kind), _check_tokens(tokens_dir, slide_ids, ledger)


def mean_token_features(tokens_dir: Path, slide_ids: list[str], ledger: pd.DataFrame) -> tuple[ReadSlide, str]:
    """Read the mean token of each region; those that were read stay in memory.

    Args:
        tokens_dir, slide_ids, ledger: As in `patch_features`.

    Returns:
        A reader of a slide's regions, float32 (L, T), and the fingerprint of all tokens.

    Raises:
        ValueError: As in `patch_features`.
    """

    @cache
    def read(slide_id: str) -> np.ndarray:
        with artifacts.open_tokens(tokens_dir / f"{slide_id}.h5") as (opened, _):
            means: np.ndarray = opened.tokens[()].mean(1, dtype=np.float32)
        return means

    return read, _check_tokens(tokens_dir, slide_ids, ledger)


def _check_tokens(tokens_dir: Path, slide_ids: list[str], ledger: pd.DataFrame) -> str:
    """The fingerprint of the tokens of slides; raises ValueError where a slide lacks them or has others."""
    fingerprints = []
    ledger_fingerprints = dict(zip(ledger["slide_id"], ledger["fingerprint"], strict=True))
    for slide_id in sorted(slide_ids):
        path = tokens_dir / f"{slide_id}.h5"
        with artifacts.open_tokens(path) as (opened, meta):
            if opened.slide.status == artifacts.QUARANTINED:
                raise ValueError(
                    f"{path}: slide {slide_id} was quarantined with this patch encoder only ({opened.slide.reason}); "
                    f"{artifacts.rebuild_hint(path)}; or remove the slide from the sheet"
                )
            if meta["fingerprint"] != ledger_fingerprints.get(slide_id):
                raise ValueError(f"{path}: not the tokens of the ledger; {artifacts.rebuild_hint(path)}")
            fingerprints.append(meta["fingerprint"])
    return artifacts.fingerprint(*fingerprints)


def read_features(
    features: str, embed_path: Path | None, tokens_dir: Path, slide_ids: list[str], ledger_path: Path
) -> tuple[str, ReadSlide, str]:
    """Read the features that a row of the result table names.

    Args:
        features: As evaluate.classifiers names them.
        embed_path: Embeddings of the run of that name; None for features of patches.
        tokens_dir: Tokens of the patch encoder, for features of patches.
        slide_ids: Slides to read.
        ledger_path: The ledger of the tokens.

    Returns:
        Level of the features (region, patch or color), a reader of a slide's features, and their fingerprint.

    Raises:
        ValueError: They were made from another ledger, or a slide lacks them.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    if embed_path:
        return "region", *region_features(embed_path, meta["fingerprint"])
    if features in config.TOKEN_FEATURES:
        return "region", *mean_token_features(tokens_dir, slide_ids, ledger)
    kind = "mean_color" if features == config.COLOR_FEATURES else "tokens"
    return "color" if kind == "mean_color" else "patch", *patch_features(tokens_dir, slide_ids, ledger, kind)


def patch_encoder_meta(tokens_path: Path) -> artifacts.Meta:
    """Read the metadata of the patch encoder that made a tokens file.

    Args:
        tokens_path: {slide}.h5.

    Returns:
        Values of artifacts.ENCODER_META.
    """
    with artifacts.open_tokens(tokens_path) as (_, meta):
        return {key: meta[key] for key in artifacts.ENCODER_META}


def validated(read: ReadSlide) -> ReadSlide:
    """Wrap a reader of features so that a slide without any is an error.

    Args:
        read: Returns the features of a slide.

    Returns:
        The reader, which raises ValueError naming the slide.
    """

    def read_checked(slide_id: str) -> np.ndarray:
        slide = read(slide_id)
        if not len(slide):
            raise ValueError(
                f"slide {slide_id}: no features; delete its tokens or the run's embeddings, and run snakemake again"
            )
        return slide

    return read_checked
