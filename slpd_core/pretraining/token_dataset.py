"""The tokens of a cohort's slides, and embeddings of them."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from slpd_core import artifacts
from slpd_core.runtime import log
from slpd_core.ssl import distributed

CPU_REGIONS, GPU_REGIONS = 64, 4096  # at most that go through an encoder at a time
ARRAYS_ALIVE = 16  # of the size of the tokens, in float32, that a pass has in memory at once, or fewer


@dataclass(frozen=True)
class TokenDataset:
    """All regions of the slides the ledger admits, slide after slide.

    tokens: float16 (R, grid, grid, dim), CPU. slide_of: int64 (R,), index into slide_ids. coords: int64 (R, 2),
    level-0 px. fingerprint: of the slides, which covers all tokens. labels: of the slides, to watch training by only.
    file: that the tokens are mapped from, by this and other processes, where they are not in memory. ledger: the
    fingerprint of the ledger.
    """

    tokens: torch.Tensor
    slide_of: np.ndarray
    coords: np.ndarray
    slide_ids: list[str]
    patient_ids: list[str]
    fingerprint: str
    labels: list[str]
    file: str | None = None
    ledger: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which maps the file of the tokens itself."""
        return vars(self) | ({"tokens": self.tokens.shape} if self.file else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["file"]:
            state["tokens"] = memmap_tokens(state["file"], state["tokens"])
        vars(self).update(state)

    def to(self, device: str) -> "TokenDataset":
        """The same, with its tokens on the device if half of its free memory holds them."""
        if device == "cpu" or self.tokens.nbytes > torch.cuda.mem_get_info()[0] / 2:
            return self
        return replace(self, tokens=self.tokens.to(device))


def usable_slides(ledger_path: Path) -> tuple[pd.DataFrame, str]:
    """The ledger's rows of the slides whose status is ok, and its fingerprint.

    Raises ValueError when there is none.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    slides = ledger[ledger["status"] == artifacts.OK].reset_index(drop=True)
    if slides.empty:
        raise ValueError(f"{ledger_path}: no slide with status ok; the ledger's reasons say why")
    return slides, meta["fingerprint"]


def training_slides(folds_path: Path, fold: int) -> set[str]:
    """Slide ids of the fold's training part, including `unlabeled` slides (pretraining uses no labels)."""
    folds, _ = artifacts.read_table(folds_path, "folds")
    return set(folds[(folds["fold"] == fold) & folds["part"].isin(artifacts.PRETRAINING_PARTS)]["slide_id"])


def read_slide(tokens_dir: Path, slide: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens float16 (L, grid, grid, dim) and coords int64 (L, 2) of one slide.

    slide: its row of the ledger. Raises ValueError naming the file whose tokens are damaged, are not those the ledger
    admitted, or are no square grid. They are finite: the tokens stage writes no others.
    """
    path = tokens_dir / f"{slide['slide_id']}.h5"
    with artifacts.open_tokens(path) as (own, meta):
        if meta["fingerprint"] != slide["fingerprint"] or len(own.coords) != slide["regions"]:
            raise ValueError(f"{path}: not the tokens the ledger admitted; run snakemake again to renew the ledger")
        tokens, coords = own.tokens[()], own.coords
    grid = math.isqrt(tokens.shape[1])
    if grid * grid != tokens.shape[1]:
        raise ValueError(
            f"{path}: {tokens.shape[1]} tokens a region are no square grid; {artifacts.rebuild_hint(path)}"
        )
    return tokens.reshape(len(tokens), grid, grid, -1), coords


def memmap_tokens(file: str, shape: tuple[int, ...]) -> torch.Tensor:
    """float16 of that shape in a file, made if need be; the system keeps in memory what it has room for.

    Raises OSError where the disk has no room: a file without its blocks would kill the process when they are missed.
    """
    size = 2 * math.prod(shape)
    if not Path(file).exists() and size:
        try:
            with open(file, "wb") as empty:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(empty.fileno(), 0, size)
        except OSError as error:
            raise OSError(
                f"{file}: no room for tokens of {size / 1e9:.1f} GB ({error.strerror}); set TMPDIR to a folder that "
                "has it, or give the job more memory"
            ) from error
    return torch.from_file(file, shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)


def read_token_dataset(
    ledger_path: Path,
    tokens_dir: Path,
    only: set[str] | None = None,
    memory_bytes: float = math.inf,
    scratch: Path | None = None,
) -> TokenDataset:
    """Read the tokens of every slide the ledger admits, once.

    only: the slide_ids to read, if not all. memory_bytes: up to which tokens are kept in memory; more are written to a
    file in `scratch` and mapped. Raises ValueError as `admitted_slides` and `read_slide` do, where none of `only` is
    admitted, and for a slide whose tokens have another shape than those of the first.
    """
    slides, ledger = usable_slides(ledger_path)
    fingerprint = ledger
    if only is not None:
        slides = slides[slides["slide_id"].isin(only)].reset_index(drop=True)
        if slides.empty:
            raise ValueError(
                f"{ledger_path}: none of the {len(only)} training slides of this fold has status ok; lower "
                "folds.n_folds, add slides, or set pretrain.train_on to all"
            )
        fingerprint = artifacts.fingerprint(fingerprint, *slides["slide_id"])
    starts = np.concatenate([[0], slides["regions"].cumsum()])
    tokens, file = torch.empty((starts[-1], 0, 0, 0), dtype=torch.float16), None
    coords = np.empty((starts[-1], 2), np.int64)
    ids, patients = slides["slide_id"].tolist(), slides["patient_id"].tolist()
    for start, slide in zip(starts, slides.to_dict("records"), strict=False):
        own, corners = read_slide(tokens_dir, slide)
        if start == 0:
            shape = (int(starts[-1]), *own.shape[1:])
            if scratch and 2 * math.prod(shape) > memory_bytes:
                file = str(scratch / "tokens.bin")
                log.info("tokens of %.1f GB are mapped from %s", 2 * math.prod(shape) / 1e9, file)
            tokens = memmap_tokens(file, shape) if file else torch.empty(shape, dtype=torch.float16)
        if own.shape[1:] != tokens.shape[1:]:
            path = tokens_dir / f"{slide['slide_id']}.h5"
            raise ValueError(
                f"{path}: tokens {own.shape[1:]}, those of slide {ids[0]} are "
                f"{tuple(tokens.shape[1:])}; of the one that does not fit regions.size_px and patch_encoder of the "
                f"config {artifacts.rebuild_hint(path)}"
            )
        tokens[start : start + len(own)] = torch.from_numpy(own)
        coords[start : start + len(own)] = corners
    slide_of = np.repeat(np.arange(len(slides)), slides["regions"])
    labels = slides["label"].tolist()
    return TokenDataset(tokens, slide_of, coords, ids, patients, fingerprint, labels, file, ledger)


def auto_batch_size(tokens: torch.Tensor, device: str) -> int:
    """How many whole regions go through an encoder at a time: as many as a third of a GPU's free memory holds."""
    if device == "cpu" or not len(tokens):
        return CPU_REGIONS
    region_bytes = 4 * tokens[0].numel() * ARRAYS_ALIVE
    return int(max(1, min(GPU_REGIONS, torch.cuda.mem_get_info()[0] / 3 // region_bytes)))


@torch.inference_mode()
def embed_regions(
    encoder: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, device: str, batch_size: int | None = None
) -> np.ndarray:
    """Embeddings of whole regions: float32 (R, D). Of several processes each embeds a share, and all get all.

    encoder: float32 (B, grid, grid, dim) → (B, D), in eval mode, on the device. tokens: float16 (R, grid, grid, dim).
    batch_size: regions a pass, chosen by memory without one.
    """
    batch_size = batch_size or auto_batch_size(tokens, device)
    rows = distributed.local_shard(torch.arange(len(tokens), device=tokens.device))
    own = torch.cat([encoder(tokens[batch].to(device).float()).float() for batch in rows.split(batch_size)])
    if distributed.world_size() == 1:
        return own.cpu().numpy()
    everyone = own.new_zeros(len(tokens), own.shape[1])
    everyone[rows.to(device)] = own
    distributed.all_reduce_sum(everyone)
    return everyone.cpu().numpy()
