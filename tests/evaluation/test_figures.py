"""Figures show what they are given."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from slpd_core.evaluation import figures


def size(png):
    return Image.open(io.BytesIO(png)).size


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_drawn_curve_is_the_auc(ties):
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.4
    score = truth + rng.normal(size=400)
    score = score.round() if ties else score
    area = np.trapezoid(figures.roc_curve(truth, score), figures.FALSE_POSITIVE_RATES)
    assert area == pytest.approx(roc_auc_score(truth, score), abs=0.01)


def test_a_perfect_and_an_undefined_curve():
    truth = np.array([False, True, True])
    assert (figures.roc_curve(truth, np.array([0.1, 0.8, 0.9]))[1:] == 1).all()
    assert np.isnan(figures.roc_curve(np.ones(3, bool), np.arange(3))).all()


def test_curves_of_three_classes_are_their_mean():
    probabilities, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    each = [figures.roc_curve(labels == c, probabilities[:, c]) for c in range(3)]
    np.testing.assert_allclose(figures.fold_curves([(probabilities, labels)])[0], np.mean(each, axis=0))


def history(intra):
    epochs = np.arange(4)
    frame = pd.DataFrame({"epoch": epochs, "loss": 3.0, "self": 3.0 - epochs / 4, "intra": intra, "inter": intra})
    return frame.assign(uniform=4.2, teacher_entropy=2.0, effective_rank=5.0, moved=np.nan)


def test_training_draws_a_panel_a_run_and_what_is_watched():
    one, two = figures.training({"dino": history(0.0)}), figures.training({"dino": history(0.0), "slpd": history(2.0)})
    assert size(two)[0] > size(one)[0] * 1.2


def test_every_figure_is_the_same_twice_and_survives_little_data():
    curve = figures.fold_curves([(np.array([[0.3, 0.7]]), np.array([1]))])
    assert figures.roc({"MIL": {"slpd": curve}}) == figures.roc({"MIL": {"slpd": curve}})
    points = figures.project(np.random.default_rng(0).normal(size=(6, 8)), 30, 1)
    assert points.shape == (6, 2)
    np.testing.assert_array_equal(points, figures.project(np.random.default_rng(0).normal(size=(6, 8)), 30, 1))
    assert size(figures.tsne({"slpd": points}, list("xxxyyy"), list("aabbcc")))[0] > 400


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_regions_to_project_stand_side_by_side(n):
    assert figures.project(np.ones((n, 8)), 30, 1).shape == (n, 2)
