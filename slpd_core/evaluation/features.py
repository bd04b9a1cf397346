"""Features: a slide's regions or patches as a classifier reads them, one slide at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from slpd_core import artifacts, config

CACHE_BYTES = 1 << 30
ReadSlide = Callable[[str], np.ndarray]


def region_features(embed_path: Path, ledger: str = "") -> tuple[ReadSlide, str]:
    """How to read a slide's region embeddings, float32 (L, D), and the fingerprint of them all.

    ledger: the fingerprint of the one they come from, if known. Raises ValueError where they were made from another.
    """
    frame, meta = artifacts.read_table(embed_path, "embed")
    artifacts.check_ledger(embed_path, meta, ledger)
    slides = {slide_id: np.stack(rows["embedding"].to_list()) for slide_id, rows in frame.groupby("slide_id")}
    none = np.empty((0, int(meta["embed_dim"])), np.float32)
    return lambda slide_id: slides.get(slide_id, none), meta["fingerprint"]


class SlideCache:
    """Reads all patches of a slide, float32 (L, D), when asked for; what fits into CACHE_BYTES stays, as float16.

    The cache is one block: slides that came and stayed in between those that go again would leave gaps that nothing
    else fits into, and cost as much memory as they hold.
    """

    def __init__(self, tokens_dir: Path, kind: str) -> None:
        self.tokens_dir, self.kind = tokens_dir, kind
        self.scale = np.float32(1 / 255 if kind == "mean_color" else 1)
        self.block, self.used = np.empty(CACHE_BYTES // 2, np.float16), 0
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, slide_id: str) -> np.ndarray:
        """Features of the slide; a color is brought from 0..255 to 0..1."""
        patches = self.kept[slide_id] if slide_id in self.kept else self._read(slide_id)
        return np.multiply(patches, self.scale, dtype=np.float32)

    def _read(self, slide_id: str) -> np.ndarray:
        with artifacts.open_tokens(self.tokens_dir / f"{slide_id}.h5") as (opened, _):
            regions = getattr(opened, self.kind)
            end = self.used + regions.size
            if end > len(self.block):
                return regions[()].reshape(-1, regions.shape[-1])
            place = self.block[self.used : end].reshape(regions.shape)
            if place.size:
                regions.read_direct(place)
        self.kept[slide_id], self.used = place.reshape(-1, place.shape[-1]), end
        return self.kept[slide_id]


def patch_features(
    tokens_dir: Path, slide_ids: list[str], ledger: pd.DataFrame, kind: str = "tokens"
) -> tuple[ReadSlide, str]:
    """How to read all patches of a slide, float32 (L, D), and the fingerprint of them all.

    ledger: of the tokens. kind: "tokens", or "mean_color" for the mean RGB of each, here 0..1. Raises ValueError naming
    a slide the patch encoder left out, or whose tokens are not those the ledger admitted.
    """
    read, prints = SlideCache(tokens_dir, kind), []
    admitted = dict(zip(ledger["slide_id"], ledger["fingerprint"], strict=True))
    for slide_id in sorted(slide_ids):
        path = tokens_dir / f"{slide_id}.h5"
        with artifacts.open_tokens(path) as (opened, meta):
            if opened.slide.status == artifacts.QUARANTINED:
                raise ValueError(
                    f"{path}: slide {slide_id} was quarantined with this patch encoder only ({opened.slide.reason}); "
                    f"{artifacts.rebuild_hint(path)}; or leave the slide out of the sheet"
                )
            if meta["fingerprint"] != admitted.get(slide_id):
                raise ValueError(f"{path}: not the tokens that the ledger admitted; {artifacts.rebuild_hint(path)}")
            prints.append(meta["fingerprint"])
    return read, artifacts.fingerprint(*prints)


def read_features(
    features: str, embed_path: Path | None, tokens_dir: Path, slide_ids: list[str], ledger_path: Path
) -> tuple[str, ReadSlide, str]:
    """What a row's features are of (region, patch or color), how to read a slide's, the fingerprint of them all.

    ledger_path: of the tokens that they come from. Raises ValueError where they are of another ledger.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    if embed_path:
        return "region", *region_features(embed_path, meta["fingerprint"])
    kind = "mean_color" if features == config.COLOR_FEATURES else "tokens"
    return "color" if kind == "mean_color" else "patch", *patch_features(tokens_dir, slide_ids, ledger, kind)


def patch_encoder_meta(tokens_path: Path) -> artifacts.Meta:
    """What a tokens file says of the patch encoder that made it: source and name."""
    with artifacts.open_tokens(tokens_path) as (_, meta):
        return {key: meta[key] for key in artifacts.ENCODER_META}


def validated(read: ReadSlide) -> ReadSlide:
    """The same reader; raises ValueError naming the slide that has no features (all that are written are finite)."""

    def read_checked(slide_id: str) -> np.ndarray:
        slide = read(slide_id)
        if not len(slide):
            raise ValueError(
                f"slide {slide_id}: no features; delete its tokens or the run's embeddings and run snakemake again"
            )
        return slide

    return read_checked
