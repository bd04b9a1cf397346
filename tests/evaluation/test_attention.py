"""Attention: of each test slide by its fold's classifier, region by region, within the slide."""

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.evaluation import attention, classifiers, features


def test_a_row_per_fold_test_slide_and_region_is_that_of_the_folds_classifier(cohort, attend):
    attend(cohort)
    table, _ = artifacts.read_table(cohort / "attention.parquet", "attention")
    folds, _ = artifacts.read_table(cohort / "folds.parquet", "folds")
    embed, _ = artifacts.read_table(cohort / "embed.parquet", "embed")
    read, _ = features.region_features(cohort / "embed.parquet")
    tested = folds[folds["part"] == "test"]
    assert {*zip(table["fold"], table["slide_id"], strict=True)} == {
        *zip(tested["fold"], tested["slide_id"], strict=True)
    }
    assert len(table) == len(embed)
    for (fold, slide), rows in table.groupby(["fold", "slide_id"]):
        model, _ = classifiers.read_classifier(cohort / f"fold{fold}.safetensors")
        _, expected = classifiers.build_predictor(model)(read(slide))
        np.testing.assert_array_equal(rows["attention"], expected)
        assert rows["attention"].sum() == pytest.approx(1)
        of_slide = embed[embed["slide_id"] == slide]
        assert rows[["x", "y"]].to_numpy().tolist() == of_slide[["x", "y"]].to_numpy().tolist()


def test_two_runs_have_equal_bytes(cohort, attend):
    attend(cohort)
    content = (cohort / "attention.parquet").read_bytes()
    attend(cohort)
    assert (cohort / "attention.parquet").read_bytes() == content


@pytest.mark.parametrize("name", ["embed.parquet", "fold0.safetensors"])
def test_what_another_cohort_made_is_refused(cohort, attend, name):
    folds_table, meta = artifacts.read_table(cohort / "folds.parquet", "folds")
    artifacts.write_table(cohort / "folds.parquet", "folds", folds_table, meta | {"ledger": "ours"})
    attend(cohort)
    frame, meta = artifacts.read_table(cohort / "embed.parquet", "embed")
    if name == "embed.parquet":
        artifacts.write_table(cohort / name, "embed", frame, meta | {"ledger": "theirs"})
    else:
        classifiers.write_classifier(
            cohort / name, classifiers.read_classifier(cohort / name)[0], {"ledger": "theirs", "bags": "slide"}
        )
    with pytest.raises(ValueError, match=f"{name}: was made from another ledger"):
        attend(cohort)


def test_the_attention_to_a_bag_is_divided_among_its_slides():
    vectors = {name: np.full((n, 2), n, np.float32) for name, n in (("a", 2), ("b", 3), ("c", 1))}

    def predict(bag):
        return bag.sum(0), bag[:, 0].astype(float) / bag[:, 0].sum()

    within = attention.attend_bag(predict, vectors.__getitem__, ["a", "b", "c"])
    assert [part.tolist() for part in within] == [[0.5] * 2, pytest.approx([1 / 3] * 3), [1]]
    assert attention.attend_bag(predict, vectors.__getitem__, ["a"])[0].tolist() == [0.5, 0.5]


def test_a_patients_slides_are_one_bag_where_the_classifier_was_fitted_so():
    vectors = {name: np.full((n, 1), n, np.float32) for name, n in (("a", 2), ("b", 3), ("c", 1))}
    tested = pd.DataFrame({"slide_id": ["c", "b", "a"], "patient_id": ["q", "p", "p"]})
    bags = []

    def predict(bag):
        bags.append(bag[:, 0].tolist())
        return bag.sum(0), np.full(len(bag), 1 / len(bag))

    by_patient = attention.attend_fold(predict, vectors.__getitem__, tested, "patient")
    assert bags == [[2, 2, 3, 3, 3], [1]]
    assert {name: len(part) for name, part in by_patient.items()} == {"a": 2, "b": 3, "c": 1}
    assert all(part.sum() == pytest.approx(1) for part in by_patient.values())
    attention.attend_fold(predict, vectors.__getitem__, tested, "slide")
    assert bags[2:] == [[2, 2], [3, 3, 3], [1]]
