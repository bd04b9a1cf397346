"""Predictions of a continuous target: against the truth, and their calibration."""

import math
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slpd_core.endpoints.regression import score_regression
from slpd_core.report.curves import calibrate_regression
from slpd_core.report.figures.style import PALETTE, REFERENCE, STYLE, draw_message, to_png
from slpd_core.report.table_format import NONE

LABEL_WIDTH = 38  # characters of a label's line


def plot_regression(title: str, predictions: np.ndarray, targets: np.ndarray, *, target_label: str = "target") -> bytes:
    """Plot predictions against targets, and the mean target in bins of the predictions' quantiles.

    Args:
        title: Of the figure.
        predictions, targets: (n,).
        target_label: Name of the target, with the unit.

    Returns:
        A PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        figure.suptitle(title, fontsize=11)
        if not len(targets):
            draw_message(figure.subplots(), "no slide has a target")
            return to_png(figure)
        left, right = figure.subplots(1, 2)
        _draw_identity(left, np.concatenate([predictions, targets]))
        left.scatter(targets, predictions, s=16, color=PALETTE[0], alpha=0.6, linewidth=0)
        left.set_title(_format_scores(**score_regression(targets, predictions)))
        left.set(xlabel=fill(target_label, LABEL_WIDTH), ylabel=fill(f"predicted {target_label}", LABEL_WIDTH))
        predicted, mean, error = calibrate_regression(targets, predictions)
        ends = np.nan_to_num(error)
        _draw_identity(right, np.concatenate([predicted, mean - ends, mean + ends]))
        right.errorbar(predicted, mean, error, color=PALETTE[0], marker="o", linewidth=1.8, capsize=3)
        right.set(
            xlabel=fill(f"mean predicted {target_label}", LABEL_WIDTH), ylabel=fill(f"mean {target_label}", LABEL_WIDTH)
        )
        right.set_title("calibration")
        return to_png(figure)


def _draw_identity(axis: Axes, values: np.ndarray) -> None:
    """Draw the line of equality, and give both axes the range of the values."""
    low, high = values.min(), values.max()
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    ends = low - margin, high + margin
    axis.plot(ends, ends, color=REFERENCE, linewidth=0.8, linestyle=":")
    axis.set(xlim=ends, ylim=ends)
    n_bins = 5 if 1e-3 <= max(map(abs, ends)) < 1e5 else 3  # others have long labels
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(n_bins, steps=[1, 2, 2.5, 5, 10], min_n_ticks=n_bins - 2))
        side.set_major_formatter("{x:g}")  # no common factor, whose text would overlap the labels


def _format_scores(r2: float, mae: float, spearman: float) -> str:
    """The scores as a title."""
    error = np.format_float_positional(mae, precision=3, unique=False, fractional=False, trim="-")
    texts = [NONE if math.isnan(score) else f"{score:.2f}".replace("-", "−") for score in (r2, spearman)]
    return f"R² {texts[0]}, MAE {error}, Spearman {texts[1]}"
