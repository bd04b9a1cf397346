"""Region embeddings in the plane, runs side by side."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slpd_core.report.figures.style import MARKERS, PALETTE, PANELS_PER_ROW, STYLE, draw_message, grid_shape, to_png
from slpd_core.report.projection import MIN_TO_PROJECT


def plot_tsne(planes: Mapping[str, pd.DataFrame]) -> bytes:
    """Plot projected region embeddings, runs side by side: colored by the label of each task, below by slide.

    Args:
        planes: Run to its projection, as `projection.project_regions` returns it. The labels of a categorical column
            stand in its order, and in shades of one scale if it is ordered.

    Returns:
        A PNG.
    """
    rows, columns = grid_shape(len(planes), PANELS_PER_ROW)
    by_task = [column for plane in planes.values() for column in plane.columns if column.startswith("by ")]
    colorings = [*dict.fromkeys(by_task), "slide_id"]
    with mpl.rc_context(STYLE | {"axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(3.8 * columns, 3.9 * rows * len(colorings)), layout="constrained")
        axes = figure.subplots(rows * len(colorings), columns, squeeze=False)
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
                    draw_message(axis, f"fewer than {MIN_TO_PROJECT} different embeddings:\nnothing to project")
            panels[-1].set_title(f"{run}: by slide ({plane['slide_id'].nunique()})")
        return to_png(figure)


def _scatter(axis: Axes, plane: pd.DataFrame, column: str) -> None:
    """Draw projected regions, a color and marker per value of a column."""
    groups = list(plane.groupby(column, observed=True))  # without the regions that have no label
    ordered = isinstance(plane[column].dtype, pd.CategoricalDtype) and plane[column].cat.ordered
    shades = [*mpl.colormaps["viridis_r"](np.linspace(0.15, 1, len(groups)))]
    for i, (name, points) in enumerate(groups):
        marker = MARKERS[0 if ordered else i // len(PALETTE) % len(MARKERS)]
        color = shades[i] if ordered else PALETTE[i % len(PALETTE)]
        axis.scatter(
            points["x"], points["y"], s=16, marker=marker, color=color, label=str(name), alpha=0.75, linewidth=0
        )
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")
    if column != "slide_id":
        axis.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", handletextpad=0.2)
