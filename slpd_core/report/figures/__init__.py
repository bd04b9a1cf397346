"""Figures as PNG: functions of arrays and tables. The home of matplotlib."""

from slpd_core.report.figures.decision import plot_decision
from slpd_core.report.figures.few_shot import plot_few_shot
from slpd_core.report.figures.predictions import plot_predictions
from slpd_core.report.figures.regression import plot_regression
from slpd_core.report.figures.roc import plot_dynamic_auc, plot_roc
from slpd_core.report.figures.style import DPI, write_figures
from slpd_core.report.figures.survival import plot_kaplan_meier
from slpd_core.report.figures.training import plot_training
from slpd_core.report.figures.tsne import plot_tsne

__all__ = [
    "DPI",
    "plot_decision",
    "plot_dynamic_auc",
    "plot_few_shot",
    "plot_kaplan_meier",
    "plot_predictions",
    "plot_regression",
    "plot_roc",
    "plot_training",
    "plot_tsne",
    "write_figures",
]
