"""Projection of region embeddings into the plane by t-SNE, for a few slides of each label."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from slpd_core import artifacts
from slpd_core.runtime import generator

MIN_TO_PROJECT = 5  # different embeddings


def choose_slides(ledger: pd.DataFrame, labels: Mapping[str, str], per_label: int = 10, *, seed: int) -> list[str]:
    """Choose random usable slides of each label.

    Args:
        ledger: The cohort's ledger.
        labels: Label by slide; slides without one are chosen only where none has.
        per_label: Slides of each label (paper: 10).
        seed: Of the choice.

    Returns:
        Slide ids, label by label.
    """
    rng = generator(seed, "report")
    usable = ledger.loc[ledger["status"] == artifacts.OK, "slide_id"].sort_values()
    label = usable.map(labels) if labels else usable.map(lambda _: "")
    return [slide for _, slides in usable.groupby(label) for slide in rng.permutation(slides.to_numpy())[:per_label]]


def project_regions(
    embed: pd.DataFrame,
    slides: Sequence[str],
    labels: Mapping[str, Mapping[str, str] | pd.Series],
    perplexity: float = 30.0,
    *,
    seed: int,
) -> pd.DataFrame:
    """Project the regions of some slides into the plane.

    Args:
        embed: An `embed` table.
        slides: Slides to project.
        labels: Of each task, label by slide; a categorical series keeps its order.
        perplexity: As in `fit_tsne`.
        seed: Of t-SNE.

    Returns:
        A row per region: x, y, slide_id, and "by {task}", the label of each task, missing where there is none; no row
        if too few embeddings differ.
    """
    regions = embed[embed["slide_id"].isin(slides)]
    embeddings = np.stack(regions["embedding"].to_list()) if len(regions) else np.empty((0, 2))
    plane = fit_tsne(embeddings, perplexity, seed=seed)
    ids = regions["slide_id"].iloc[: len(plane)]
    columns = {f"by {task}": ids.map(of).array for task, of in labels.items()}
    return pd.DataFrame({"x": plane[:, 0], "y": plane[:, 1], "slide_id": ids.to_numpy()} | columns)


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
