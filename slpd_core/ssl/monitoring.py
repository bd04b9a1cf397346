"""Monitoring of self-distillation: effective rank, k-NN accuracy."""

import math

import numpy as np

SAMPLE = 2048
KNN_NEIGHBORS = 10


def fixed_sample(n_items: int, max_items: int = SAMPLE) -> np.ndarray:
    """Select rows evenly spaced, the same in every epoch and run.

    Args:
        n_items: To select from.
        max_items: To select.

    Returns:
        int64 (min(n_items, max_items),).
    """
    return np.linspace(0, n_items - 1, min(n_items, max_items)).astype(np.int64)


def effective_rank(embeddings: np.ndarray) -> float:
    """Compute RankMe: the exponential entropy of normalized singular values (Garrido et al., ICML 2023).

    Not centered: near 1 in a collapsed run, where the rest around the mean is noise of full rank.

    Args:
        embeddings: (n, D).

    Returns:
        1 to min(n, D).
    """
    values = np.linalg.svd(embeddings, compute_uv=False)
    p = values / max(values.sum(), 1e-12)
    return float(np.exp(-(p * np.log(np.maximum(p, 1e-12))).sum()))


def knn_accuracy(embeddings: np.ndarray, labels: np.ndarray, patients: np.ndarray, k: int = KNN_NEIGHBORS) -> float:
    """Predict labels by the k most similar embeddings (cosine) of other patients.

    Args:
        embeddings: (n, D).
        labels: Text (n,), empty where there is none.
        patients: (n,).
        k: Neighbors.

    Returns:
        The accuracy; nan where fewer than two labels or patients are known.
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
