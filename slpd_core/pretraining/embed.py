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
    """Write one row a region: its slide, its upper left corner in level-0 px, its embedding.

    If asked for, also `attention`, float32 (grid * grid,), how much [CLS] attends to each of its tokens, row-major. One
    slide's tokens are in memory at a time.

    cohort_ledger_path: of the slides that the encoder was trained on. Raises ValueError where it was trained on others,
    or the embeddings of a slide are not finite.
    """
    slides, fingerprint = usable_slides(ledger_path)
    encoder, encoder_meta = region_encoder.read_region_encoder(encoder_path)
    artifacts.check_ledger(
        encoder_path, encoder_meta, artifacts.read_table(cohort_ledger_path, "ledger")[1]["fingerprint"]
    )
    encoder = encoder.to(device)
    size = None if section.batch_size == "auto" else section.batch_size
    coords, found = [], []

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat(encoder.forward_with_attention(tokens), 1) if section.attention else encoder(tokens)

    for slide in progress(slides.to_dict("records"), len(slides), "embed", "slides"):
        tokens, corners = read_slide(tokens_dir, slide)
        coords.append(corners)
        found.append(embed_regions(embed, torch.from_numpy(tokens), device, size))
        if not np.isfinite(found[-1]).all():
            raise ValueError(
                f"slide {slide['slide_id']}: embeddings not finite; {artifacts.rebuild_hint(encoder_path)}"
            )
    x, y = np.concatenate(coords).T
    embeddings, attention = np.split(np.concatenate(found), [int(encoder_meta["embed_dim"])], axis=1)
    ids = slides["slide_id"].repeat(slides["regions"]).to_numpy()
    frame = pd.DataFrame({"slide_id": ids, "x": x, "y": y, "embedding": list(embeddings)})
    if section.attention:
        frame["attention"] = list(attention)
    inputs = (fingerprint, encoder_meta["fingerprint"])
    passed_on = {"embed_dim": encoder_meta["embed_dim"], "remarks": encoder_meta.get("remarks", "")}
    meta = artifacts.provenance("embed", VERSION, section.model_dump(), *inputs) | passed_on | {"ledger": fingerprint}
    artifacts.write_table(out_path, "embed", frame, meta)
    log.info("%s embeddings of %s", f"{len(frame):,}", encoder_meta["embed_dim"])
