"""Kaplan–Meier curves of low and high risk, with the numbers at risk."""

import math
from collections.abc import Mapping
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slpd_core.endpoints.survival import SurvivalCurve, kaplan_meier, logrank_test
from slpd_core.report.figures.style import PALETTE, PANELS_PER_ROW, STYLE, draw_message, grid_shape, to_png

GROUPS = ("low risk", "high risk")
TITLE_WIDTH = 44  # characters of a line
SMALL = 8.5  # font size of the numbers at risk


def plot_kaplan_meier(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, time_label: str = "time"
) -> bytes:
    """Plot Kaplan–Meier curves of low and high risk with their 95 % bands, and below them the numbers at risk.

    Ticks on the curves are censored cases. The p of the log-rank test is nominal for risks of a cross-validation, whose
    groups are not independent (Simon et al., Brief Bioinform 2011).

    Args:
        panels: Title to time, event and whether the risk is high, as `split_at_median` returns it: (n,) each, one case
            per patient.
        time_label: Label of the axis, with the unit.

    Returns:
        A PNG.
    """
    rows, columns = grid_shape(len(panels), PANELS_PER_ROW)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns, 4.7 * rows), layout="constrained")
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[6, 1] * rows)
        for axis in axes.flat:  # those without a panel stay off
            axis.set_axis_off()
        for i, (title, (time, event, high)) in enumerate(panels.items()):
            curve_axis, table_axis = axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
            curve_axis.set_axis_on()
            end = time.max(initial=0) or 1.0
            curve_axis.set(xlim=(-0.02 * end, 1.02 * end), ylim=(-0.02, 1.05), xlabel=time_label)
            curve_axis.set_ylabel("fraction without an event")
            curve_axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            if not len(time):
                curve_axis.text(0.5, 0.5, "no case", ha="center", transform=curve_axis.transAxes)
            _draw_groups(curve_axis, title, time, event.astype(bool), high)
            _draw_numbers_at_risk(table_axis, curve_axis, time, high)
        if not panels:
            draw_message(axes[0, 0], "nothing was evaluated")
        return to_png(figure)


def _draw_groups(axis: Axes, title: str, time: np.ndarray, event: np.ndarray, high: np.ndarray) -> None:
    """Draw the curve of each group, and above it the sizes of the groups and p."""
    for group, color, member in zip(GROUPS, PALETTE, (~high, high), strict=False):
        label = f"{group}: n = {member.sum()}, events = {event[member].sum()}"
        if member.any():
            _draw_curve(axis, kaplan_meier(time[member], event[member]), label, color)
        else:
            axis.plot([], [], color=color, label=label)
    p = logrank_test(time, event, high)[1]
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, title=_format_p(p), alignment="left")
    axis.set_title(fill(title, TITLE_WIDTH), pad=50)


def _draw_curve(axis: Axes, curve: SurvivalCurve, label: str, color: str) -> None:
    """Draw a curve from time 0 on, its band, and a tick at each time at which a case is censored."""
    time, survival = np.append(0, curve.time), np.append(1, curve.survival)
    axis.step(time, survival, where="post", color=color, linewidth=1.8, label=label)
    low, high = (np.append(1, end) for end in (curve.low, curve.high))
    low[1:], high[1:] = (np.where(np.isnan(end[1:]), end[:-1], end[1:]) for end in (low, high))
    axis.fill_between(time, low, high, step="post", color=color, alpha=0.15, linewidth=0)
    censored = curve.at_risk - curve.events > np.append(curve.at_risk[1:], 0)
    axis.plot(curve.time[censored], curve.survival[censored], "|", color=color, markersize=7, markeredgewidth=1.1)


def _draw_numbers_at_risk(axis: Axes, curve_axis: Axes, time: np.ndarray, high: np.ndarray) -> None:
    """Write how many cases of each group are at risk at the ticks of the time axis."""
    axis.set(xlim=curve_axis.get_xlim(), ylim=(1.6, -0.6))
    axis.set_title("number at risk", loc="left", fontsize=SMALL, pad=2)
    ticks = [tick for tick in curve_axis.get_xticks() if 0 <= tick <= axis.get_xlim()[1]]
    for row, (group, color, member) in enumerate(zip(GROUPS, PALETTE, (~high, high), strict=False)):
        axis.annotate(
            group,
            (0, row),
            (-22, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            color=color,
            fontsize=SMALL,
        )
        for tick in ticks:
            axis.text(tick, row, str((time[member] >= tick).sum()), ha="center", va="center", fontsize=SMALL)


def _format_p(p: float) -> str:
    """The p of the log-rank test as a text."""
    if math.isnan(p):
        return "log-rank test: not defined"
    return "log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}"
