"""Predictions of classes: confusion matrix and calibration."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from slpd_core.report.curves import calibration_curve
from slpd_core.report.figures.style import PALETTE, REFERENCE, STYLE, to_png


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
        return to_png(figure)
