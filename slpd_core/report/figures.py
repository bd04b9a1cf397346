"""Figures: ROC, confusion and calibration, training curves, t-SNE. The home of matplotlib; all drawn is a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slpd_core import config
from slpd_core.report import metrics

DPI = 150
# Okabe and Ito's palette, told apart by every kind of colour vision, without its yellow (too pale) and black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCE = "0.45"  # grey of what stands beside the runs: features of patches, chance, ln(out_dim)
GREYS = (REFERENCE, "0.65", "0.25")
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
    "text.parse_math": False,  # a label may hold dollar signs
}
FEWEST_TO_PROJECT = 5
RUNS_SIDE_BY_SIDE = 3
FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)
MOST_MARKED_EPOCHS = 30
CALIBRATION_BINS = 10
# Columns of history.csv: column -> title. Losses and entropies are drawn beside ln(out_dim).
LOSSES = {"loss_self": "L_self", "loss_intra": "L_intra", "loss_inter": "L_inter"}
ENTROPIES = {
    "teacher_entropy": "teacher entropy (nats)",
    "entropy_intra": "entropy of the targets\nof L_intra (nats)",
    "entropy_inter": "entropy of the targets\nof L_inter (nats)",
}
WATCHED = {
    "effective_rank": "effective rank of the embeddings",
    "knn_accuracy": "labels by k-NN of regions",
    "koleo": "KoLeo (lower: further apart)",
    "reassigned_fraction": "share of regions that\nchanged prototype",
    "min_cluster_size": "smallest cluster (regions)",
    "slides_without_prototypes_fraction": "share of slides\nwithout prototypes",
    "same_patient_fraction": "share of neighbours\nof the same patient",
}


def roc_curve(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """True positive rates at FALSE_POSITIVE_RATES, ties drawn as slopes.

    truth: bool (n,), not all alike; score: (n,), the higher the more likely true.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    false, true = (np.append(0, np.cumsum(kind[order])[last_of_tie] / kind.sum()) for kind in (~truth, truth))
    curve = np.interp(FALSE_POSITIVE_RATES, false, true)
    curve[0] = 0.0
    return curve


