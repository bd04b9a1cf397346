"""The tokens of a cohort, once in memory, and the teacher's embeddings of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slpd_core import store
from slpd_core.pretraining.region_encoder import RegionEncoder


@dataclass(frozen=True)
class Cohort:
    """All regions of the slides the ledger admits, slide after slide.

    tokens: float16 (R, grid * grid, dim), CPU. slide_of: int64 (R,), index into slide_ids. coords: int64
    (R, 2), level-0 px. fingerprint: of the ledger, which covers all tokens.
    """

    tokens: torch.Tensor
    slide_of: np.ndarray
    coords: np.ndarray
    slide_ids: list[str]
    patient_ids: list[str]
    fingerprint: str

    @property
    def grid(self) -> int:
        """Side of a region in tokens."""
        return round(self.tokens.shape[1] ** 0.5)

    def sizes(self) -> np.ndarray:
        """Regions of each slide: int64 (N,)."""
        return np.bincount(self.slide_of, minlength=len(self.slide_ids))


def read_cohort(ledger_path: Path, tokens_dir: Path) -> Cohort:
    """Read the tokens of every slide whose status is ok.

    Raises ValueError naming the slide whose tokens are not those of the ledger, or of another shape.
    """
    ledger, meta = store.read_table(ledger_path, "ledger")
    slides = ledger[ledger["status"] == store.OK].reset_index(drop=True)
    if slides.empty:
        raise ValueError(f"{ledger_path}: no slide with status ok; the ledger's reasons say why")
    starts = np.concatenate([[0], slides["regions"].cumsum()])
    tokens = None
    coords = np.empty((starts[-1], 2), np.int64)
    for start, stop, slide in zip(starts, starts[1:], slides.to_dict("records"), strict=False):
        path = tokens_dir / f"{slide['slide_id']}.h5"
        with store.open_tokens(path) as (own, own_meta):
            if own_meta["fingerprint"] != slide["fingerprint"] or len(own.coords) != stop - start:
                raise ValueError(f"{path}: not the tokens the ledger admitted; run snakemake again to renew the ledger")
            if tokens is None:
                tokens = np.empty((starts[-1], *own.tokens.shape[1:]), np.float16)
            if own.tokens.shape[1:] != tokens.shape[1:]:
                raise ValueError(f"{path}: tokens {own.tokens.shape[1:]}, other slides have {tokens.shape[1:]}")
            own.tokens.read_direct(tokens, dest_sel=np.s_[start:stop])
        coords[start:stop] = own.coords
    slide_of = np.repeat(np.arange(len(slides)), slides["regions"])
    ids, patients = slides["slide_id"].tolist(), slides["patient_id"].tolist()
    return Cohort(torch.from_numpy(tokens), slide_of, coords, ids, patients, meta["fingerprint"])


@torch.inference_mode()
def embed_regions(encoder: RegionEncoder, tokens: torch.Tensor, device: str, batch_size: int = 64) -> np.ndarray:
    """Embeddings of whole regions, encoder in eval mode: float32 (R, embed_dim).

    tokens: float16 (R, grid * grid, dim).
    """
    grid = round(tokens.shape[1] ** 0.5)
    training, encoder = encoder.training, encoder.eval()
    embedded = [
        encoder(batch.to(device).float().view(len(batch), grid, grid, -1)).float().cpu()
        for batch in tokens.split(batch_size)
    ]
    encoder.train(training)
    return torch.cat(embedded).numpy()
