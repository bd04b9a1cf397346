"""Figures: ROC curves, training curves, t-SNE. The home of matplotlib; every function gives a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, told apart by every kind of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "slpd",
}
FEWEST_TO_PROJECT = 4
FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)
# History columns drawn beside the losses: column -> title.
WATCHED = {
    "teacher_entropy": "teacher entropy (nats)",
    "effective_rank": "effective rank\nof the embeddings",
    "moved": "share of regions that\nchanged prototype",
}


def roc_curve(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """True positive rates at FALSE_POSITIVE_RATES, ties drawn as slopes; nan where the test part holds one class.

    truth: bool (n,); score: (n,), the higher the more likely true.
    """
    if truth.all() or not truth.any():
        return np.full(len(FALSE_POSITIVE_RATES), np.nan)
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    false, true = (np.append(0, np.cumsum(kind[order])[last_of_tie] / kind.sum()) for kind in (~truth, truth))
    curve = np.interp(FALSE_POSITIVE_RATES, false, true)
    curve[0] = 0.0
    return curve


def fold_curves(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One ROC curve a fold, (folds, points); for more than two classes the mean of one-vs-rest.

    folds: probabilities (n, C) and class indices (n,) of each test part.
    """
    curves = []
    for probabilities, labels in folds:
        C = probabilities.shape[1]
        each = [roc_curve(labels == c, probabilities[:, c]) for c in ([1] if C == 2 else range(C))]
        defined = [curve for curve in each if not np.isnan(curve).any()]
        curves.append(np.mean(defined, axis=0) if defined else each[0])
    return np.array(curves)


def roc(panels: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """ROC curves, a panel a classifier, a line a kind of features: mean over folds, band of one standard deviation.

    panels: classifier -> features -> curves (folds, points).
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * max(1, len(panels)) + 0.4, 3.8), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False, sharey=True)[0]
        names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
        for axis, (classifier, lines) in zip(axes, panels.items(), strict=False):
            for name, curves in lines.items():
                defined = curves[~np.isnan(curves).any(axis=1)]
                if len(defined):
                    _band(axis, FALSE_POSITIVE_RATES, defined, name, PALETTE[names.index(name) % len(PALETTE)])
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
            axis.set(title=classifier, xlabel="false positive rate", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
            if axis.get_legend_handles_labels()[0]:
                axis.legend(loc="lower right")
        axes[0].set_ylabel("true positive rate")
        return _png(figure)


def _band(axis: Axes, x: np.ndarray, curves: np.ndarray, name: str, colour: str) -> None:
    mean, sd = curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
    axis.plot(x, mean, color=colour, label=name, linewidth=1.8)
    axis.fill_between(x, np.clip(mean - sd, 0, 1), np.clip(mean + sd, 0, 1), color=colour, alpha=0.15, linewidth=0)


def training(histories: Mapping[str, pd.DataFrame]) -> bytes:
    """Training curves of every run: each loss beside ln(out_dim), and what else is watched.

    histories: run -> history.csv.
    """
    watched = [
        name for name in WATCHED if any(name in frame and frame[name].notna().any() for frame in histories.values())
    ]
    with mpl.rc_context(STYLE):
        columns = len(histories) + len(watched)
        figure = Figure(figsize=(3.2 * columns, 3.4), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        for axis, (run, frame) in zip(axes, histories.items(), strict=False):
            for colour, term in zip(PALETTE, ("self", "intra", "inter"), strict=False):
                shown = frame[frame[term] > 0]
                if len(shown):
                    axis.plot(shown["epoch"], shown[term], color=colour, label=f"L_{term}", marker=".")
            axis.axhline(frame["uniform"].iloc[0], color="0.5", linestyle="--", linewidth=0.9, label="ln(out_dim)")
            axis.set(title=run, xlabel="epoch", ylabel="loss", ylim=(0, None))
            axis.legend(loc="best")
        for axis, name in zip(axes[len(histories) :], watched, strict=True):
            for colour, (run, frame) in zip(PALETTE, histories.items(), strict=False):
                if name in frame and frame[name].notna().any():
                    axis.plot(frame["epoch"], frame[name], color=colour, label=run, marker=".")
            axis.set(title=WATCHED[name], xlabel="epoch", ylim=(0, None))
            axis.legend(loc="best")
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _png(figure)


def project(embeddings: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of embeddings (n, D) into the plane (n, 2), started from their principal components.

    Where too few of them differ, their first two coordinates.
    """
    from sklearn.manifold import TSNE

    centred = (embeddings - embeddings.mean(0)).astype(np.float64)
    if len(np.unique(centred.round(9), axis=0)) <= FEWEST_TO_PROJECT:  # a collapsed run too: t-SNE cannot start from it
        return centred[:, :2]
    fitting = min(perplexity, (len(centred) - 1) / 3)
    return TSNE(perplexity=fitting, init="pca", random_state=seed).fit_transform(centred / centred.std())


def tsne(points: Mapping[str, np.ndarray], labels: Sequence[str], slides: Sequence[str]) -> bytes:
    """Region embeddings in the plane, a row a run: coloured by label on the left, by slide on the right.

    points: run -> (n, 2); labels, slides: (n,), of each region.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.9 * len(points)), layout="constrained")
        axes = figure.subplots(len(points), 2, squeeze=False)
        names, ids = sorted(set(labels)), sorted(set(slides))
        wheel = mpl.colormaps["hsv"](np.linspace(0, 0.95, len(ids)))
        by_slide = [wheel[ids.index(slide)] for slide in slides]
        for row, (run, xy) in zip(axes, points.items(), strict=True):
            for number, name in enumerate(names):
                own = np.array([label == name for label in labels])
                row[0].scatter(
                    *xy[own].T, s=14, color=PALETTE[number % len(PALETTE)], label=name, alpha=0.75, linewidth=0
                )
            row[1].scatter(*xy.T, s=14, c=by_slide, alpha=0.75, linewidth=0)
            row[0].legend(loc="best", title="label")
            row[0].set_title(f"{run}: by label")
            row[1].set_title(f"{run}: by slide ({len(ids)} slides)")
            for axis in row:
                axis.set(xticks=[], yticks=[])
        return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
