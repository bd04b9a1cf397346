"""Sentences hold the numbers of planted tasks."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import result_rows, result_table, wording
from tests.report.planted_endpoints import FOLLOW_UP, GRADES, VALUES, plant_predictions

CLASSES = make_endpoint("classification", ["x", "y"])


def rows_of(endpoint, classifiers=("knn", "mil"), slides_per_patient=1, bags="slide"):
    """Rows of three folds of twenty slides."""
    meta = {"features": "slpd", "level": "region", "encoder_source": "random", "encoder_name": "vit", "bags": bags}
    folds = []
    for i, classifier in enumerate(classifiers):
        for fold in range(3):
            table = plant_predictions(endpoint, fold, 1.0 + i, n=20, slides_per_patient=slides_per_patient)
            folds.append((table, meta | endpoint.meta | {"classifier": classifier}))
    return result_rows.join_folds(folds, ["slpd"])


def describe(endpoint, **options):
    rows = rows_of(endpoint, **options)
    return wording.describe_statistics(rows, result_table.make_table(rows, rows[-1], endpoint), endpoint)


@pytest.mark.parametrize(
    ("endpoint", "columns", "text", "names"),
    [
        (CLASSES, {"label": ["y", "x", "y"]}, "1 x, 2 y", ["y", "x", "y"]),
        (GRADES, {"label": ["top", "low", "top"]}, "1 low, 2 top", ["top", "low", "top"]),
        (VALUES, {"value": [0.5, 12.0, 3.0]}, "0.5 to 12, median 3", ["t: 0.5", "t: 12", "t: 3"]),
        (
            FOLLOW_UP,
            {"time": [24.0, 24.0, 7.25], "event": [True, True, False]},
            "1 event",  # of one patient with two slides
            ["t: event at 24", "t: event at 24", "t: censored at 7.25"],
        ),
    ],
    ids=["classes", "grades", "values", "follow-up"],
)
def test_the_truth_is_told_in_numbers(endpoint, columns, text, names):
    labels = pd.DataFrame({"slide_id": ["a", "b", "c"], "patient_id": ["p", "p", "q"]} | columns)
    assert wording.describe_truth(labels, endpoint) == text
    assert wording.name_truths("t", labels, endpoint) == dict(zip("abc", names, strict=True))


def test_groups_stand_in_their_order():
    tables = {endpoint: plant_predictions(endpoint, 0, 1.0, n=40) for endpoint in (GRADES, VALUES, FOLLOW_UP)}
    grades, values, follow_up = (wording.order_groups(table, endpoint) for endpoint, table in tables.items())
    assert grades.cat.ordered
    assert [*grades.cat.categories] == ["low", "mid", "top"]
    assert values.cat.ordered
    assert [name[:2] for name in values.cat.categories] == ["q1", "q2", "q3", "q4"]
    names = ["early event", "late event", "early censored", "late censored"]
    assert [name.partition(" (")[0] for name in follow_up.cat.categories] == names
    for endpoint, groups in zip(tables, (grades, values, follow_up), strict=True):
        assert groups.to_dict() == dict(zip(tables[endpoint]["slide_id"], tables[endpoint]["label"], strict=True))
    classes = pd.DataFrame({"slide_id": ["a", "b"], "label": ["y", "x"]})
    assert wording.order_groups(classes, CLASSES).to_dict() == {"a": "y", "b": "x"}


def test_the_number_of_comparisons_is_told_and_that_none_is_corrected():
    assert "It is the only comparison" in describe(VALUES)[1]
    three = describe(GRADES, classifiers=("knn", "logreg", "mil", "abmil"))
    assert three[1].startswith("3 rows are compared in Kappa with the reference row")
    assert "None of these 3 comparisons is corrected for their number" in three[1]
    assert "table.csv also holds MAE with theirs" in three[0]
    assert describe(VALUES, classifiers=("mil",))[1] == "There is one row: nothing is compared."
    assert wording.describe_statistics([], pd.DataFrame(), VALUES) == []


def test_each_kind_names_its_intervals():
    assert (
        "over 60 patients, taken as independent, in Wilson's form; for R² and MAE in Student's" in describe(VALUES)[0]
    )
    of_patients = describe(FOLLOW_UP, slides_per_patient=2, bags="patient")
    assert "over 30 patients, taken as independent, in Wilson's form." in of_patients[0]
    assert "Harrell's" in of_patients[0]


def test_risk_groups_are_of_patients_and_one_log_rank_test_is_named():
    """Two slides per patient; the second fold tests a patient of the first again, with another risk."""
    (row,) = rows_of(FOLLOW_UP, classifiers=("mil",), slides_per_patient=2)
    again = row.cases[row.cases["patient_id"] == "p0-1"].assign(fold=1)
    again["risk"] = -again["risk"] - np.sign(again["risk"])  # its mean has the other sign
    cases = pd.concat([row.cases, again], ignore_index=True)
    planted = result_rows.ResultRow("slpd", "region", "mil", ("random", "vit"), FOLLOW_UP, cases, cases, row.per_fold)
    time, event, high = wording.risk_groups(planted)
    patients = cases.groupby("patient_id").agg({"time": "first", "event": "first", "risk": "mean"})
    assert len(time) == 30
    np.testing.assert_array_equal(high, patients["risk"] > 0)
    assert high.sum() != (row.cases.groupby("patient_id")["risk"].mean() > 0).sum()
    sides = [
        stats.CensoredData(
            patients["time"][side & patients["event"]], right=patients["time"][side & ~patients["event"]]
        )
        for side in (patients["risk"] > 0, patients["risk"] <= 0)
    ]
    p = stats.logrank(*sides).pvalue
    text = wording.describe_risk_groups(planted)
    assert f"30 test patients of all folds together, {event.sum()} with an event" in text
    assert "two-sided, has p = " + f"{p:.3f}".removeprefix("0") in text
    assert not math.isclose(p, stats.logrank(*sides, alternative="less").pvalue)


def test_one_group_alone_has_no_test():
    (row,) = rows_of(FOLLOW_UP, classifiers=("mil",))
    cases = row.cases.assign(risk=1.0)
    planted = result_rows.ResultRow("slpd", "region", "mil", ("random", "vit"), FOLLOW_UP, cases, cases, row.per_fold)
    assert "two-sided, is not defined: a group is empty" in wording.describe_risk_groups(planted)
