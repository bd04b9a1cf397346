"""Embeddings: every region of every slide through the pretrained teacher, whole grid."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining.token_dataset import embed_regions, read_slide, usable_slides
from slpd_core.runtime import log, progress

VERSION = 4


def embed_slides(
    encoder: region_encoder.RegionEncoder,
    slides: pd.DataFrame,
    tokens_dir: Path,
    *,
    attention: bool = False,
    device: str = "cpu",
    batch_size: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed the regions of slides, one slide's tokens in memory at a time.

    Args:
        encoder: On the device.
        slides: Rows of the ledger.
        tokens_dir: Of the slides' tokens.
        attention: Whether to append the attention of [CLS] to each token.
        device: cpu or cuda.
        batch_size: Regions per pass; None to choose by memory.

    Yields:
        Per slide coords, int64 (L, 2), and embeddings, float32 (L, D), or (L, D + grid * grid) with attention.
    """

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat(encoder.forward_with_attention(tokens), 1) if attention else encoder(tokens)

    for slide in progress(slides.to_dict("records"), len(slides), "embed", "slides"):
        tokens, corners = read_slide(tokens_dir, slide)
        yield corners, embed_regions(embed, torch.from_numpy(tokens), device, batch_size)


def run(
    *,
    ledger_path: Path,
    cohort_ledger_path: Path,
    tokens_dir: Path,
    encoder_path: Path,
    out_path: Path,
    section: config.EmbedConfig,
    device: str,
) -> None:
    """Embed the regions of all slides, one slide's tokens in memory at a time; writes one row per region, or none.

    A row has its slide, its upper left corner in level-0 px and its embedding; if asked for, also `attention`, float32
    (grid * grid,), of [CLS] to each of its tokens, row-major.

    Args:
        ledger_path: Of the slides.
        cohort_ledger_path: Of the slides that the encoder was trained on.
        tokens_dir: Of the slides' tokens.
        encoder_path: Of the region encoder.
        out_path: Of the table.
        section: Settings of the stage.
        device: cpu or cuda.

    Raises:
        ValueError: The encoder was trained on other slides, or embeddings are not finite.
    """
    slides, fingerprint = usable_slides(ledger_path, may_be_none=True)
    encoder, encoder_meta = region_encoder.read_region_encoder(encoder_path)
    artifacts.check_ledger(
        encoder_path, encoder_meta, artifacts.read_table(cohort_ledger_path, "ledger")[1]["fingerprint"]
    )
    size = None if section.batch_size == "auto" else section.batch_size
    embedded = embed_slides(
        encoder.to(device), slides, tokens_dir, attention=section.attention, device=device, batch_size=size
    )
    embed_dim = int(encoder_meta["embed_dim"])
    coords, outputs = [], []
    for slide_id, (corners, output) in zip(slides["slide_id"], embedded, strict=True):
        if not np.isfinite(output).all():
            raise ValueError(f"slide {slide_id}: embeddings not finite; {artifacts.rebuild_hint(encoder_path)}")
        coords.append(corners)
        outputs.append(output)
    x, y = np.concatenate(coords or [np.empty((0, 2), np.int64)]).T
    embeddings, attention = np.split(np.concatenate(outputs or [np.empty((0, embed_dim))]), [embed_dim], axis=1)
    ids = slides["slide_id"].repeat(slides["regions"]).to_numpy()
    frame = pd.DataFrame({"slide_id": ids, "x": x, "y": y, "embedding": list(embeddings)})
    if section.attention:
        frame["attention"] = list(attention)
    inputs = (fingerprint, encoder_meta["fingerprint"])
    passed_on = {"embed_dim": encoder_meta["embed_dim"], "remarks": encoder_meta.get("remarks", "")}
    meta = artifacts.provenance("embed", VERSION, section.model_dump(), *inputs) | passed_on | {"ledger": fingerprint}
    artifacts.write_table(out_path, "embed", frame, meta)
    log.info("%s embeddings of %s", f"{len(frame):,}", encoder_meta["embed_dim"])
