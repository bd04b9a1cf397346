"""Plots of a row: what SVG shows, read back from its points, is what scikit-learn and the curves say."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from slpd_core.endpoints.survival import kaplan_meier
from slpd_core.report import curves, row_plots
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions
from tests.report.test_slide_table import LABELS, plant_labels, plant_task


def plant_row(endpoint, n_folds=3):
    if endpoint is not LABELS:
        folds = [plant_predictions(endpoint, fold, 1.5) for fold in range(n_folds)]
    else:
        rng = np.random.default_rng(0)
        folds = []
        for fold in range(n_folds):
            labels = np.array(LABELS.classes)[np.arange(40) % 3]
            own = labels[:, None] == np.array(LABELS.classes)
            folds.append(plant_labels(fold, [rng.dirichlet(1 + 2 * row) for row in own], labels))
    return plant_task(endpoint, {"slpd": folds}).rows[0]


def read_points(text, x_ends, y_ends):
    """Values of the points of a line, by the values at the ends of both axes."""
    points = np.array([tuple(map(float, pair.split(","))) for pair in text.split()])
    left, right, top, bottom = row_plots.LEFT_PX, row_plots.RIGHT_PX, row_plots.TOP_PX, row_plots.BOTTOM_PX
    x = x_ends[0] + (points[:, 0] - left) / (right - left) * (x_ends[1] - x_ends[0])
    return x, y_ends[0] + (points[:, 1] - bottom) / (top - bottom) * (y_ends[1] - y_ends[0])


@pytest.mark.parametrize("endpoint", [LABELS, GRADES], ids=lambda endpoint: endpoint.kind)
def test_the_confusion_matrix_is_that_of_scikit_learn(endpoint):
    row = plant_row(endpoint)
    truth, predictions = endpoint.encode(row.cases), endpoint.predictions(row.cases)
    cells = row_plots.plot_row(row).confusion
    expected = confusion_matrix(truth, predictions.argmax(1))
    assert [[count for count, _ in line] for line in cells] == expected.tolist()
    shares = confusion_matrix(truth, predictions.argmax(1), normalize="true")
    np.testing.assert_allclose([[share for _, share in line] for line in cells], shares)


def test_calibration_and_roc_are_the_curves_of_the_row():
    row = plant_row(LABELS)
    calibration, roc = row_plots.plot_row(row).plots
    x, y, _ = curves.calibration_curve(LABELS.predictions(row.cases), LABELS.encode(row.cases))
    shown = read_points(calibration.lines[0], (1 / 3, 1), (0, 1))
    np.testing.assert_allclose(shown, (x, y), atol=2e-3)
    assert calibration.bars.count("M") == calibration.dots.count("M") == len(x)
    area = np.trapezoid(*read_points(roc.lines[0], (0, 1), (0, 1))[::-1])
    aucs = [
        roc_auc_score(LABELS.encode(part), LABELS.predictions(part), multi_class="ovr")
        for _, part in row.cases.groupby("fold")
    ]
    assert area == pytest.approx(np.mean(aucs), abs=0.01)
    assert len(row_plots.plot_row(plant_row(GRADES)).plots) == 1  # no ROC curve of classes with an order


def test_a_row_whose_folds_show_one_label_only_has_no_roc_curve():
    one = plant_labels(0, [[0.8, 0.1, 0.1]] * 3, ["y"] * 3)
    roc = row_plots.plot_row(plant_task(LABELS, {"slpd": [one]}).rows[0]).plots[1]
    assert roc.lines == []


def test_values_are_dots_on_one_scale_within_the_axes():
    row = plant_row(VALUES)
    (plot,) = row_plots.plot_row(row).plots
    dots = np.array([*map(int, re.findall(r"\d+(?=[ h])", plot.dots))]).reshape(-1, 2)
    assert len(dots) <= len(row.cases)
    assert dots.min(0).tolist() >= [row_plots.LEFT_PX, row_plots.TOP_PX]
    assert (dots.max(0) <= [row_plots.RIGHT_PX, row_plots.BOTTOM_PX]).all()
    both = np.concatenate([row.cases["value"], row.cases["prediction"]])
    assert [text for _, text in plot.x_ticks][::2] == [f"{both.min():.3g}", f"{both.max():.3g}"]
    assert [text for _, text in plot.x_ticks] == [text for _, text in plot.y_ticks]
    alike = row.cases.assign(value=3.0, prediction=3.0)
    (plot,) = row_plots.plot_row(plant_task(VALUES, {"slpd": [alike]}).rows[0]).plots
    assert plot.dots.count("M") == 1


def test_survival_has_the_curves_of_both_groups():
    row = plant_row(FOLLOW_UP)
    (plot,) = row_plots.plot_row(row).plots
    mean = row.cases.groupby("patient_id").agg({"time": "first", "event": "first", "risk": "mean"})
    for line, group in zip(plot.lines, (mean[mean["risk"] <= 0], mean[mean["risk"] > 0]), strict=True):
        curve = kaplan_meier(group["time"].to_numpy(), group["event"].to_numpy())
        x, y = read_points(line, (0, mean["time"].max()), (0, 1))
        assert y[-1] == pytest.approx(curve.survival[-1], abs=2e-3)
        assert (np.diff(x) >= -1e-9).all()
        middle = (x[2::2] + x[1:-1:2]) / 2  # between steps
        flat = np.diff(x)[1::2] > 0.1
        np.testing.assert_allclose(y[1:-1:2][flat], curve.at(middle)[flat], atol=2e-3)


def test_a_row_without_survivors_in_a_group_has_an_empty_line():
    folds = [plant_predictions(FOLLOW_UP, 0, 1.0).assign(risk=1.0)]
    (plot,) = row_plots.plot_row(plant_task(FOLLOW_UP, {"slpd": folds}).rows[0]).plots
    assert plot.lines[0] == ""
    assert pd.notna(plot.lines[1])
