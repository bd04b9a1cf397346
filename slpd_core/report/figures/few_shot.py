"""Scores by the number of training slides, one panel per classifier, one line per kind of features."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.endpoints.scores import SCORES
from slpd_core.report.few_shot_results import FEW_SHOT_NAMES
from slpd_core.report.figures.style import (
    STYLE,
    draw_message,
    draw_shared_legend,
    grid_shape,
    line_styles,
    reference_styles,
    to_png,
)

SPREAD = 0.025  # of lines side by side, as a fraction of a doubling


def plot_few_shot(table: pd.DataFrame, score: str, runs: Sequence[str]) -> bytes:
    """Plot a score by the number of training slides of each class, with its interval.

    Args:
        table: As `few_shot_results.summarize_few_shot` returns it.
        score: To draw.
        runs: In the order of their colors; other features are gray.

    Returns:
        A PNG.
    """
    classifiers = [*table["classifier"].unique()]
    features = dict.fromkeys(table["features"])
    styles = line_styles(runs) | reference_styles([name for name in features if name not in runs])
    rows, columns = grid_shape(len(classifiers), 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, classifier in zip(axes.flat, classifiers, strict=False):
            for i, name in enumerate(features):
                of = table[(table["classifier"] == classifier) & (table["features"] == name)]
                shift = 2 ** (SPREAD * (i - (len(features) - 1) / 2))
                _draw_line(axis, of, score, label=name, style=styles[name], shift=shift)
            shots = sorted(table["shots"].unique())
            axis.set_xscale("log", base=2)
            axis.set_xticks(shots, [*map(str, shots)])
            axis.set(title=FEW_SHOT_NAMES[classifier], xlabel="training slides of each class")
        if not classifiers:
            draw_message(axes[0, 0], "no fold has enough training slides")
        axes[0, 0].set_ylabel(SCORES[score].title)
        draw_shared_legend(figure, 4)
        return to_png(figure)


def _draw_line(axis: Axes, of: pd.DataFrame, score: str, *, label: str, style: dict[str, Any], shift: float) -> None:
    """Draw the score of features, with bars to the ends of its interval; none where it has no interval."""
    mean = of[f"{score}_mean"].to_numpy()
    ends = np.stack([mean - of[f"{score}_low"], of[f"{score}_high"] - mean])
    axis.errorbar(
        of["shots"] * shift, mean, np.nan_to_num(ends), label=label, marker=".", capsize=2, elinewidth=0.9, **style
    )
