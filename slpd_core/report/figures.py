"""Figures as PNG: ROC, confusion and calibration, training curves, t-SNE. The home of matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slpd_core import artifacts, config
from slpd_core.report.curves import FALSE_POSITIVE_RATES, calibration_curve, deviation_band
from slpd_core.report.projection import MIN_TO_PROJECT

DPI = 150
# Okabe and Ito's palette, which every kind of color vision can distinguish, without its yellow (too pale) and black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REFERENCE = "0.45"  # gray of references beside the runs: features of patches, chance, ln(out_dim)
GRAYS = (REFERENCE, "0.65", "0.25")
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
RUNS_PER_ROW = 3
MAX_MARKED_EPOCHS = 30
# Columns of history.csv and their titles. Losses and entropies are drawn beside ln(out_dim).
LOSS_TITLES = {"loss_self": "L_self", "loss_intra": "L_intra", "loss_inter": "L_inter"}
ENTROPY_TITLES = {
    "teacher_entropy": "teacher entropy (nats)",
    "entropy_intra": "entropy of the targets\nof L_intra (nats)",
    "entropy_inter": "entropy of the targets\nof L_inter (nats)",
}
METRIC_TITLES = {
    "effective_rank": "effective rank of the embeddings",
    "knn_accuracy": "labels by k-NN of regions",
    "koleo": "KoLeo (lower: further apart)",
    "reassigned_fraction": "share of regions that\nchanged prototype",
    "min_cluster_size": "smallest cluster (regions)",
    "slides_without_prototypes_fraction": "share of slides\nwithout prototypes",
    "same_patient_fraction": "share of neighbours\nof the same patient",
}


def plot_roc(panels: Mapping[str, Mapping[str, np.ndarray]], runs: Sequence[str]) -> bytes:
    """Plot ROC curves, one panel per classifier, one line per kind of features.

    Args:
        panels: Classifier to features to curves, (folds, points). Their mean is drawn, and a band of one standard
            deviation about the last line.
        runs: In the order of their colors; other features are gray.

    Returns:
        A PNG.
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
            _write_text(axis, "" if panels else "nothing was evaluated")
        for axis in axes[:, 0]:
            axis.set_ylabel("true positive rate")
        return _png(figure)


