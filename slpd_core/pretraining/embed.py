"""Embeddings: every region of every slide through the pretrained teacher, whole grid."""

from pathlib import Path

import pandas as pd

from slpd_core import config, store
from slpd_core.pretraining import region_encoder
from slpd_core.pretraining.cohort import embed_regions, read_cohort
from slpd_core.runtime import log

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
    """Write one row a region: its slide, its upper left corner in level-0 px, its embedding."""
    cohort = read_cohort(ledger_path, tokens_dir)
    encoder, encoder_meta = region_encoder.load(encoder_path)
    embeddings = embed_regions(encoder.to(device), cohort.tokens, device, section.batch_size)
    frame = pd.DataFrame(
        {
            "slide_id": [cohort.slide_ids[slide] for slide in cohort.slide_of],
            "x": cohort.coords[:, 0],
            "y": cohort.coords[:, 1],
            "embedding": list(embeddings),
        }
    )
    inputs = (cohort.fingerprint, encoder_meta["fingerprint"])
    meta = store.provenance("embed", VERSION, section.model_dump(), *inputs) | {"embed_dim": encoder_meta["embed_dim"]}
    store.write_table(out_path, "embed", frame, meta)
    log.info("%s embeddings of %s", f"{len(frame):,}", encoder_meta["embed_dim"])