def fold_curves(folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One ROC curve a fold, (folds, points): the mean one-vs-rest over the classes that count for the AUC.

    folds: probabilities (n, C) and class indices (n,) of each test part; a curve of nan where no class counts.
    """
    curves = []
    for probabilities, labels in folds:
        counted = metrics.scored_classes(labels, probabilities.shape[1])
        each = [roc_curve(labels == c, probabilities[:, c]) for c in counted]
        curves.append(np.mean(each, axis=0) if each else np.full(len(FALSE_POSITIVE_RATES), np.nan))
    return np.array(curves)


def deviation_band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of curves (folds, points) less and plus one standard deviation (n − 1), within 0..1."""
    mean, deviation = curves.mean(0), curves.std(0, ddof=1)
    return (mean - deviation).clip(0, 1), (mean + deviation).clip(0, 1)


def roc(panels: Mapping[str, Mapping[str, np.ndarray]], runs: Sequence[str]) -> bytes:
    """ROC curves, a panel a classifier, a line a kind of features: mean over folds, the sd as a band about the last.

    panels: classifier -> features -> curves (folds, points). runs: in the order of their colours; what else there is is
    grey.
    """
    columns = min(4, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    beside = [name for lines in panels.values() for name in lines if name not in runs]
    styles = line_styles(runs) | reference_styles([*dict.fromkeys(beside)])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * columns + 0.4, 3.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, (classifier, lines) in zip(axes.flat, panels.items(), strict=False):
            defined = {name: curves[~np.isnan(curves).any(axis=1)] for name, curves in lines.items()}
            _roc_panel(axis, {name: curves for name, curves in defined.items() if len(curves)}, styles)
            axis.set(title=classifier, xlabel="false positive rate")
        for axis in axes.flat[len(panels) :]:
            _say(axis, "" if panels else "nothing was evaluated")
        for axis in axes[:, 0]:
            axis.set_ylabel("true positive rate")
        return _png(figure)


def _roc_panel(axis: Axes, lines: Mapping[str, np.ndarray], styles: Mapping[str, Any]) -> None:
    axis.plot([0, 1], [0, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if not lines:
        axis.text(0.5, 0.3, "no fold holds two labels", ha="center")
        return
    last = [*lines][-1]  # a fixed one: a band about the best would follow chance
    for name, curves in lines.items():
        axis.plot(FALSE_POSITIVE_RATES, curves.mean(0), label=name, linewidth=1.8, **styles[name])
        if name == last and len(curves) > 1:
            band = deviation_band(curves)
            axis.fill_between(FALSE_POSITIVE_RATES, *band, color=styles[name]["color"], alpha=0.18, linewidth=0)
    axis.legend(loc="lower right")


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often predictions are right, beside how sure they are: bins of equally many slides, the surest last.

    probabilities: (n, C); labels: class indices (n,). A prediction is the class of highest probability. Gives of each
    bin the mean probability of the predicted class, the share that is right, and its standard error.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.array_split(np.argsort(sure, kind="stable"), max(1, min(CALIBRATION_BINS, len(labels) // 5)))
    means = np.array([(sure[own].mean(), right[own].mean(), len(own)) for own in bins if len(own)]).reshape(-1, 3)
    return means[:, 0], means[:, 1], np.sqrt(means[:, 1] * (1 - means[:, 1]) / means[:, 2])


def predictions(title: str, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """The confusion matrix of a row of the table, and its calibration, over all test slides.

    probabilities: (n, C); labels: class indices (n,).
    """
    C = len(classes)
    confusion = np.zeros((C, C), int)
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.9), layout="constrained")
        figure.suptitle(title, fontsize=11)
        left, right = figure.subplots(1, 2)
        shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        left.grid(False)
        for (row, column), count in np.ndenumerate(confusion):
            text = f"{count}\n{shares[row, column]:.0%}"
            left.text(column, row, text, ha="center", va="center", color="w" if shares[row, column] > 0.5 else "k")
        left.set(xticks=range(C), yticks=range(C), xlabel="predicted", ylabel="label", title="test slides")
        left.set_xticklabels(classes)
        left.set_yticklabels(classes)
        sure, hits, error = calibration(probabilities, labels)
        right.plot([1 / C, 1], [1 / C, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
        right.errorbar(sure, hits, error, color=PALETTE[0], marker="o", linewidth=1.8, capsize=3)
        right.set(xlabel="probability of the predicted label", ylabel="share that is right", title="calibration")
        right.set(xlim=(1 / C - 0.03, 1.03), ylim=(-0.03, 1.03))
        return _png(figure)


def training(histories: Mapping[str, pd.DataFrame]) -> bytes:
    """Training curves, a line a run: losses and the teacher's entropies beside ln(out_dim), and what else is watched.

    histories: run -> history.csv. A loss of 0 is one a run does not use; what no run has a finite value of gets no
    panel.
    """
    titles = LOSSES | ENTROPIES | WATCHED
    finite = {run: frame.replace([np.inf, -np.inf], np.nan) for run, frame in histories.items()}
    drawn = {run: frame.mask((frame == 0) & frame.columns.isin([*LOSSES])) for run, frame in finite.items()}
    names = [name for name in titles if any(name in frame and frame[name].notna().any() for frame in drawn.values())]
    columns = min(3, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.8 * columns, 3.0 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            _training_panel(axis, name, {run: frame for run, frame in drawn.items() if name in frame}, list(histories))
            axis.set(title=titles[name], xlabel="epoch")
        for axis in axes.flat[len(names) :]:
            _say(axis, "" if names else "no epoch was trained")
        _shared_legend(figure, columns)
        return _png(figure)


def _training_panel(axis: Axes, name: str, drawn: Mapping[str, pd.DataFrame], runs: Sequence[str]) -> None:
    styles = line_styles(runs)
    for run, frame in drawn.items():
        if frame[name].notna().any():
            marker = "." if len(frame) <= MOST_MARKED_EPOCHS else ""
            axis.plot(frame["epoch"], frame[name], label=run, marker=marker, **styles[run])
    if name in LOSSES | ENTROPIES:
        for number, uniform in enumerate(
            sorted({frame["log_out_dim"].iloc[0] for frame in drawn.values() if len(frame)})
        ):
            label = "" if number else "ln(out_dim)"
            axis.axhline(uniform, color=REFERENCE, linestyle=":", linewidth=1.2, label=label)
    least = min((frame[name].min() for frame in drawn.values()), default=0)
    if name not in LOSSES and not least < 0:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _shared_legend(figure: Figure, columns: int) -> None:
    found = [axis.get_legend_handles_labels() for axis in figure.axes]
    lines = {label: line for drawn, labels in found for line, label in zip(drawn, labels, strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=2 * columns)


def project(embeddings: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of embeddings (n, D) into the plane (n, 2), started from their principal components.

    (0, 2), nothing to draw, where fewer than FEWEST_TO_PROJECT of them differ: too few regions, or a collapsed run.
    """
    from sklearn.manifold import TSNE

    centred = (embeddings - embeddings.mean(0)).astype(np.float64) if len(embeddings) else embeddings
    if len(np.unique(centred.round(9), axis=0)) < FEWEST_TO_PROJECT:
        return np.empty((0, 2))
    n, D = centred.shape
    fitting = min(perplexity, (n - 1) / 3)
    start = "pca" if min(n, D) >= 2 else "random"
    # Scaled: the plane does not depend on it, but distances in a nearly collapsed run would vanish in float32.
    return TSNE(perplexity=fitting, init=start, random_state=seed).fit_transform(centred / centred.std())


def tsne(planes: Mapping[str, pd.DataFrame]) -> bytes:
    """Region embeddings in the plane, runs side by side: coloured by label above, by slide below, as in the paper.

    planes: run -> a row a region with x, y, label, slide_id; no row where there was nothing to project.
    """
    columns = max(1, min(len(planes), RUNS_SIDE_BY_SIDE))
    rows = 2 * max(1, -(-len(planes) // columns))
    with mpl.rc_context(STYLE | {"axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(3.8 * columns, 3.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes[-2:, len(planes) - columns * (rows // 2 - 1) :].flat:  # what the last runs leave over
            axis.set_axis_off()
        for number, (run, plane) in enumerate(planes.items()):
            pair = axes[number // columns * 2 :, number % columns][:2]
            for axis, column in zip(pair, ("label", "slide_id"), strict=True):
                if len(plane):
                    _scatter(axis, plane, column)
                else:
                    _say(axis, f"fewer than {FEWEST_TO_PROJECT} different embeddings:\nnothing to project")
            pair[0].set_title(f"{run}: by label")
            pair[1].set_title(f"{run}: by slide ({plane['slide_id'].nunique()})")
        return _png(figure)


def _scatter(axis: Axes, plane: pd.DataFrame, column: str) -> None:
    groups = list(plane.groupby(column))
    for number, (name, points) in enumerate(groups):
        marker = MARKERS[number // len(PALETTE) % len(MARKERS)]
        colour = PALETTE[number % len(PALETTE)]
        axis.scatter(
            points["x"], points["y"], s=16, marker=marker, color=colour, label=str(name), alpha=0.75, linewidth=0
        )
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")
    if column == "label":
        axis.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", handletextpad=0.2)


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line of its own for every name, the same in every figure: colours first, then dashes."""
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        for i, name in enumerate(names)
    }


def reference_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A grey line of its own for every name beside the runs, patch features solid: dashes first, then shades."""
    ordered = sorted(names, key=lambda name: name != config.PATCH_FEATURES)
    solid = ordered[:1] == [config.PATCH_FEATURES]
    dashes = DASHES[:3]  # chance is dotted
    return {
        name: {"color": GREYS[i // len(dashes) % len(GREYS)], "linestyle": dashes[i % len(dashes)]}
        for i, name in enumerate(ordered, start=0 if solid else 1)
    }


def _say(axis: Axes, text: str) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
