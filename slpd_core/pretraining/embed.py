"""Embeddings: every region of every slide through the pretrained teacher, whole grid."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from slpd_core import artifacts, config
from slpd_core.encoders import region_encoder
from slpd_core.pretraining.token_dataset import embed_regions, read_slide, usable_slides
from slpd_core.runtime import log, progress

VERSION = 4


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
    """Embed the regions of all slides, one slide's tokens in memory at a time; writes one row per region.

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
    slides, fingerprint = usable_slides(ledger_path)
    encoder, encoder_meta = region_encoder.read_region_encoder(encoder_path)
    artifacts.check_ledger(
        encoder_path, encoder_meta, artifacts.read_table(cohort_ledger_path, "ledger")[1]["fingerprint"]
    )
    encoder = encoder.to(device)
    size = None if section.batch_size == "auto" else section.batch_size
    coords, outputs = [], []

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat(encoder.forward_with_attention(tokens), 1) if section.attention else encoder(tokens)

    for slide in progress(slides.to_dict("records"), len(slides), "embed", "slides"):
        tokens, corners = read_slide(tokens_dir, slide)
        coords.append(corners)
        outputs.append(embed_regions(embed, torch.from_numpy(tokens), device, size))
        if not np.isfinite(outputs[-1]).all():
            raise ValueError(
                f"slide {slide['slide_id']}: embeddings not finite; {artifacts.rebuild_hint(encoder_path)}"
            )
    x, y = np.concatenate(coords).T
    embeddings, attention = np.split(np.concatenate(outputs), [int(encoder_meta["embed_dim"])], axis=1)
    ids = slides["slide_id"].repeat(slides["regions"]).to_numpy()
    frame = pd.DataFrame({"slide_id": ids, "x": x, "y": y, "embedding": list(embeddings)})
    if section.attention:
        frame["attention"] = list(attention)
    inputs = (fingerprint, encoder_meta["fingerprint"])
    passed_on = {"embed_dim": encoder_meta["embed_dim"], "remarks": encoder_meta.get("remarks", "")}
    meta = artifacts.provenance("embed", VERSION, section.model_dump(), *inputs) | passed_on | {"ledger": fingerprint}
    artifacts.write_table(out_path, "embed", frame, meta)
    log.info("%s embeddings of %s", f"{len(frame):,}", encoder_meta["embed_dim"])
