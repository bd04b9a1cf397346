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
from slpd_core.encoders.precision import single_threaded_pool
from slpd_core.runtime import log
from slpd_core.ssl import distributed

# At most that go through an encoder at a time; few, on a CPU, so that their activations stay in its caches.
CPU_REGIONS, GPU_REGIONS = 8, 4096
ARRAYS_ALIVE = 16  # of the size of the tokens, in float32, that a pass has in memory at once, or fewer


@dataclass(frozen=True)
class TokenDataset:
    """All regions of the slides the ledger admits, slide after slide.

    Attributes:
        tokens: float16 (R, grid, grid, dim).
        slide_of: int64 (R,), index into slide_ids.
        coords: int64 (R, 2), level-0 px.
        slide_ids: (N,).
        patient_ids: (N,).
        fingerprint: Of the slides; covers all tokens.
        file: That tokens are mapped from, by this and other processes, if they are not in memory.
        ledger: Fingerprint of the ledger.
    """

    tokens: torch.Tensor
    slide_of: np.ndarray
    coords: np.ndarray
    slide_ids: list[str]
    patient_ids: list[str]
    fingerprint: str
    file: str | None = None
    ledger: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tokens out if another process can map their file."""
        return vars(self) | ({"tokens": self.tokens.shape} if self.file else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["file"]:
            state["tokens"] = memmap_tokens(state["file"], state["tokens"])
        vars(self).update(state)

    def to(self, device: str) -> "TokenDataset":
        """Move the tokens to a device if half of its free memory holds them.

        Args:
            device: cpu or cuda.

        Returns:
            The dataset.
        """
        if device == "cpu" or self.tokens.nbytes > torch.cuda.mem_get_info()[0] / 2:
            return self
        return replace(self, tokens=self.tokens.to(device))


def usable_slides(ledger_path: Path, *, may_be_none: bool = False) -> tuple[pd.DataFrame, str]:
    """Read the slides whose status is ok.

    Args:
        ledger_path: Of the ledger.
        may_be_none: Whether there need not be any.

    Returns:
        Their rows, and the ledger's fingerprint.

    Raises:
        ValueError: There is none, and that is an error.
    """
    ledger, meta = artifacts.read_table(ledger_path, "ledger")
    slides = ledger[ledger["status"] == artifacts.OK].reset_index(drop=True)
    if slides.empty and not may_be_none:
        raise ValueError(f"{ledger_path}: no slide with status ok; the ledger's reasons say why")
    return slides, meta["fingerprint"]


def training_slides(folds_path: Path, fold: int) -> set[str]:
    """Read the slides of a fold's training part, including `unlabeled` ones (pretraining uses no labels).

    Args:
        folds_path: Of the folds.
        fold: Which one.

    Returns:
        Slide ids.
    """
    folds, _ = artifacts.read_table(folds_path, "folds")
    return set(folds[(folds["fold"] == fold) & folds["part"].isin(artifacts.PRETRAINING_PARTS)]["slide_id"])


def read_slide(tokens_dir: Path, slide: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Read the tokens of a slide; they are finite, since the tokens stage writes no others.

    Args:
        tokens_dir: Of the slides' tokens.
        slide: Its row of the ledger.

    Returns:
        Tokens float16 (L, grid, grid, dim) and coords int64 (L, 2).

    Raises:
        ValueError: The file is damaged, not the one the ledger admitted, or its tokens are no square grid.
    """
    path = tokens_dir / f"{slide['slide_id']}.h5"
    with artifacts.open_tokens(path) as (stored, meta):
        if meta["fingerprint"] != slide["fingerprint"] or len(stored.coords) != slide["regions"]:
            raise ValueError(f"{path}: not the tokens the ledger admitted; run snakemake again to renew the ledger")
        tokens, coords = stored.tokens[()], stored.coords
    grid = math.isqrt(tokens.shape[1])
    if grid * grid != tokens.shape[1]:
        raise ValueError(
            f"{path}: {tokens.shape[1]} tokens per region are no square grid; {artifacts.rebuild_hint(path)}"
        )
    return tokens.reshape(len(tokens), grid, grid, -1), coords


