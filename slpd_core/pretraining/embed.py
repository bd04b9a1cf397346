"""Embeddings: every region of every slide through the pretrained teacher, whole grid."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from slpd_core import config, store
from slpd_core.pretraining import region_encoder
from slpd_core.pretraining.cohort import admitted_slides, embed_regions, read_slide
from slpd_core.runtime import log, progress

VERSION = 1


def run(
    *,
    ledger_path: Path,
    tokens_dir: Path,
    encoder_path: Path,
    out_path: Path,
    section: config.Embed,
    device: str,
) -> None:
    """Write one row a region: its slide, its upper left corner in level-0 px, its embedding.

    One slide's tokens are in memory at a time.
    """
    slides, fingerprint = admitted_slides(ledger_path)
    encoder, encoder_meta = region_encoder.load(encoder_path)
    encoder = encoder.to(device)
    coords, embeddings = [], []
    for slide in progress(slides.to_dict("records"), len(slides), "embed", "slides"):
        tokens, corners = read_slide(tokens_dir, slide)
        coords.append(corners)
        embeddings.append(embed_regions(encoder, torch.from_numpy(tokens), device, section.batch_size))
    x, y = np.concatenate(coords).T
    ids = slides["slide_id"].repeat(slides["regions"]).to_numpy()
    frame = pd.DataFrame({"slide_id": ids, "x": x, "y": y, "embedding": list(np.concatenate(embeddings))})
    inputs = (fingerprint, encoder_meta["fingerprint"])
    meta = store.provenance("embed", VERSION, section.model_dump(), *inputs) | {"embed_dim": encoder_meta["embed_dim"]}
    store.write_table(out_path, "embed", frame, meta)
    log.info("%s embeddings of %s", f"{len(frame):,}", encoder_meta["embed_dim"])
