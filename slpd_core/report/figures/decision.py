"""Decision curves: the net benefit of treating by a predicted probability."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.report.curves import THRESHOLDS, net_benefit
from slpd_core.report.figures.style import (
    GRAYS,
    PANELS_PER_ROW,
    REFERENCE,
    STYLE,
    draw_message,
    draw_shared_legend,
    grid_shape,
    line_styles,
    to_png,
)

CLASS_WIDTH = 34  # characters of a line of a class's name


def plot_decision(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Plot decision curves beside treating everyone and nobody (Vickers and Elkin, Med Decis Making 2006).

    Args:
        probabilities: Of each model by its name, (n, C).
        labels: Class indices, (n,).
        classes: Names of the classes. Of two the second is treated; of several each has a panel, one against the rest.

    Returns:
        A PNG.
    """
    treated = [1] if len(classes) == 2 else range(len(classes))
    rows, columns = grid_shape(len(treated), PANELS_PER_ROW)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.6, 3.6 * columns), 3.4 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(treated) :]:
            draw_message(axis, "")
        for axis, c in zip(axes.flat, treated, strict=False):
            if len(labels):
                _draw_benefits(axis, {name: p[:, c] for name, p in probabilities.items()}, labels == c)
                axis.set(title=fill(classes[c], CLASS_WIDTH), xlabel="threshold probability", ylabel="net benefit")
            else:
                draw_message(axis, "no slide has a label")
        draw_shared_legend(figure, 2 * columns, below=True)
        return to_png(figure)


def _draw_benefits(axis: Axes, lines: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
    """Draw the net benefit of each line, of treating all and of treating none."""
    benefits = {name: net_benefit(probability, truth, THRESHOLDS) for name, probability in lines.items()}
    treat_all = net_benefit(np.ones(len(truth)), truth, THRESHOLDS)
    axis.plot(THRESHOLDS, treat_all, color=REFERENCE, linestyle="--", linewidth=1.2, label="treat all")
    axis.axhline(0, color=GRAYS[-1], linewidth=1.2, label="treat none")
    styles = line_styles([*lines])
    for name, benefit in benefits.items():
        axis.plot(THRESHOLDS, benefit, label=name, linewidth=1.8, **styles[name])
    top = max(0.05, *(benefit.max() for benefit in [treat_all, *benefits.values()]))
    axis.set(xlim=(0, 1), ylim=(-0.2 * top, 1.08 * top))