def _roc_panel(axis: Axes, lines: Mapping[str, np.ndarray], styles: Mapping[str, Any]) -> None:
    """Draw one classifier's curves: the mean of each line, and the band about the last."""
    axis.plot([0, 1], [0, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if not lines:
        axis.text(0.5, 0.3, "no fold holds two labels", ha="center")
        return
    last = [*lines][-1]  # not the best: that one would depend on chance
    for name, curves in lines.items():
        axis.plot(FALSE_POSITIVE_RATES, curves.mean(0), label=name, linewidth=1.8, **styles[name])
        if name == last and len(curves) > 1:
            band = deviation_band(curves)
            axis.fill_between(FALSE_POSITIVE_RATES, *band, color=styles[name]["color"], alpha=0.18, linewidth=0)
    axis.legend(loc="lower right")


def plot_predictions(title: str, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Plot the confusion matrix and the calibration of predictions.

    Args:
        title: Of the figure.
        probabilities: (n, C).
        labels: Class indices, (n,).
        classes: Names of the classes.

    Returns:
        A PNG.
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
        confidence, accuracy, error = calibration_curve(probabilities, labels)
        right.plot([1 / C, 1], [1 / C, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
        right.errorbar(confidence, accuracy, error, color=PALETTE[0], marker="o", linewidth=1.8, capsize=3)
        right.set(xlabel="probability of the predicted label", ylabel="share that is right", title="calibration")
        right.set(xlim=(1 / C - 0.03, 1.03), ylim=(-0.03, 1.03))
        return _png(figure)


def plot_training(histories: Mapping[str, pd.DataFrame]) -> bytes:
    """Plot training curves, one panel per column of the histories, one line per run.

    Losses and entropies are drawn beside ln(out_dim). A loss of 0 is one that the run does not use. A column without
    any finite value has no panel.

    Args:
        histories: Run to its `history` table.

    Returns:
        A PNG.
    """
    titles = LOSS_TITLES | ENTROPY_TITLES | METRIC_TITLES
    finite = {run: frame.replace([np.inf, -np.inf], np.nan) for run, frame in histories.items()}
    drawn = {run: frame.mask((frame == 0) & frame.columns.isin([*LOSS_TITLES])) for run, frame in finite.items()}
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
            _write_text(axis, "" if names else "no epoch has a value")
        _shared_legend(figure, columns)
        return _png(figure)


def _training_panel(axis: Axes, name: str, drawn: Mapping[str, pd.DataFrame], runs: Sequence[str]) -> None:
    """Draw one column of the histories, a line per run."""
    styles = line_styles(runs)
    for run, frame in drawn.items():
        if frame[name].notna().any():
            marker = "." if len(frame) <= MAX_MARKED_EPOCHS else ""
            axis.plot(frame["epoch"], frame[name], label=run, marker=marker, **styles[run])
    if name in LOSS_TITLES | ENTROPY_TITLES:
        maxima = sorted({frame["log_out_dim"].iloc[0] for frame in drawn.values() if len(frame)})
        for i, maximum in enumerate(maxima):
            label = "" if i else "ln(out_dim)"
            axis.axhline(maximum, color=REFERENCE, linestyle=":", linewidth=1.2, label=label)
    minimum = min((frame[name].min() for frame in drawn.values()), default=0)
    if name not in LOSS_TITLES and not minimum < 0:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _shared_legend(figure: Figure, columns: int) -> None:
    """Draw one legend above the panels, each label once."""
    legends = [axis.get_legend_handles_labels() for axis in figure.axes]
    lines = {label: line for drawn, labels in legends for line, label in zip(drawn, labels, strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=2 * columns)


def plot_tsne(planes: Mapping[str, pd.DataFrame]) -> bytes:
    """Plot projected region embeddings, runs side by side: colored by the label of each task, below by slide.

    Args:
        planes: Run to its projection, as `projection.project_regions` returns it.

    Returns:
        A PNG.
    """
    columns = max(1, min(len(planes), RUNS_PER_ROW))
    by_task = [column for plane in planes.values() for column in plane.columns if column.startswith("by ")]
    colorings = [*dict.fromkeys(by_task), "slide_id"]
    rows = len(colorings) * max(1, -(-len(planes) // columns))
    with mpl.rc_context(STYLE | {"axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(3.8 * columns, 3.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:  # those without a run stay off
            axis.set_axis_off()
        for i, (run, plane) in enumerate(planes.items()):
            panels = axes[i // columns * len(colorings) :, i % columns][: len(colorings)]
            for axis, column in zip(panels, colorings, strict=True):
                axis.set_title(f"{run}: {column}")
                if len(plane):
                    axis.set_axis_on()
                    _scatter(axis, plane, column)
                else:
                    _write_text(axis, f"fewer than {MIN_TO_PROJECT} different embeddings:\nnothing to project")
            panels[-1].set_title(f"{run}: by slide ({plane['slide_id'].nunique()})")
        return _png(figure)


def _scatter(axis: Axes, plane: pd.DataFrame, column: str) -> None:
    """Draw projected regions, a color and marker per value of a column."""
    groups = list(plane[plane[column] != ""].groupby(column))  # without the slides that have no label
    for i, (name, points) in enumerate(groups):
        marker = MARKERS[i // len(PALETTE) % len(MARKERS)]
        color = PALETTE[i % len(PALETTE)]
        axis.scatter(
            points["x"], points["y"], s=16, marker=marker, color=color, label=str(name), alpha=0.75, linewidth=0
        )
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")
    if column != "slide_id":
        axis.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", handletextpad=0.2)


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Assign each name a line, the same in every figure: colors first, then dashes.

    Args:
        names: Of the lines.

    Returns:
        Name to matplotlib's color and linestyle.
    """
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        for i, name in enumerate(names)
    }


def reference_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Assign each reference beside the runs a gray line: dashes first, then shades; patch tokens are solid.

    Args:
        names: Of the lines.

    Returns:
        Name to matplotlib's color and linestyle.
    """
    ordered = sorted(names, key=lambda name: name != config.PATCH_FEATURES)
    solid = ordered[:1] == [config.PATCH_FEATURES]
    dashes = DASHES[:3]  # chance is dotted
    return {
        name: {"color": GRAYS[i // len(dashes) % len(GRAYS)], "linestyle": dashes[i % len(dashes)]}
        for i, name in enumerate(ordered, start=0 if solid else 1)
    }


def write_figures(out_dir: Path, pngs: Mapping[str, bytes]) -> None:
    """Write figures as {name}.png.

    Args:
        out_dir: Where they are written.
        pngs: By name.
    """
    for name, png in pngs.items():
        with artifacts.atomic_write(out_dir / f"{name}.png") as part:
            part.write_bytes(png)


def _write_text(axis: Axes, text: str) -> None:
    """Draw a text in place of the panel."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def _png(figure: Figure) -> bytes:
    """Bytes of the figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