def memmap_tokens(file: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Map tokens from a file, which is created if it is missing.

    Args:
        file: Of the tokens.
        shape: Of the tokens.

    Returns:
        float16; the system keeps in memory what it has room for.

    Raises:
        OSError: The disk has no room; a file without its blocks would kill the process on access.
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

    Args:
        ledger_path: Of the ledger.
        tokens_dir: Of the slides' tokens.
        only: Slide ids to read, if not all.
        memory_bytes: Up to which tokens are kept in memory; more are written to a file and mapped.
        scratch: Folder of that file.

    Returns:
        The dataset.

    Raises:
        ValueError: No slide is admitted, or the tokens of one are damaged or of another shape than those of the first.
    """
    slides, ledger = usable_slides(ledger_path)
    fingerprint = ledger
    if only is not None:
        slides = _select_slides(slides, only, ledger_path)
        fingerprint = artifacts.fingerprint(fingerprint, *slides["slide_id"])
    starts = np.concatenate([[0], slides["regions"].cumsum()])
    tokens, file = torch.empty((starts[-1], 0, 0, 0), dtype=torch.float16), None
    coords = np.empty((starts[-1], 2), np.int64)
    ids, patients = slides["slide_id"].tolist(), slides["patient_id"].tolist()
    for start, slide in zip(starts, slides.to_dict("records"), strict=False):
        slide_tokens, corners = read_slide(tokens_dir, slide)
        if start == 0:
            shape = (int(starts[-1]), *slide_tokens.shape[1:])
            if scratch and 2 * math.prod(shape) > memory_bytes:
                file = str(scratch / "tokens.bin")
                log.info("tokens of %.1f GB are mapped from %s", 2 * math.prod(shape) / 1e9, file)
            tokens = memmap_tokens(file, shape) if file else torch.empty(shape, dtype=torch.float16)
        if slide_tokens.shape[1:] != tokens.shape[1:]:
            path = tokens_dir / f"{slide['slide_id']}.h5"
            raise ValueError(
                f"{path}: tokens {slide_tokens.shape[1:]}, those of slide {ids[0]} are "
                f"{tuple(tokens.shape[1:])}; of the one that does not fit regions.size_px and patch_encoder of the "
                f"config {artifacts.rebuild_hint(path)}"
            )
        tokens[start : start + len(corners)] = torch.from_numpy(slide_tokens)
        coords[start : start + len(corners)] = corners
    slide_of = np.repeat(np.arange(len(slides)), slides["regions"])
    return TokenDataset(tokens, slide_of, coords, ids, patients, fingerprint, file, ledger)


def _select_slides(slides: pd.DataFrame, only: set[str], ledger_path: Path) -> pd.DataFrame:
    """Select the rows of some slides; raise ValueError where the ledger admits none of them."""
    selected = slides[slides["slide_id"].isin(only)].reset_index(drop=True)
    if selected.empty:
        raise ValueError(
            f"{ledger_path}: none of the {len(only)} training slides of this fold has status ok; lower "
            "folds.n_folds, add slides, or set pretrain.train_on to all"
        )
    return selected


def auto_batch_size(tokens: torch.Tensor, device: str) -> int:
    """Choose how many whole regions go through an encoder at a time.

    Args:
        tokens: float16 (R, grid, grid, dim).
        device: cpu or cuda.

    Returns:
        As many as a third of a GPU's free memory holds; a fixed number on a CPU.
    """
    if device == "cpu" or not len(tokens):
        return CPU_REGIONS
    region_bytes = 4 * tokens[0].numel() * ARRAYS_ALIVE
    return int(max(1, min(GPU_REGIONS, torch.cuda.mem_get_info()[0] / 3 // region_bytes)))


@torch.inference_mode()
def embed_regions(
    encoder: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, device: str, batch_size: int | None = None
) -> np.ndarray:
    """Embed whole regions; of several processes each embeds a share, and all get all.

    On a CPU each thread embeds its own batches, as `slides.tokenizer` encodes patches: a busy machine costs little, and
    the result does not depend on the number of threads.

    Args:
        encoder: float32 (B, grid, grid, dim) → (B, D), in eval mode, on the device.
        tokens: float16 (R, grid, grid, dim), anywhere.
        device: cpu or cuda.
        batch_size: Regions per pass; None to choose by memory.

    Returns:
        float32 (R, D).
    """
    batch_size = batch_size or auto_batch_size(tokens, device)
    rows = distributed.local_shard(torch.arange(len(tokens), device=tokens.device))

    @torch.inference_mode()  # which holds for a thread
    def embed(batch: torch.Tensor) -> torch.Tensor:
        return encoder(tokens[batch].to(device).float()).float()

    if device == "cpu":
        with single_threaded_pool(torch.get_num_threads()) as pool:
            local = torch.cat([*pool.map(embed, rows.split(batch_size))])
    else:
        local = torch.cat([embed(batch) for batch in rows.split(batch_size)])
    if distributed.world_size() == 1:
        return local.cpu().numpy()
    embeddings = local.new_zeros(len(tokens), local.shape[1])
    embeddings[rows.to(device)] = local
    distributed.all_reduce_sum(embeddings)
    return embeddings.cpu().numpy()
