"""Scores over folds and patients equal numbers worked out by hand."""

import math

import pandas as pd
import pytest

from slpd_core.endpoints.classification import CLASS_SCORES
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import metrics

ENDPOINT = make_endpoint("classification", ["a", "b"])


def predictions():
    frame = pd.DataFrame({"fold": [0, 0, 1, 1, 2], "patient_id": [*"pqrst"], "label": [*"babaa"]})
    return frame.assign(p_a=[0.1, 0.9, 0.6, 0.2, 0.8], p_b=[0.9, 0.1, 0.4, 0.8, 0.2])


def test_a_slide_that_several_folds_test_counts_once():
    rows = [(0, "s", "p", "a", 0.2), (1, "s", "p", "a", 0.6), (0, "t", "q", "b", 0.9)]
    frame = pd.DataFrame(rows, columns=["fold", "slide_id", "patient_id", "label", "p_b"]).assign(p_a=0.0)
    pooled = metrics.pool_predictions(frame, ENDPOINT)
    assert pooled["p_b"].to_dict() == {"s": pytest.approx(0.4), "t": 0.9}
    assert pooled["label"].to_dict() == {"s": "a", "t": "b"}


def test_a_patient_is_the_mean_of_its_slides_in_each_fold():
    rows = [(0, "p", "a", 0.2), (0, "p", "a", 0.6), (1, "p", "a", 0.8), (1, "q", "b", 0.9), (1, "q", "a", 0.7)]
    frame = pd.DataFrame(rows, columns=["fold", "patient_id", "label", "p_b"])
    frame["p_a"] = 1 - frame["p_b"]
    patients = metrics.average_by_patient(frame, ENDPOINT)
    assert patients[["fold", "patient_id", "label"]].to_numpy().tolist() == [
        [0, "p", "a"],
        [1, "p", "a"],
        [1, "q", "a"],
        [1, "q", "b"],
    ]
    assert patients["p_b"].tolist() == pytest.approx([0.4, 0.8, 0.7, 0.9])
    assert (patients["p_a"] + patients["p_b"]).tolist() == pytest.approx([1] * 4)


def test_folds_and_their_summary():
    per_fold = metrics.score_folds(predictions(), ENDPOINT)
    assert per_fold["accuracy"].tolist() == [1, 0, 1]
    assert per_fold["n"].tolist() == [2, 2, 1]
    assert per_fold["auc"].tolist()[:2] == [1, 0]
    assert math.isnan(per_fold["auc"][2])
    summary = metrics.summarize_folds(per_fold, ENDPOINT)
    assert summary["accuracy_mean"] == pytest.approx(2 / 3)
    assert summary["accuracy_sd"] == pytest.approx(math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 2))
    assert (summary["auc_mean"], summary["folds"]) == (0.5, 3)


def test_one_fold_has_no_deviation():
    summary = metrics.summarize_folds(metrics.score_folds(predictions().query("fold == 0"), ENDPOINT), ENDPOINT)
    assert summary["accuracy_mean"] == 1
    assert math.isnan(summary["accuracy_sd"])


def test_folds_whose_auc_is_undefined_leave_the_rest():
    per_fold = pd.DataFrame({"auc": [1, math.nan, 0.5]} | {key: [1, 0.5, 0] for key in {*CLASS_SCORES} - {"auc"}})
    summary = metrics.summarize_folds(per_fold, ENDPOINT)
    assert (summary["auc_mean"], summary["folds"]) == (0.75, 3)
    assert summary["auc_sd"] == pytest.approx(math.sqrt(2 * 0.25**2))
    undefined = metrics.summarize_folds(per_fold.assign(auc=math.nan), ENDPOINT)
    assert math.isnan(undefined["auc_mean"])
    assert math.isnan(undefined["auc_sd"])
    assert metrics.summarize_folds(metrics.score_folds(predictions().head(0), ENDPOINT), ENDPOINT)["folds"] == 0
