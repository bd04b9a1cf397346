"""What to watch in any run of self-distillation."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slpd_core.runtime import log
from slpd_core.ssl import distributed

SAMPLE = 2048
KNN_NEIGHBORS = 10


def fixed_sample(n_items: int, most: int = SAMPLE) -> np.ndarray:
    """Rows spread evenly over all, the same in every epoch and run: int64 (at most `most`,)."""
    return np.linspace(0, n_items - 1, min(n_items, most)).astype(np.int64)


def effective_rank(embeddings: np.ndarray) -> float:
    """RankMe: exponential of the entropy of the normalised singular values of embeddings (n, D) (Garrido et al. 2023).

    Not centered: near 1 in a collapsed run, where what is left around the mean is noise of full rank.
    """
    values = np.linalg.svd(embeddings, compute_uv=False)
    share = values / max(values.sum(), 1e-12)
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum()))


def knn_accuracy(embeddings: np.ndarray, labels: np.ndarray, patients: np.ndarray, k: int = KNN_NEIGHBORS) -> float:
    """How often the k most similar embeddings (cosine) of other patients have mostly one's own label.

    embeddings: (n, D); labels: text (n,), empty where there is none; patients: (n,). Nan where fewer than two labels
    are known, or one patient alone.
    """
    known = labels != ""
    embeddings, patients = embeddings[known], patients[known]
    names, label = np.unique(labels[known], return_inverse=True)
    if len(names) < 2 or len(np.unique(patients)) < 2:
        return math.nan
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    similarity = np.where(patients[:, None] == patients, -np.inf, unit @ unit.T)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    counts = np.take_along_axis(similarity, nearest, axis=1) > -np.inf
    votes = np.stack([((label[nearest] == name) & counts).sum(1) for name in range(len(names))], axis=1)
    return float((votes.argmax(1) == label).mean())


def to_tensorboard(folder: Path, row: Mapping[str, float]) -> None:
    """Add an epoch's row of the history to the scalars in a folder; its first epoch begins the folder anew."""
    if not distributed.is_main_process():
        return
    epoch = int(row["epoch"])
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        if epoch == 0:
            log.warning("tensorboard is not installed: no scalars are written; history.csv has them")
        return
    if epoch == 0 and folder.exists():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder), filename_suffix=f".{epoch}") as writer:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                writer.add_scalar(name, value, epoch)
