"""Folds are a partition of the slides that no patient straddles."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slpd_core import runtime, store
from slpd_core.evaluation import folds


def made(slides, settings, n_folds=4, val_fraction=0.2, seed=1):
    section = settings.folds.model_copy(update={"n_folds": n_folds, "val_fraction": val_fraction})
    return folds.make_folds(slides, section, seed)


# Patients as the labels of their slides, some with two; every label on two patients or more.
cohorts = st.lists(st.lists(st.sampled_from("xxxyyz"), min_size=1, max_size=4), min_size=4, max_size=30).filter(
    lambda patients: (
        all(sum(label in own for own in patients) != 1 and any(label in own for own in patients) for label in "xy")
        and sum("z" in own for own in patients) != 1
    )
)


def table(patients):
    rows = [(f"{p}-{s}", f"p{p}", label) for p, own in enumerate(patients) for s, label in enumerate(own)]
    return pd.DataFrame(rows, columns=["slide_id", "patient_id", "label"])


@hypothesis_settings(max_examples=60)
@given(cohorts, st.integers(2, 10), st.floats(0, 0.9), st.integers(0, 99))
def test_every_slide_is_tested_once_and_no_patient_straddles(settings, patients, n_folds, val_fraction, seed):
    slides, n_folds = table(patients), min(n_folds, len(patients))
    found = made(slides, settings, n_folds, val_fraction, seed)
    assert found.groupby("fold")["slide_id"].apply(set).tolist() == [set(slides["slide_id"])] * n_folds
    assert sorted(found.loc[found["part"] == "test", "slide_id"]) == sorted(slides["slide_id"])
    assert (found.groupby(["fold", "patient_id"])["part"].nunique() == 1).all()
    assert set(found["part"]) <= {"train", "val", "test"}
    for _, rows in found.groupby("fold"):
        assert (rows["part"] == "test").any()
        training = rows[rows["part"] == "train"]
        assert set(training["label"]) == set(rows.loc[rows["part"] != "test", "label"])


@hypothesis_settings(max_examples=40)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(2, 12), st.integers(0, 99))
def test_each_label_is_dealt_evenly(a, b, n_folds, seed):
    slides = table([["x"]] * a + [["y"]] * b)
    fold = folds.partition(slides, n_folds, seed)
    for label, patients in (("x", a), ("y", b)):
        dealt = np.bincount(fold[slides["label"] == label], minlength=n_folds)
        assert dealt.max() - dealt.min() <= 1
        assert dealt.sum() == patients


def test_patients_of_many_slides_are_balanced_as_scikit_learn_does(make_slides):
    from sklearn.model_selection import StratifiedGroupKFold

    slides = make_slides(30, slides=(1, 1, 2, 1, 7, 1, 3))
    theirs = np.empty(len(slides), np.int64)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for number, (_, tested) in enumerate(splitter.split(slides, slides["label"], slides["patient_id"])):
        theirs[tested] = number
    spread = [pd.crosstab(slides["label"], fold).std(axis=1).mean() for fold in (folds.partition(slides, 5, 1), theirs)]
    assert spread[0] <= spread[1] + 1e-9


def test_a_shared_patient_goes_where_its_rare_label_is_missing():
    """Dealt by size: 12 x to fold 0, 9 x to fold 1, 4 y to fold 1; the last, 2 x and a y, meets 24 pairs of slides of
    its own labels in fold 0 and 22 in fold 1, but its y, one of five, counts for more than its x, two of 23.
    """
    slides = table([["x"] * 12, ["x"] * 9, ["y"] * 4, ["x", "x", "y"]])
    for seed in range(5):
        fold = pd.Series(folds.partition(slides, 2, seed)).groupby(slides["patient_id"]).first()
        assert fold.to_dict() == {"p0": 0, "p1": 1, "p2": 1, "p3": 0}


def test_labels_are_spread_over_the_folds(settings, make_slides):
    found = made(make_slides(12), settings)
    tested = found[found["part"] == "test"].groupby(["fold", "label"])["patient_id"].nunique()
    assert tested.between(2, 4).all()
    assert len(tested) == 8


def test_validation_is_a_share_of_the_training_patients_of_each_label(settings, make_slides):
    found = made(make_slides(20, slides=(1,)), settings, n_folds=4, val_fraction=0.2)
    counts = found.groupby(["fold", "label", "part"]).size().unstack()
    assert (counts["val"] == 3).all()
    assert (counts["train"] == 12).all()
    assert (counts["test"] == 5).all()
    assert "val" not in set(made(make_slides(20), settings, val_fraction=0.0)["part"])


def test_a_small_share_still_gives_a_validation_patient(settings, make_slides):
    found = made(make_slides(4, slides=(1,)), settings, n_folds=4, val_fraction=0.1)
    assert (found[found["part"] == "val"].groupby("fold").size() == 1).all()
    assert found.loc[found["part"] == "val", "fold"].nunique() == 4


def test_validation_leaves_a_training_patient_of_a_label_that_no_patient_has_alone():
    slides = table([["x", "y"], ["x", "y"], *[["x"]] * 8])
    for seed in range(20):
        chosen = folds.validation_patients(slides, 0.9, np.random.default_rng(seed))
        assert len(chosen & {"p0", "p1"}) <= 1
        assert len(chosen) >= 8


def test_as_many_folds_as_patients_are_dealt(settings, make_slides):
    found = made(make_slides(3, slides=(1,)), settings, n_folds=6, val_fraction=0.0)
    assert (found[found["part"] == "test"].groupby("fold").size() == 1).all()


def test_the_order_of_the_sheet_does_not_matter_and_the_seed_does(settings, make_slides):
    slides = make_slides(12)
    shuffled = slides.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(made(slides, settings), made(shuffled, settings))
    assert not made(slides, settings).equals(made(slides, settings, seed=2))


def test_fewer_patients_than_folds_are_refused(settings, make_slides):
    with pytest.raises(ValueError, match=r"folds\.n_folds: 7 folds of 6 patients; lower it to 6"):
        made(make_slides(3), settings, n_folds=7)


def test_one_label_is_refused(settings, make_slides):
    with pytest.raises(ValueError, match=r"one label only are left \(x\)"):
        made(make_slides(5, ("x",)), settings)


def test_no_slide_is_refused(settings, make_slides):
    with pytest.raises(ValueError, match="no slide is left"):
        made(make_slides(0), settings)


def test_a_label_of_one_patient_is_refused(settings, make_slides):
    slides = pd.concat([make_slides(6, ("x",)), make_slides(1, ("rare",), slides=(3,))])
    with pytest.raises(ValueError, match="label 'rare' stands on one patient only"):
        made(slides, settings)


def test_a_label_with_fewer_patients_than_folds_is_named(settings, make_slides, caplog, monkeypatch):
    monkeypatch.setattr(runtime.log, "propagate", True)
    slides = pd.concat([make_slides(9, ("x",)), make_slides(3, ("rare",))])
    with caplog.at_level(logging.WARNING):
        made(slides, settings, n_folds=5)
    assert "fewer patients than folds for rare (3)" in caplog.text


def test_a_patient_with_two_labels_stays_whole(settings, make_slides):
    slides = make_slides(8)
    slides.loc[slides["slide_id"] == "y00-0", "patient_id"] = "x00"
    assert (made(slides, settings).groupby(["fold", "patient_id"])["part"].nunique() == 1).all()


def test_the_stage_takes_the_slides_the_ledger_admits(settings, make_slides, tmp_path):
    slides = make_slides(6)
    ledger = slides.assign(status=store.OK)
    for column in store.TABLES["ledger"]:
        ledger[column] = ledger.get(column, np.nan)
    ledger.loc[0, "status"], ledger.loc[1, "status"] = store.QUARANTINED, store.EMPTY
    store.write_table(tmp_path / "l.parquet", "ledger", ledger, store.provenance("ledger", 1, {}))
    section = settings.folds.model_copy(update={"n_folds": 3})
    folds.run(ledger_path=tmp_path / "l.parquet", out_path=tmp_path / "f.parquet", section=section, seed=1)
    found, meta = store.read_table(tmp_path / "f.parquet", "folds")
    assert set(found["slide_id"]) == set(slides["slide_id"][2:])
    assert meta["stage"] == "folds"
