"""Projection of region embeddings into the plane by t-SNE, for a few slides of each label."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import generator

MIN_TO_PROJECT = 5  # different embeddings


def choose_slides(ledger: pd.DataFrame, per_label: int = 10, *, seed: int) -> dict[str, str]:
    """Choose random usable slides of each label.

    Args:
        ledger: The cohort's ledger.
        per_label: Slides of each label (paper: 10).
        seed: Of the choice.

    Returns:
        Slide to label.
    """
    rng = generator(seed, "report")
    usable = ledger[ledger["status"] == artifacts.OK].sort_values("slide_id")
    return {
        slide: label
        for label, slides in usable.groupby("label")["slide_id"]
        for slide in rng.permutation(slides.to_numpy())[:per_label]
    }


def project_regions(
    embed: pd.DataFrame, labels: Mapping[str, str], perplexity: float = 30.0, *, seed: int
) -> pd.DataFrame:
    """Project the regions of some slides into the plane.

    Args:
        embed: An `embed` table.
        labels: Label of each slide to project.
        perplexity: As in `fit_tsne`.
        seed: Of t-SNE.

    Returns:
        A row per region: x, y, label, slide_id; none if too few embeddings differ.
    """
    regions = embed[embed["slide_id"].isin(labels)]
    embeddings = np.stack(regions["embedding"].to_list()) if len(regions) else np.empty((0, 2))
    plane = fit_tsne(embeddings, perplexity, seed=seed)
    regions = regions.iloc[: len(plane)]
    return pd.DataFrame(
        {
            "x": plane[:, 0],
            "y": plane[:, 1],
            "label": regions["slide_id"].map(labels).to_numpy(),
            "slide_id": regions["slide_id"].to_numpy(),
        }
    )


def fit_tsne(embeddings: np.ndarray, perplexity: float = 30.0, *, seed: int) -> np.ndarray:
    """Project embeddings into the plane by t-SNE, initialized with their principal components.

    Args:
        embeddings: (n, D).
        perplexity: At most (n - 1) / 3 is used.
        seed: Of t-SNE.

    Returns:
        (n, 2); (0, 2) if fewer than MIN_TO_PROJECT embeddings differ, as in a collapsed run.
    """
    from sklearn.manifold import TSNE

    centered = (embeddings - embeddings.mean(0)).astype(np.float64) if len(embeddings) else embeddings
    if len(np.unique(centered.round(9), axis=0)) < MIN_TO_PROJECT:
        return np.empty((0, 2))
    n, D = centered.shape
    init = "pca" if min(n, D) >= 2 else "random"
    # Scale them: the plane stays the same, and distances in a nearly collapsed run do not vanish in float32.
    tsne = TSNE(perplexity=min(perplexity, (n - 1) / 3), init=init, random_state=seed)
    points: np.ndarray = tsne.fit_transform(centered / centered.std())
    return points
