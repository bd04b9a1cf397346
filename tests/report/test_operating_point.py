"""The threshold of a binary classifier, and its rates."""

import math

import numpy as np
import pytest

from slpd_core.report import operating_point


def test_the_threshold_is_the_one_of_youden():
    positive = np.array([False, False, False, True, True])
    assert operating_point.youden_threshold(np.array([0.1, 0.2, 0.6, 0.5, 0.9]), positive) == 0.5
    assert operating_point.youden_threshold(np.array([0.1, 0.2, 0.3, 0.8, 0.9]), positive) == 0.8
    tied = np.array([False, True, False, True])  # 0.2 and 0.4 do equally well
    assert operating_point.youden_threshold(np.array([0.1, 0.2, 0.3, 0.4]), tied) == 0.4
    assert math.isnan(operating_point.youden_threshold(np.array([0.1, 0.2]), np.array([True, True])))


def test_rates_are_those_of_the_confusion_matrix():
    called, positive = np.array([True] * 6 + [False] * 4), np.array([True] * 4 + [False] * 2 + [True] + [False] * 3)
    rates = operating_point.score_threshold(called, positive, np.ones((1, 10)))
    assert {name: values[0] for name, values in rates.items()} == pytest.approx(
        {"sensitivity": 4 / 5, "specificity": 3 / 5, "ppv": 4 / 6, "npv": 3 / 4}
    )
    none = operating_point.score_threshold(np.zeros(3, bool), np.zeros(3, bool), np.ones((1, 3)))
    assert math.isnan(none["sensitivity"][0])
    assert none["specificity"][0] == 1
