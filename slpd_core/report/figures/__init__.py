"""Figures as PNG: functions of arrays and tables. The home of matplotlib."""

from slpd_core.report.figures.decision import plot_decision
from slpd_core.report.figures.predictions import plot_predictions
from slpd_core.report.figures.roc import plot_roc
from slpd_core.report.figures.style import DPI, write_figures
from slpd_core.report.figures.training import plot_training
from slpd_core.report.figures.tsne import plot_tsne

__all__ = ["DPI", "plot_decision", "plot_predictions", "plot_roc", "plot_training", "plot_tsne", "write_figures"]
