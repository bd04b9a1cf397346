"""Curves over folds, one panel per classifier: ROC and time-dependent AUC."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.report.curves import FALSE_POSITIVE_RATES, deviation_band
from slpd_core.report.figures.style import (
    REFERENCE,
    STYLE,
    draw_message,
    grid_shape,
    line_styles,
    reference_styles,
    to_png,
)

Panels = Mapping[str, Mapping[str, np.ndarray]]


def plot_roc(panels: Panels, runs: Sequence[str]) -> bytes:
    """Plot ROC curves, one panel per classifier, one line per kind of features.

    Args:
        panels: Classifier to features to curves, (folds, points). Their mean is drawn, and a band of one standard
            deviation about the last line.
        runs: In the order of their colors; other features are gray.

    Returns:
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _panel_grid(panels)
        styles = _feature_styles(panels, runs)
        for axis, (classifier, lines) in zip(axes.flat, panels.items(), strict=False):
            axis.plot([0, 1], [0, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            defined = {name: curves[~np.isnan(curves).any(axis=1)] for name, curves in lines.items()}
            if _draw_lines(axis, FALSE_POSITIVE_RATES, defined, styles):
                axis.legend(loc="lower right")
            else:
                axis.text(0.5, 0.3, "no fold holds two labels", ha="center")
            axis.set(title=classifier, xlabel="false positive rate")
        for axis in axes[:, 0]:
            axis.set_ylabel("true positive rate")
        return to_png(figure)


def plot_dynamic_auc(panels: Panels, runs: Sequence[str], times: np.ndarray, *, time_label: str = "time") -> bytes:
    """Plot the time-dependent AUC, one panel per classifier, one line per kind of features.

    Args:
        panels: Classifier to features to `curves.fold_dynamic_aucs`, (folds, T). Their mean over the folds where it is
            defined is drawn, and a band of one standard deviation about the last line.
        runs: In the order of their colors; other features are gray.
        times: (T,).
        time_label: Label of the axis, with the unit.

    Returns:
        A PNG.
    """
    values = np.concatenate([[0.4], *(curves.ravel() for lines in panels.values() for curves in lines.values())])
    with mpl.rc_context(STYLE):
        figure, axes = _panel_grid(panels)
        styles = _feature_styles(panels, runs)
        for axis, (classifier, lines) in zip(axes.flat, panels.items(), strict=False):
            axis.axhline(0.5, color=REFERENCE, linewidth=0.8, linestyle=":")
            if len(times) > 1:
                axis.set_xlim(times[0], times[-1])
            axis.set_ylim(np.nanmin(values) - 0.02, 1.02)
            if _draw_lines(axis, times, lines, styles):
                axis.legend(loc="best")
            else:
                axis.text(0.5, 0.3, "defined in no fold", ha="center", transform=axis.transAxes)
            axis.set(title=classifier, xlabel=time_label)
        for axis in axes[:, 0]:
            axis.set_ylabel("time-dependent AUC")
        return to_png(figure)


def _panel_grid(panels: Panels) -> tuple[Figure, np.ndarray]:
    """A figure with a panel per classifier; those left over are blank."""
    rows, columns = grid_shape(len(panels), 4)
    figure = Figure(figsize=(3.3 * columns + 0.4, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(panels) :]:
        draw_message(axis, "" if panels else "nothing was evaluated")
    return figure, axes


def _feature_styles(panels: Panels, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Line of each kind of features: runs in colors, others in gray."""
    beside = [name for lines in panels.values() for name in lines if name not in runs]
    return line_styles(runs) | reference_styles([*dict.fromkeys(beside)])


def _draw_lines(axis: Axes, x: np.ndarray, lines: Mapping[str, np.ndarray], styles: Mapping[str, Any]) -> bool:
    """Draw the mean over folds of each line and the band about the last; false if there is nothing to draw."""
    lines = {name: curves[~np.isnan(curves).all(axis=1)] for name, curves in lines.items()}
    lines = {name: curves for name, curves in lines.items() if len(curves)}
    for name, curves in lines.items():
        defined = ~np.isnan(curves).all(axis=0)
        mean, marker = np.nanmean(curves[:, defined], axis=0), "o" if defined.sum() == 1 else ""
        axis.plot(x[defined], mean, label=name, linewidth=1.8, marker=marker, **styles[name])
    if not lines:
        return False
    name, curves = [*lines.items()][-1]  # not the best: that one would depend on chance
    if len(curves) > 1:
        axis.fill_between(x, *deviation_band(curves), color=styles[name]["color"], alpha=0.18, linewidth=0)
    return True
