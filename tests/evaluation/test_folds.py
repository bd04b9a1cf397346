"""Folds are a partition of the slides that no patient straddles."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import Classification, Regression, Survival, read_endpoint
from slpd_core.evaluation import folds, imported_splits, partition, split_audit


def made(slides, n_folds=4, val_fraction=0.2, seed=1, **changes):
    return folds.make_folds(slides, seed, n_folds=n_folds, val_fraction=val_fraction, **changes)


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
def test_every_slide_is_tested_once_and_no_patient_straddles(patients, n_folds, val_fraction, seed):
    slides, n_folds = table(patients), min(n_folds, len(patients))
    found = made(slides, n_folds, val_fraction, seed)
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
    fold = partition.partition(slides, n_folds, seed)
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
    spread = [
        pd.crosstab(slides["label"], fold).std(axis=1).mean() for fold in (partition.partition(slides, 5, 1), theirs)
    ]
    assert spread[0] <= spread[1] + 1e-9


def test_a_shared_patient_goes_where_its_rare_label_is_missing():
    """Dealt by size: 12 x to fold 0, 9 x to fold 1, 4 y to fold 1; the last, 2 x and a y, meets 24 pairs of slides of
    its own labels in fold 0 and 22 in fold 1, but its y, one of five, counts for more than its x, two of 23.
    """
    slides = table([["x"] * 12, ["x"] * 9, ["y"] * 4, ["x", "x", "y"]])
    for seed in range(5):
        fold = pd.Series(partition.partition(slides, 2, seed)).groupby(slides["patient_id"]).first()
        assert fold.to_dict() == {"p0": 0, "p1": 1, "p2": 1, "p3": 0}


def test_a_patient_goes_where_its_label_is_missing_however_full_that_fold_is():
    """Dealt by size: 10 x to fold 0, 5 y to the smaller fold 1, 4 y to fold 0, which has none, 3 x to fold 1."""
    slides = table([["x"] * 10, ["y"] * 5, ["y"] * 4, ["x"] * 3])
    for seed in range(5):
        fold = pd.Series(partition.partition(slides, 2, seed)).groupby(slides["patient_id"]).first()
        assert fold.to_dict() == {"p0": 0, "p1": 1, "p2": 0, "p3": 1}


def test_labels_are_spread_over_the_folds(make_slides):
    found = made(make_slides(12))
    tested = found[found["part"] == "test"].groupby(["fold", "label"])["patient_id"].nunique()
    assert tested.between(2, 4).all()
    assert len(tested) == 8


def test_validation_is_a_share_of_the_training_patients_of_each_label(make_slides):
    found = made(make_slides(20, slides=(1,)), n_folds=4, val_fraction=0.2)
    counts = found.groupby(["fold", "label", "part"]).size().unstack()
    assert (counts["val"] == 3).all()
    assert (counts["train"] == 12).all()
    assert (counts["test"] == 5).all()
    assert "val" not in set(made(make_slides(20), val_fraction=0.0)["part"])


def test_a_small_share_still_gives_a_validation_patient(make_slides):
    found = made(make_slides(4, slides=(1,)), n_folds=4, val_fraction=0.1)
    assert (found[found["part"] == "val"].groupby("fold").size() == 1).all()
    assert found.loc[found["part"] == "val", "fold"].nunique() == 4


def test_no_patient_is_set_aside_unless_asked_for(make_slides):
    assert set(folds.make_folds(make_slides(20), 1)["part"]) == {"train", "test"}


@pytest.mark.parametrize("changes", [{"val_fraction": 0.2}, {"train_fraction": 0.8}], ids=str)
def test_what_is_set_aside_is_drawn_anew_in_each_fold(make_slides, changes):
    """Patients of equal labels, dealt evenly: equal draws would take the same places in each fold."""
    found = folds.make_folds(make_slides(20, slides=(1,)), 1, n_folds=4, **changes).query("part != 'test'")
    assert len({tuple(np.flatnonzero(rows["part"] != "train")) for _, rows in found.groupby("fold")}) == 4


def test_validation_leaves_a_training_patient_of_a_label_that_no_patient_has_alone():
    slides = table([["x", "y"], ["x", "y"], *[["x"]] * 8])
    for seed in range(20):
        chosen = partition.hold_out(slides, 0.9, np.random.default_rng(seed))
        assert len(chosen & {"p0", "p1"}) <= 1
        assert len(chosen) >= 8


def test_as_many_folds_as_patients_are_dealt(make_slides):
    found = made(make_slides(3, slides=(1,)), n_folds=6, val_fraction=0.0)
    assert (found[found["part"] == "test"].groupby("fold").size() == 1).all()


def test_the_order_of_the_sheet_does_not_matter_and_the_seed_does(make_slides):
    slides = make_slides(12)
    shuffled = slides.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(made(slides), made(shuffled))
    assert not made(slides).equals(made(slides, seed=2))


def test_fewer_patients_than_folds_are_refused(make_slides):
    with pytest.raises(ValueError, match=r"folds\.n_folds: 7 folds, but only 6 patients; lower it to 6"):
        made(make_slides(3), n_folds=7)


def test_one_label_is_refused(make_slides):
    with pytest.raises(ValueError, match=r"only one label is left \(x\)"):
        made(make_slides(5, ("x",)))


def test_no_slide_is_refused(make_slides):
    with pytest.raises(ValueError, match="no slide is left"):
        made(make_slides(0))


def test_a_label_of_one_patient_is_refused(make_slides):
    slides = pd.concat([make_slides(6, ("x",)), make_slides(1, ("rare",), slides=(3,))])
    with pytest.raises(ValueError, match="label 'rare' has one patient only"):
        made(slides)


def test_a_label_with_fewer_patients_than_folds_is_named(make_slides, caplog):
    slides = pd.concat([make_slides(9, ("x",)), make_slides(3, ("rare",))])
    with caplog.at_level(logging.WARNING):
        made(slides, n_folds=5)
    assert "fewer patients than folds for rare (3)" in caplog.text


def test_a_patient_with_two_labels_stays_whole(make_slides):
    slides = make_slides(8)
    slides.loc[slides["slide_id"] == "y00-0", "patient_id"] = "x00"
    assert (made(slides).groupby(["fold", "patient_id"])["part"].nunique() == 1).all()


def test_repeats_are_other_partitions_and_the_first_stays(make_slides):
    slides = make_slides(12)
    once = made(slides)
    found = made(slides, n_repeats=3)
    pd.testing.assert_frame_equal(found[found["fold"] < 4], once)
    tested = found[found["part"] == "test"].sort_values("slide_id")
    assert (tested.groupby("slide_id").size() == 3).all()
    dealt = [frozenset(rows["slide_id"]) for _, rows in tested.groupby("fold")]
    assert sorted(found["fold"].unique()) == [*range(12)]
    assert len({frozenset(dealt[first : first + 4]) for first in (0, 4, 8)}) == 3


def test_a_share_of_the_training_patients_trains(make_slides):
    slides = make_slides(20, slides=(1,))
    counts = made(slides, train_fraction=0.25).groupby(["fold", "label", "part"]).size().unstack()
    assert (counts == {"test": 5, "train": 3, "unlabeled": 9, "val": 3}).all().all()


def with_sites(slides, sites):
    return slides.assign(site=slides["patient_id"].map(dict(zip(slides["patient_id"].unique(), sites, strict=True))))


def test_no_site_straddles_where_sites_are_kept_whole(make_slides):
    """Given ones, and those of TCGA barcodes; a patient seen in two joins them."""
    slides = with_sites(make_slides(12, slides=(1, 2)), [f"h{n % 7}" for n in range(24)])
    two = slides[slides["site"].isin(("h0", "h1"))].groupby("site")["slide_id"].first()
    slides.loc[slides["slide_id"].isin(two), "patient_id"] = "both"
    found = folds.make_folds(slides, 1, n_folds=4, group_by="site")
    joined = slides.set_index("slide_id")["site"].replace({"h1": "h0"})
    assert (found.assign(site=found["slide_id"].map(joined)).groupby(["fold", "site"])["part"].nunique() == 1).all()
    assert set(found["patient_id"]) == set(slides["patient_id"])
    barcodes = slides.assign(site="", patient_id="TCGA-" + slides["site"].str.upper() + "-" + slides["patient_id"])
    assert set(partition.group_ids(barcodes, "site")) == {f"H{n}" for n in range(7)}
    of_slides = barcodes.assign(slide_id=barcodes["patient_id"] + "-01", patient_id=slides["slide_id"])
    assert set(partition.group_ids(of_slides, "site")) == {f"H{n}" for n in range(7)}


def test_a_slide_without_a_site_is_named(make_slides):
    slides = with_sites(make_slides(6), ["a"] * 11 + [""])
    with pytest.raises(ValueError, match=r"folds\.group_by: slide y05-0 has no site .* no TCGA barcode"):
        folds.make_folds(slides, 1, n_folds=2, group_by="site")


def test_fewer_sites_than_folds_are_refused(make_slides):
    slides = with_sites(make_slides(6), [f"h{n % 3}" for n in range(12)])
    with pytest.raises(ValueError, match=r"folds\.n_folds: 10 folds, but only 3 sites; lower it to 3 or add sites"):
        folds.make_folds(slides, 1, group_by="site")


@pytest.fixture
def run_stage(settings, tmp_path):
    """Run the stage on a table of slides, some with another status, some without a label, some of equal content; gives
    the folds and the remarks.
    """

    def run(slides, status=(), unlabeled=(), contents=(), **changes):
        ids = slides["slide_id"]
        ledger = slides.assign(status=[dict(status).get(slide, artifacts.OK) for slide in ids])
        ledger["slide_fingerprint"] = [dict(contents).get(slide, slide) for slide in ids]
        for column in artifacts.TABLES["ledger"]:
            ledger[column] = ledger.get(column, np.nan)
        sheet = slides.assign(path="", mpp=np.nan, site=slides.get("site", ""))
        tables = {"ledger": ledger.drop(columns="label"), "sheet": sheet, "labels": slides[~ids.isin(unlabeled)]}
        for name, frame in tables.items():
            meta = artifacts.provenance(name, 1, {}) | {"task": "subtype"} | Classification().meta
            artifacts.write_table(tmp_path / f"{name}.parquet", name, frame, meta)
        section = config.FoldsConfig(**settings.folds.model_dump() | {"n_folds": 3} | changes)
        paths = {f"{name}_path": tmp_path / f"{name}.parquet" for name in tables}
        remarks = tmp_path / "remarks.parquet"
        folds.run(**paths, out_path=tmp_path / "f.parquet", remarks_path=remarks, section=section, seed=1)
        found, meta = artifacts.read_table(tmp_path / "f.parquet", "folds")
        assert (meta["stage"], meta["ledger"]) == ("folds", artifacts.provenance("ledger", 1, {})["fingerprint"])
        assert meta["task"] == "subtype"
        assert read_endpoint(meta) == Classification(tuple(sorted(found["label"].unique())))
        return found, artifacts.read_table(remarks, "remarks")[0]

    return run


def test_the_stage_takes_the_slides_the_ledger_admits_and_lists_the_others(run_stage, make_slides):
    slides = make_slides(6)
    found, remarks = run_stage(slides, {"x00-0": artifacts.QUARANTINED, "x01-0": artifacts.EMPTY})
    assert set(found["slide_id"]) == set(slides["slide_id"]) - {"x00-0", "x01-0"}
    assert remarks.to_numpy().tolist() == [["quarantined", "x00-0", ""], ["without regions", "x01-0", ""]]


def test_slides_without_a_label_are_in_no_fold_of_the_task_and_are_listed(run_stage, make_slides):
    """The folds are those of the other slides alone; of a slide that could not be used, that is the remark."""
    slides, without = make_slides(6), ["x00-0", "y01-1", "x02-0"]
    table, remarks = run_stage(slides, {"x02-0": artifacts.QUARANTINED}, unlabeled=without)
    expected, _ = run_stage(slides[~slides["slide_id"].isin(without)])
    pd.testing.assert_frame_equal(table, expected)
    listed = [["without a label", "x00-0", ""], ["quarantined", "x02-0", ""], ["without a label", "y01-1", ""]]
    assert remarks.to_numpy().tolist() == listed


def test_a_listed_slide_without_a_label_is_in_no_fold(run_stage, make_slides, tmp_path):
    """An imported split lists it; a part that has no other slide is refused."""
    split = {"train": ["x00-0", "x01-0", "y00-0"], "test": ["x02-0", "y01-0"]}
    folder, slides = write_splits(tmp_path / "splits", split), make_slides(3, slides=(1,))
    table, remarks = run_stage(slides, unlabeled=["x01-0", "y02-0"], splits_dir=folder)
    parts = {"x00-0": "train", "y00-0": "train", "x02-0": "test", "y01-0": "test"}
    assert table.set_index("slide_id")["part"].to_dict() == parts
    listed = remarks.groupby("remark")["id"].agg(list).to_dict()
    assert listed == {"without a label": ["x01-0", "y02-0"], "never tested": ["x00-0", "y00-0"]}
    with pytest.raises(ValueError, match=r"no slide is left to test; all 2 of its slides .* or without a label"):
        run_stage(slides, unlabeled=split["test"], splits_dir=folder)


@pytest.mark.parametrize(
    ("status", "unlabeled"),
    [((), ()), ({"y00-0": artifacts.QUARANTINED}, ()), ((), ["x00-0"])],
    ids=["used", "not usable", "without a label"],
)
def test_equal_slides_of_two_labels_are_refused_where_both_are_used(run_stage, make_slides, status, unlabeled):
    """Of one label they may be; and so may those that take no part in the task."""
    run_stage(make_slides(6), contents={"x00-0": "same", "x01-0": "same"})
    copies = {"x00-0": "same", "y00-0": "same", "y01-0": "other", "x01-1": "other"}
    with pytest.raises(ValueError, match=r"x01-1, y01-0 are the same slide, .* of labels 'x', 'y'; correct") as error:
        run_stage(make_slides(6), status, unlabeled, copies)
    named = "x00-0, y00-0 are the same slide, byte for byte, of labels 'x', 'y'" in str(error.value)
    assert named == (not status and not unlabeled)


def test_what_the_labels_leave_is_checked_before_any_work(make_slides):
    """Without a label are "" here; those left are too few for the folds, or of one label."""
    slides = make_slides(6, slides=(1,))
    folds.require_folds(slides, n_folds=12)
    with pytest.raises(ValueError, match=r"folds\.n_folds: 12 folds, but only 11 patients; lower it to 11"):
        folds.require_folds(slides.assign(label=["", *slides["label"][1:]]), n_folds=12)
    with pytest.raises(ValueError, match=r"only one label is left \(x\)"):
        folds.require_folds(slides.assign(label=slides["label"].replace("y", "")), n_folds=2)


def write_splits(folder, *splits):
    """Files as CLAM writes them: an index and columns of unequal length."""
    folder.mkdir()
    for number, parts in enumerate(splits):
        columns = {part: pd.Series(parts.get(part, []), dtype=str) for part in ("train", "val", "test")}
        pd.DataFrame(columns).to_csv(folder / f"splits_{number}.csv")
        (folder / f"splits_{number}_bool.csv").write_text("not this one")
    return str(folder)


def test_imported_splits_are_taken_as_they_are_and_their_leaks_listed(run_stage, make_slides, tmp_path, caplog):
    """Six patients, those of odd number with two slides; ids with and without extension, dots inside."""
    slides = make_slides(3, slides=(1, 2))
    slides["slide_id"] = slides["slide_id"] + ".a.b"
    slides.loc[0, "slide_id"] += ".svs"
    names = ["x00-0", "x01-0", "x01-1", "x02-0", "y00-0", "y01-0", "y01-1", "y02-0"]
    a, b, c, d, e, f, g, h = (f"{name}.a.b" for name in names)
    splits = write_splits(
        tmp_path / "splits",
        {"train": [a, b, f, "strange"], "val": [g], "test": [c, e, "stranger"]},
        {"train": [c, f + ".svs", e], "val": [], "test": [a + ".SVS", b, "strange"]},
    )
    found, remarks = run_stage(slides, {d: artifacts.EMPTY}, splits_dir=splits)
    parts = found.set_index(["fold", "slide_id"])["part"]
    assert parts[0].to_dict() == {a + ".svs": "train", b: "train", f: "train", g: "val", c: "test", e: "test"}
    assert parts[1].to_dict() == {c: "train", f: "train", e: "train", a + ".svs": "test", b: "test"}
    listed = remarks.groupby("remark")[["id", "fold"]].agg(list).T.to_dict("list")
    assert listed == {
        "without regions": [[d], [""]],
        "in the splits, not in the sheet": [["strange", "stranger"], ["", ""]],
        "in no split": [[h], [""]],
        "patient on both sides": [["x01", "x01"], ["0", "1"]],
        "label not tested": [["y"], ["1"]],
        "never tested": [[f, g], ["", ""]],
    }
    assert "in the splits, not in the sheet: 2 (strange, stranger)" in caplog.text
    assert "patient on both sides: 1 (x01)" in caplog.text


def test_a_listed_slide_that_is_not_usable_is_in_no_fold(run_stage, make_slides, tmp_path):
    split = {"train": ["x00-0", "x01-0", "y00-0"], "test": ["x02-0", "y01-0"]}
    folder = write_splits(tmp_path / "splits", split)
    table, _ = run_stage(make_slides(3, slides=(1,)), {"x01-0": artifacts.QUARANTINED}, splits_dir=folder)
    parts = {"x00-0": "train", "y00-0": "train", "x02-0": "test", "y01-0": "test"}
    assert table.set_index("slide_id")["part"].to_dict() == parts


def test_a_patient_that_validates_and_tests_is_on_both_sides():
    rows = [(0, "a-0", "a", "x", "val"), (0, "a-1", "a", "x", "test"), (0, "b-0", "b", "y", "train")]
    issues = split_audit.audit_folds(pd.DataFrame(rows, columns=[*artifacts.TABLES["folds"]]))
    assert split_audit.SplitIssue("patient on both sides", "a", "0") in issues


def test_a_label_that_a_part_lacks_is_remarked(run_stage, make_slides, tmp_path):
    """Of a partition, where a label has fewer patients than there are folds; of splits, also where none trains."""
    slides = make_slides(3, ("x", "y", "z"), slides=(1,))
    few = slides[slides["slide_id"] != "z02-0"]
    found, remarks = run_stage(few)
    tested = set(found.loc[(found["part"] == "test") & (found["label"] == "z"), "fold"])
    without = {str(fold) for fold in range(3) if fold not in tested}
    assert len(without) == 1
    assert remarks.to_numpy().tolist() == [["label not tested", "z", fold] for fold in without]
    names = [*slides["slide_id"]]
    splits = write_splits(
        tmp_path / "splits",
        {"train": [*names[:2], *names[3:5]], "test": [names[2], names[5], *names[6:]]},
        {"train": names[:7], "val": [names[8]], "test": [names[7]]},
    )
    remarks = run_stage(slides, splits_dir=splits)[1].query("remark.str.startswith('label')")
    lacking = [["label not trained", "z", "0"], ["label not tested", "x", "1"], ["label not tested", "y", "1"]]
    assert remarks.to_numpy().tolist() == lacking


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": ["x00-0"], "test": ["x00-0.svs"]}, r"splits_0\.csv: slide 'x00-0' is listed twice \(1 such"),
        (
            {"train": ["x00-0"], "test": ["other"]},
            r"splits_0\.csv: no slide is left to test; 1 ids match no slide .* 'other', where",
        ),
    ],
)
def test_a_split_that_cannot_serve_is_refused(run_stage, make_slides, tmp_path, parts, message):
    with pytest.raises(ValueError, match=message):
        run_stage(make_slides(6), splits_dir=write_splits(tmp_path / "splits", parts))


def test_ids_of_splits_that_are_numbers_or_composed_otherwise_match(run_stage, make_slides, tmp_path):
    """As pandas writes a column with gaps, a Mac an umlaut and a spreadsheet of Germany its columns."""
    slides = make_slides(6)
    slides["slide_id"] = ["Gr\u00f6\u00dfe", *(str(number) for number in range(101, 100 + len(slides)))]
    folder = tmp_path / "splits"
    folder.mkdir()
    text = "train;val;test\n101;104.0;102.0\nGro\u0308\u00dfe ;;107.0\n109\n"
    (folder / "splits_0.csv").write_text(text, encoding="utf-16")
    found, remarks = run_stage(slides, splits_dir=str(folder))
    parts = found.set_index("slide_id")["part"].to_dict()
    train = {"101": "train", "Gr\u00f6\u00dfe": "train", "109": "train"}
    assert parts == train | {"104": "val", "102": "test", "107": "test"}
    assert "in the splits, not in the sheet" not in set(remarks["remark"])


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        ("X00-0", "their case"),
        ("x0-0", "their zeros and separators"),
        ("slides/a/x00-0.svs", "their folders"),
        ("x00-0.83fce43e-42ac-4dcd-b156-2908e75f2e47.svs", "the UUID at their ends"),
    ],
)
def test_ids_that_nearly_match_are_said_to(make_slides, tmp_path, theirs, hint):
    slides = make_slides(2, slides=(1,)).assign(status=artifacts.OK)
    write_splits(tmp_path / "splits", {"train": ["y00-0"], "test": ["other", theirs]})
    with pytest.raises(ValueError, match="2 ids match no slide of the sheet") as error:
        imported_splits.import_folds([tmp_path / "splits" / "splits_0.csv"], slides)
    assert f"{theirs!r} and the sheet's 'x00-0' differ only in {hint}" in str(error.value)


def test_slides_that_a_split_cannot_tell_apart_are_refused(run_stage, make_slides, tmp_path):
    slides = make_slides(6)
    slides.loc[[0, 1], "slide_id"] = ["a.svs", "a.tif"]
    with pytest.raises(ValueError, match=r"slides a\.svs and a\.tif of the sheet differ in their extension only"):
        run_stage(slides, splits_dir=write_splits(tmp_path / "splits", {"train": ["a"], "test": ["y00-0"]}))


def test_a_slide_may_be_called_na(run_stage, make_slides, tmp_path):
    slides = make_slides(6)
    slides.loc[0, "slide_id"] = "NA"
    found, _ = run_stage(
        slides, splits_dir=write_splits(tmp_path / "splits", {"train": ["NA", "y01-0"], "test": ["y00-0"]})
    )
    assert set(found["slide_id"]) == {"NA", "y00-0", "y01-0"}


def test_a_split_that_trains_one_label_is_refused_before_any_work(settings, run_stage, make_slides, tmp_path):
    slides, folder = make_slides(3), write_splits(tmp_path / "splits", {"train": ["x00-0"], "test": ["y00-0"]})
    section = config.FoldsConfig(**settings.folds.model_dump() | {"splits_dir": folder})
    for check in (lambda: folds.require_folds(slides, section.files), lambda: run_stage(slides, splits_dir=folder)):
        with pytest.raises(ValueError, match=r"fold 0: its training slides have one label only \(x\)"):
            check()


def test_a_table_of_something_else_is_refused(run_stage, make_slides, tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "splits_0.csv").write_text("training,testing\na,b\n")
    with pytest.raises(ValueError, match=r"no column train, val, test among training, testing"):
        run_stage(make_slides(6), splits_dir=str(tmp_path / "splits"))


def test_splits_are_numbered_from_0_without_a_gap(settings, tmp_path):
    folder = write_splits(tmp_path / "splits", {}, {}, {})
    section = config.FoldsConfig(**settings.folds.model_dump() | {"splits_dir": folder})
    assert (section.count, [path.name for path in section.files]) == (3, [f"splits_{n}.csv" for n in range(3)])
    (tmp_path / "splits" / "splits_1.csv").unlink()
    with pytest.raises(ValueError, match=r"splits_0\.csv, splits_2\.csv; number them from 0 without a gap"):
        config.FoldsConfig(**settings.folds.model_dump() | {"splits_dir": folder})
    nowhere = config.FoldsConfig(**settings.folds.model_dump() | {"splits_dir": "nowhere"})
    with pytest.raises(FileNotFoundError, match=r"folds\.splits_dir: no splits_0\.csv in nowhere; .*null .*drawn here"):
        nowhere.require_splits()
    settings.folds.require_splits()
    assert settings.folds.model_copy(update={"n_folds": 4, "n_repeats": 3}).count == 12


def plant_survival(n: int, n_slides: int = 1) -> pd.DataFrame:
    """Patients with follow-up, of which every fourth has an event."""
    rng = np.random.default_rng(0)
    rows = [(f"p{i:03d}", rng.exponential(), i % 4 == 0) for i in range(n)]
    patients = pd.DataFrame(rows, columns=["patient_id", "time", "event"])
    slides = patients.loc[patients.index.repeat(n_slides)].reset_index(drop=True)
    slides["slide_id"] = [f"{patient}-{i % n_slides}" for i, patient in enumerate(slides["patient_id"])]
    return slides.assign(label=Survival().group(slides))


@pytest.mark.parametrize("group_by", ["patient", "site"])
def test_events_are_divided_evenly_and_patients_stay_together(group_by):
    slides = plant_survival(80, 2).assign(site=lambda frame: frame["patient_id"].str[-2:])
    parts = folds.make_folds(slides, 1, Survival(), n_folds=5, group_by=group_by, val_fraction=0.2)
    parts = folds.add_truth(parts, slides, Survival())
    tested = parts[parts["part"] == "test"]
    assert tested["slide_id"].tolist().sort() == slides["slide_id"].tolist().sort()
    assert tested.groupby("fold")["event"].sum().between(7, 9).all()  # of 40 slides with events, and 5 folds
    sides = parts[parts["part"] != "unlabeled"].groupby(["fold", "patient_id"])["part"].nunique()
    assert (sides == 1).all()
    expected = slides.set_index("slide_id")[["time", "event"]].loc[parts["slide_id"]]
    np.testing.assert_array_equal(parts[["time", "event"]].to_numpy(), expected.to_numpy())


def test_numbers_are_divided_by_their_quartiles():
    values = np.random.default_rng(1).normal(size=60)
    slides = pd.DataFrame({"slide_id": [f"s{i:02d}" for i in range(60)], "value": values})
    slides = slides.assign(patient_id=slides["slide_id"], label=Regression().group(slides))
    parts = folds.make_folds(slides, 1, Regression(), n_folds=5)
    tested = parts[parts["part"] == "test"]
    counts = pd.crosstab(tested["fold"], tested["label"]).to_numpy()
    assert counts.min() >= 2
    assert counts.max() <= 4


def test_groups_that_are_no_classes_may_be_rare():
    slides = plant_survival(12).assign(event=lambda frame: frame.index == 3)
    slides = slides.assign(label=Survival().group(slides))
    assert len(folds.make_folds(slides, 1, Survival(), n_folds=3)) == 36
    with pytest.raises(ValueError, match="label 'event' has one patient only"):
        folds.make_folds(slides, 1, n_folds=3)


def test_a_part_without_an_event_is_remarked_and_a_training_part_refused():
    slides = plant_survival(12).assign(event=lambda frame: frame.index == 3)
    slides = slides.assign(label=Survival().group(slides), time=np.arange(12.0))
    parts = folds.add_truth(folds.make_folds(slides, 1, Survival(), n_folds=3), slides, Survival())
    issues = split_audit.audit_folds(parts, Survival())
    assert sorted(issue.remark for issue in issues) == ["label not tested"] * 2 + ["label not trained"]
    assert {issue.id for issue in issues} == {"event"}
    with pytest.raises(ValueError, match=r"fold \d: its training slides have no event; lower folds"):
        folds.require_training(parts, Survival())


def test_copies_of_a_slide_have_one_truth():
    slides = plant_survival(3).assign(slide_fingerprint=["a", "a", "b"])
    with pytest.raises(ValueError, match=r"p000-0, p001-0 are the same slide, byte for byte, of labels .* and True, "):
        folds.require_equal_labels(slides, Survival())
    folds.require_equal_labels(slides.assign(time=1.0, event=True), Survival())
