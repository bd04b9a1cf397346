"""What to watch in any run of self-distillation."""

import numpy as np

SAMPLE = 2048


def fixed_sample(n_items: int, most: int = SAMPLE) -> np.ndarray:
    """Rows spread evenly over all, the same in every epoch and run: int64 (at most `most`,)."""
    return np.linspace(0, n_items - 1, min(n_items, most)).astype(np.int64)


def effective_rank(embeddings: np.ndarray) -> float:
    """RankMe: exponential of the entropy of the normalised singular values of embeddings (n, D) (Garrido et al. 2023).

    Not centred: near 1 in a collapsed run, where what is left around the mean is noise of full rank.
    """
    values = np.linalg.svd(embeddings, compute_uv=False)
    share = values / max(values.sum(), 1e-12)
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum()))
