"""Training curves, one panel per column of the histories."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slpd_core.report.figures.style import (
    PANELS_PER_ROW,
    REFERENCE,
    STYLE,
    draw_message,
    draw_shared_legend,
    grid_shape,
    line_styles,
    to_png,
)

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
    rows, columns = grid_shape(len(names), PANELS_PER_ROW)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.8 * columns, 3.0 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            _training_panel(axis, name, {run: frame for run, frame in drawn.items() if name in frame}, list(histories))
            axis.set(title=titles[name], xlabel="epoch")
        for axis in axes.flat[len(names) :]:
            draw_message(axis, "" if names else "no epoch has a value")
        draw_shared_legend(figure, 2 * columns)
        return to_png(figure)


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
