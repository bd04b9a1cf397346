"""Predictions of classes, ordered or not: confusion matrix and calibration."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.report.curves import calibration_curve
from slpd_core.report.figures.style import PALETTE, REFERENCE, STYLE, to_png

CHARACTER_INCHES = 0.08
CELL_INCHES = 0.5  # of the confusion matrix, at least
NAME_WIDTH = 20  # characters of a line of a class's name, where the names stand aslant


def plot_predictions(
    title: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    cases: str = "test slides",
) -> bytes:
    """Plot the confusion matrix and the calibration of predictions.

    Args:
        title: Of the figure.
        probabilities: (n, C).
        labels: Class indices, (n,).
        classes: Names of the classes, in their order.
        cases: The cases that are predicted.

    Returns:
        A PNG.
    """
    C = len(classes)
    longest = CHARACTER_INCHES * max(map(len, classes))
    upright = longest < (6.7 - longest) / (2 * C)  # 6.7 inches are left for the names and the two panels
    more = max(0.0, CELL_INCHES * (C - 6))
    beside = 0.0 if upright else min(longest, CHARACTER_INCHES * NAME_WIDTH)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8 + 2 * more + beside, 3.9 + more + 0.7 * beside), layout="constrained")
        figure.suptitle(title, fontsize=11)
        left, right = figure.subplots(1, 2)
        _draw_confusion(left, probabilities.argmax(1), labels, classes, upright=upright)
        left.set_title(cases)
        confidence, accuracy, error = calibration_curve(probabilities, labels)
        right.plot([1 / C, 1], [1 / C, 1], color=REFERENCE, linewidth=0.8, linestyle=":")
        right.errorbar(confidence, accuracy, error, color=PALETTE[0], marker="o", linewidth=1.8, capsize=3)
        right.set(xlabel="probability of the predicted label", ylabel="share that is right", title="calibration")
        right.set(xlim=(1 / C - 0.03, 1.03), ylim=(-0.03, 1.03))
        return to_png(figure)


def _draw_confusion(
    axis: Axes, predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, upright: bool
) -> None:
    """Draw how often each class is predicted as which; the names stand aslant unless upright."""
    C = len(classes)
    confusion = np.zeros((C, C), int)
    np.add.at(confusion, (labels, predicted), 1)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    for (row, column), count in np.ndenumerate(confusion):
        text = f"{count}\n{shares[row, column]:.0%}"
        axis.text(column, row, text, ha="center", va="center", color="w" if shares[row, column] > 0.5 else "k")
    axis.set(xticks=range(C), yticks=range(C), xlabel="predicted", ylabel="label")
    names = classes if upright else [fill(name, NAME_WIDTH) for name in classes]
    aslant: Any = {} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticklabels(names, **aslant)
    axis.set_yticklabels(names)
