"""Decision curves: the net benefit of calling cases positive."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from slpd_core.report.figures.style import REFERENCE, STYLE, line_styles, to_png
from slpd_core.report.operating_point import net_benefit

THRESHOLDS = np.linspace(0.01, 0.99, 99)
PANELS_PER_ROW = 3


def plot_decision(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Plot decision curves (Vickers and Elkin, 2006), one panel per class: class 1 of two, else each against the rest.

    Args:
        probabilities: Of each model by its name, (n, C).
        labels: Class indices, (n,).
        classes: Names of the classes.

    Returns:
        A PNG.
    """
    drawn = [1] if len(classes) == 2 else range(len(classes))
    columns = min(PANELS_PER_ROW, len(drawn))
    rows = -(-len(drawn) // columns)
    styles = line_styles([*probabilities])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns + 0.4, 3.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(drawn) :]:
            axis.set_axis_off()
        for axis, c in zip(axes.flat, drawn, strict=False):
            positive = labels == c
            _decision_panel(axis, {name: p[:, c] for name, p in probabilities.items()}, positive, styles)
            axis.set(title=f"calling {classes[c]}", xlabel="threshold probability")
        for axis in axes[:, 0]:
            axis.set_ylabel("net benefit per case")
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=2 * columns)
        return to_png(figure)


def _decision_panel(
    axis: Any, scores: Mapping[str, np.ndarray], positive: np.ndarray, styles: Mapping[str, Any]
) -> None:
    """Draw one class: all models, everyone called positive, no one."""
    everyone = net_benefit(np.ones(len(positive)), positive, THRESHOLDS)
    axis.plot(THRESHOLDS, everyone, color=REFERENCE, linewidth=1.2, linestyle="--", label="call all")
    axis.axhline(0, color=REFERENCE, linewidth=1.2, linestyle=":", label="call none")
    for name, of_model in scores.items():
        axis.plot(THRESHOLDS, net_benefit(of_model, positive, THRESHOLDS), linewidth=1.8, label=name, **styles[name])
    share = float(positive.mean())
    axis.set(xlim=(0, 1), ylim=(-0.25 * max(share, 0.2), 1.1 * max(share, 0.2)))
