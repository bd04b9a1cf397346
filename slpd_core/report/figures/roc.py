"""ROC curves, one panel per classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.report.curves import FALSE_POSITIVE_RATES, deviation_band
from slpd_core.report.figures.style import REFERENCE, STYLE, draw_message, line_styles, reference_styles, to_png


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
            draw_message(axis, "" if panels else "nothing was evaluated")
        for axis in axes[:, 0]:
            axis.set_ylabel("true positive rate")
        return to_png(figure)


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
