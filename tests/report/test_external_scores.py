"""Scores of external cohorts: planted truths, intervals by patients, the threshold of the cohort."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import external_scores

TWO = make_endpoint("classification", ["x", "y"])


def predictions(labels, *folds, patients=None) -> pd.DataFrame:
    """Slides with these labels and, of each fold, their probabilities of y."""
    ids = [f"s{i:03}" for i in range(len(labels))]
    table = pd.DataFrame({"slide_id": ids, "patient_id": patients or ids, "label": labels})
    parts = [table.assign(fold=i, p_x=1 - np.array(p), p_y=p) for i, p in enumerate(folds)]
    return pd.concat(parts, ignore_index=True)


def score(table, *, by="slide_id", endpoint=TWO, seed=0, n_resamples=500):
    cases = external_scores.gather_cases(table, endpoint, by=by)
    return external_scores.score_cases(cases, endpoint, rng=np.random.default_rng(seed), n_resamples=n_resamples)


def test_a_planted_auc_is_found_by_the_ensemble_and_by_single_folds():
    """Of 2 x 2 pairs, three are ordered right by fold 0, all by fold 1 and by the mean of both."""
    scores = score(predictions(["x", "x", "y", "y"], [0.1, 0.5, 0.4, 0.9], [0.1, 0.2, 0.7, 0.9]))
    assert scores["auc_fold_mean"] == (0.75 + 1) / 2
    assert scores["auc_fold_sd"] == pytest.approx(np.std([0.75, 1], ddof=1))
    assert scores["auc"] == 1
    planted = score(predictions(["x", "x", "y", "y"], [0.1, 0.5, 0.4, 0.9]))
    assert planted["auc"] == planted["auc_fold_mean"] == 0.75
    assert math.isnan(planted["auc_fold_sd"])
    assert planted["accuracy"] == 0.75  # 0.5 is a draw, which goes to x


def test_scores_are_those_of_scikit_learn_and_intervals_hold_them():
    rng = np.random.default_rng(3)
    labels = rng.choice(["x", "y"], 80)
    folds = [np.clip(0.4 + 0.2 * (labels == "y") + 0.2 * rng.normal(size=80), 0, 1) for _ in range(3)]
    scores = score(predictions(labels, *folds))
    assert scores["auc"] == pytest.approx(roc_auc_score(labels == "y", np.mean(folds, 0)))
    assert scores["auc_fold_mean"] == pytest.approx(np.mean([roc_auc_score(labels == "y", p) for p in folds]))
    for name in ("auc", "auc_fold", "accuracy", "f1_fold"):
        value = scores[f"{name}_mean" if name.endswith("fold") else name]
        assert scores[f"{name}_low"] < value < scores[f"{name}_high"]
    assert scores == score(predictions(labels, *folds))  # the same draws


def test_intervals_are_drawn_by_patient():
    """Five slides of each patient, all alike, tell no more than one."""
    rng = np.random.default_rng(5)
    labels, p = rng.choice(["x", "y"], 40), rng.random(40)
    single = score(predictions(labels, p))
    copies = [f"p{i}" for i in range(40)] * 5
    repeated = score(predictions([*labels] * 5, np.tile(p, 5), patients=copies))
    assert repeated["auc"] == pytest.approx(single["auc"])
    width, wide = (of["auc_high"] - of["auc_low"] for of in (repeated, single))
    assert width == pytest.approx(wide, rel=0.15)
    alone = score(predictions([*labels] * 5, np.tile(p, 5)))
    assert alone["auc_high"] - alone["auc_low"] < 0.6 * wide


def test_by_patient_the_mean_over_slides_is_scored_and_patients_of_two_labels_stand_twice():
    table = predictions(["x", "x", "y", "y"], [0.1, 0.7, 0.3, 0.9], patients=["p", "p", "q", "q"])
    assert score(table)["accuracy"] == 0.5
    cases = external_scores.gather_cases(table, TWO, by="patient_id")
    assert cases.ensemble[:, 1].tolist() == pytest.approx([0.4, 0.6])
    assert score(table, by="patient_id")["accuracy"] == 1
    mixed = predictions(["x", "y"], [0.1, 0.7], patients=["p", "p"])
    assert len(external_scores.gather_cases(mixed, TWO, by="patient_id").table) == 2


def test_a_score_without_any_spread_has_the_interval_of_its_patients():
    """All right: as many patients of the rarest class, or in all, as Wilson's interval is of."""
    scores = score(predictions(["x"] * 12 + ["y"] * 4, [0.1] * 12 + [0.9] * 4))
    assert scores["auc"] == scores["accuracy"] == 1
    z2 = external_scores.Z**2
    assert (scores["accuracy_low"], scores["accuracy_high"]) == pytest.approx((16 / (16 + z2), 1))
    assert (scores["auc_low"], scores["auc_high"]) == pytest.approx((4 / (4 + z2), 1))


def test_predictions_that_are_all_alike_are_not_certain():
    """They are at chance in every resample, whose spread says nothing."""
    same = score(predictions(["x"] * 6 + ["y"] * 6, [0.4] * 12))
    assert same["auc"] == 0.5
    assert same["auc_low"] < 0.3 < 0.7 < same["auc_high"]
    ordered = make_endpoint("ordinal", ["x", "y"])
    graded = score(predictions(["x"] * 6 + ["y"] * 6, [0.4] * 12), endpoint=ordered, n_resamples=50)
    assert graded["kappa"] == 0
    assert graded["kappa_low"] < -0.3 < 0.3 < graded["kappa_high"]
    table = predictions(["x"] * 6, [0.4] * 6).assign(label="all", value=1.0, prediction=2.0)
    constant = score(table, endpoint=make_endpoint("regression"), n_resamples=50)
    assert constant["mae"] == 1
    assert math.isnan(constant["mae_low"])


@pytest.mark.parametrize("labels", [["x", "x"], ["y"], []])
def test_one_class_one_patient_or_none_has_no_auc_and_no_error(labels):
    table = predictions(labels, [0.1] * len(labels), [0.2] * len(labels))
    scores = score(table)
    assert math.isnan(scores["auc"])
    assert math.isnan(scores["auc_low"])
    assert (scores["accuracy"] == (labels[0] == "x")) if labels else math.isnan(scores["accuracy"])


def test_other_endpoints_are_scored_by_their_own_scores():
    value = np.arange(12.0)
    table = pd.DataFrame({"slide_id": [f"{i:02}" for i in range(12)], "label": "all", "value": value})
    frame = table.assign(patient_id=table["slide_id"], fold=0, prediction=value + 1)
    scores = score(frame, endpoint=make_endpoint("regression"), n_resamples=50)
    assert (scores["mae"], scores["spearman"]) == pytest.approx((1, 1))
    survival = table.assign(patient_id=table["slide_id"], fold=0, time=value + 1, event=True, risk=-value)
    assert score(survival, endpoint=make_endpoint("survival"), n_resamples=20)["c_index"] == 1


def test_the_operating_point_of_a_cohort_is_not_moved_by_the_external_one():
    table = predictions(["x", "x", "y", "y", "y"], [0.3, 0.75, 0.6, 0.7, 0.8])
    cases = external_scores.gather_cases(table, TWO)
    rates = external_scores.score_operating_point(cases, TWO, 0.7, rng=np.random.default_rng(0))
    assert (rates["threshold"], rates["sensitivity"], rates["specificity"]) == pytest.approx((0.7, 2 / 3, 1 / 2))
    assert rates["ppv"] == pytest.approx(2 / 3)
    assert rates["sensitivity_low"] < 2 / 3 < rates["sensitivity_high"]
    undefined = external_scores.score_operating_point(cases, TWO, math.nan, rng=np.random.default_rng(0))
    assert all(math.isnan(value) for value in undefined.values())
