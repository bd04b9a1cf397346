"""Labels come from the sheet or a table of their own, by slide or by patient; a slide without one is left out."""

import logging

import openpyxl
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.endpoints import kinds
from slpd_core.evaluation import label_table, labels

SLIDES = pd.DataFrame({"slide_id": ["a1", "a2", "b", "c", "d"], "patient_id": ["a", "a", "b", "c", "d"]})


@pytest.fixture
def table(tmp_path):
    """Write a table of labels; return its path."""

    def write(text: str):
        path = tmp_path / "clinical.csv"
        path.write_text(text)
        return path

    return write


def read(path, **arguments):
    frame = labels.read_labels(path, SLIDES, **arguments)
    assert [*frame.columns] == ["slide_id", "patient_id", "label"]
    return dict(zip(frame["slide_id"], frame["label"], strict=True))


def test_a_slide_has_the_label_of_its_row_and_a_patients_slides_have_that_of_the_patient(table):
    by_slide = table("slide_id,kras\na1,wt\na2,mut\nb.svs,mut\nd,wt\nelsewhere,wt\n")
    assert read(by_slide, columns=["kras"]) == {"a1": "wt", "a2": "mut", "b": "mut", "d": "wt"}
    by_patient = table("patient_id,kras\nb,mut\na,wt\nd,mut\n")
    assert read(by_patient, columns=["kras"], key="patient_id") == {"a1": "wt", "a2": "wt", "b": "mut", "d": "mut"}


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "nan", "[Not Available]", "'--", "not reported"])
def test_a_slide_without_a_value_is_left_out(table, missing):
    path = table(f"slide_id,label\na1,x\na2,y\nb,x\nc,y\nd,{missing}\n")
    assert read(path) == {"a1": "x", "a2": "y", "b": "x", "c": "y"}


def test_ids_may_stand_in_a_column_of_another_name(table):
    path = table("case,label\na,x\nb,y\nc,y\n")
    assert read(path, key="patient_id", id_column="case") == {"a1": "x", "a2": "x", "b": "y", "c": "y"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a1,x\na2,x\nb,y\nb,x\nc,y", r"row 5: label of 'b' is 'x', but 'y' in row 4; keep one"),
        ("a1,x\na2,X\nb,y\nc,y\nd,X", r"row 3: label 'X' is 'x' of row 2 but for case or spaces"),
        ("a1,x\na2,x\nb,y", r"row 4: label 'y' is on one slide only; check its spelling or add slides"),
        ("a1,x\na2,x", r"one label only \('x'\)"),
        ("z1,x\nz2,y", r"no slide has a value in column label; correct the column, or the ids of its rows"),
        (",x\na1,x\na2,x\nb,y\nc,y", r"row 2: label is 'x', but slide_id is ''; fill it in"),
        ("a1,x\na2,x\nb,y\nc,y\nd,#N/A", r"row 6: label is #N/A, the error of a formula; fill it in"),
    ],
)
def test_labels_that_no_fold_can_use_are_refused_with_their_rows(table, rows, message):
    with pytest.raises(ValueError, match=message) as error:
        labels.read_labels(table(f"slide_id,label\n{rows}\n"), SLIDES, task="subtype")
    assert str(error.value).startswith("labels.tasks.subtype: ")


def test_problems_are_sorted_by_row_those_of_the_whole_table_come_last(table):
    rows = ("a1,x", "a2,X", "b,x, rare", ",x")
    with pytest.raises(ValueError, match=r"clinical\.csv: 5 problem") as error:
        labels.read_labels(table("\n".join(["slide_id,label", *rows])), SLIDES)
    assert [line.split()[:2] for line in str(error.value).splitlines()[1:]] == [
        *(["row", f"{row}:"] for row in (2, 3, 3, 4, 5)),
        ["to", "run"],
    ]


def test_labels_and_ids_are_one_however_their_signs_are_composed(table):
    mac, windows = "Mu\u0308ller", "M\u00fcller"
    slides = SLIDES.replace("b", windows)
    rows = f"{mac},größer \na,gro\u0308ßer\nc, kleiner\nd,kleiner"
    frame = labels.read_labels(table(f"patient_id,label\n{rows}\n"), slides, key="patient_id")
    assert frame["label"].tolist() == ["größer", "größer", "größer", "kleiner", "kleiner"]


def test_a_workbook_and_a_table_of_another_country_are_read(table, tmp_path):
    expected = {"a1": "x, rare", "a2": "x, rare", "b": "1", "c": "1"}
    assert read(table('\ufeffslide_id;label\r\na1;"x, rare"\r\na2;x, rare\r\nb;1\r\nc;1\r\n')) == expected
    book = openpyxl.Workbook()
    for row in (["slide_id", "label"], ["a1", "x, rare"], ["a2", "x, rare "], ["b", 1], ["c", 1], ["d"]):
        book.active.append(row)
    book.save(tmp_path / "clinical.xlsx")
    assert read(tmp_path / "clinical.xlsx") == expected


def test_rows_that_say_the_same_twice_are_one(table):
    assert read(table("patient_id,label\na,x\na,x\nb,y\nc,y\n"), key="patient_id")["a2"] == "x"


def test_a_table_without_a_column_of_labels_or_with_an_empty_one_has_none(table):
    assert label_table.has_labels(table("slide_id,label\na1,x\n"))
    assert not label_table.has_labels(table("slide_id,label\na1,\na2,NA\n"))
    assert not label_table.has_labels(table("slide_id,path\na1,a1.svs\n"))


def test_a_missing_column_is_named(table):
    with pytest.raises(ValueError, match="no column kras"):
        labels.read_labels(table("slide_id,label\na1,x\n"), SLIDES, columns=["kras"])


def test_labels_that_look_alike_and_patients_of_two_labels_are_doubts():
    frame = SLIDES.assign(label=["grade 1", "grade-1", "x", "x", "y"])
    assert labels.find_label_doubts(frame) == [
        "label: 'grade 1', 'grade-1' look alike; if they are one, write them alike",
        "patient 'a' has slides of 2 labels: grade 1, grade-1",
    ]


def test_the_fingerprint_changes_with_a_label_alone():
    frame = SLIDES.assign(label=["x", "x", "y", "y", "y"])
    assert labels.labels_fingerprint(frame) == labels.labels_fingerprint(frame.copy())
    assert labels.labels_fingerprint(frame) != labels.labels_fingerprint(frame.assign(label=["x", "y", "y", "y", "y"]))


def test_the_stage_writes_the_labels_of_one_task_and_notes_what_is_in_doubt(table, tmp_path, caplog):
    path = table("slide_id,kras,stage\na1,wt,I\na2,mut,II\nb,mut,NA\nc,wt,I\n")
    sheet = SLIDES.assign(mpp=0.5, site="")
    artifacts.write_table(tmp_path / "sheet.parquet", "sheet", sheet, artifacts.provenance("sheet", 1, {}))
    out = tmp_path / "kras.parquet"
    arguments = {
        "kind": "classification",
        "classes": [],
        "columns": ["kras"],
        "key": "slide_id",
        "id_column": "slide_id",
    }
    with caplog.at_level(logging.WARNING):
        labels.run(sheet_path=tmp_path / "sheet.parquet", labels_path=path, out_path=out, task="kras", **arguments)
    frame, meta = artifacts.read_table(out, "labels")
    pd.testing.assert_frame_equal(frame, labels.read_labels(path, SLIDES, columns=["kras"]), check_dtype=False)
    assert frame["label"].tolist() == ["wt", "mut", "mut", "wt"]
    assert (meta["stage"], meta["task"]) == ("labels", "kras")
    assert "patient 'a' has slides of 2 labels: wt, mut" in caplog.text


def test_ids_match_exactly_before_they_match_without_extension_or_fraction(table):
    """A slide never takes the label of another whose name differs in its extension only."""
    ids = ["a.svs", "a.tif", "b.czi", "c", "7", "8.svs"]
    slides = pd.DataFrame({"slide_id": ids, "patient_id": ["101", "101", "102", "103", "104", "p"]})
    path = table("slide_id,label\na.svs,x\nb,y\nc.czi,x\n7.0,y\n8,x\n")
    frame = labels.read_labels(path, slides)
    assert dict(zip(frame["slide_id"], frame["label"], strict=True)) == {
        **{"a.svs": "x", "b.czi": "y", "c": "x", "7": "y", "8.svs": "x"}
    }
    frame = labels.read_labels(table("slide_id,label\na.svs,x\na.tif,y\nb,y\nc,x\n"), slides)
    assert frame["label"].tolist() == ["x", "y", "y", "x"]
    frame = labels.read_labels(table("slide_id,label\na,x\nb,y\nc,y\n7,x\n8,x\n"), slides)
    assert "a.svs" not in frame["slide_id"].tolist(), "a names two slides"
    frame = labels.read_labels(table("patient_id,label\n101.0,x\n102.0,y\n103,y\n"), slides, key="patient_id")
    assert frame["label"].tolist() == ["x", "x", "y", "y"]


def test_ids_that_match_nothing_and_values_taken_as_missing_are_counted(table):
    path = table("patient_id,kras\na,wt\nB,mut\nc,mut\nzz,wt\nd,[Unknown]\ne,NA\nf,NA\n")
    content = label_table.read_truth(path, columns=["kras"], id_column="patient_id")
    assert label_table.find_id_doubts(content, SLIDES, key="patient_id") == [
        "2 of its ids match no patient_id of the sheet: B, zz",
        "'B' and the sheet's 'b' differ only in their case; write both the same way",
        "taken as no value: '[Unknown]' (1), 'NA' (2)",
    ]
    whole = label_table.read_truth(table("slide_id,label\na1,x\na2,\n"))
    assert label_table.find_id_doubts(whole, SLIDES) == []


@pytest.mark.parametrize("label", ["none", "null", "unknown", "0"])
def test_what_may_be_a_class_is_one(table, label):
    assert read(table(f"slide_id,label\na1,{label}\na2,{label}\nb,x\nc,x\n"))["a1"] == label


@pytest.mark.parametrize("sign", ["\u202e", "\n", "\x1b[2J", "\u2028"], ids=ascii)
def test_what_does_not_show_is_no_part_of_a_label(table, sign):
    with pytest.raises(ValueError, match=r"row \d: label 'a\\.* contains invisible characters; retype it"):
        labels.read_labels(table(f'slide_id,label\na1,"a{sign}b"\na2,x\n'), SLIDES)


SURVIVAL = kinds.Survival()
OS = {"columns": ["months", "status"], "key": "patient_id", "task": "os"}


def test_survival_is_read_by_patient_from_two_columns(table):
    path = table("patient_id,months,status\na,12.5,1:DECEASED\nb,30,0:LIVING\nc,NA,1:DECEASED\nd,8,\n")
    frame = labels.read_labels(path, SLIDES, SURVIVAL, **OS)
    assert frame.columns.tolist() == ["slide_id", "patient_id", "label", "time", "event"]
    assert frame[["slide_id", "time", "event"]].to_numpy().tolist() == [
        ["a1", 12.5, True],
        ["a2", 12.5, True],
        ["b", 30.0, False],
    ]
    assert frame.dtypes[["time", "event"]].tolist() == [float, bool]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,-2,1\nb,3,0\nc,4,1", r"row 2: months of 'a' is '-2'; a time of follow-up is not negative, correct it"),
        ("a,two,1\nb,3,0\nc,4,1", r"row 2: months of 'a' is 'two', not a number; correct it, or leave it empty"),
        ("a,2,1\nb,3,9\nc,4,1", r"row 3: status of 'b' is '9'; code an event as 1 and a censored case as 0"),
        ("a,2,0\nb,3,0\nc,4,0", r"its slides have no event; results need events, and follow-up"),
        ("a,2,0\nb,3,0\nc,4,1", r"none of its slides outlives an event; results need events, and follow-up"),
        ("z,2,0", r"no slide has a value in column months and status; correct the column, or the ids of its rows"),
        ("a,2,1\na,2,0\nb,3,0", r"row 3: status of 'a' is '0', but '1' in row 2; keep one"),
    ],
)
def test_survival_that_cannot_be_evaluated_is_refused_with_its_row(table, rows, message):
    with pytest.raises(ValueError, match=message) as error:
        labels.read_labels(table(f"patient_id,months,status\n{rows}\n"), SLIDES, SURVIVAL, **OS)
    assert str(error.value).startswith("labels.tasks.os: ")


def test_a_patient_has_one_survival(table):
    path = table("slide_id,months,status\na1,2,1\na2,3,1\nb,4,0\n")
    with pytest.raises(
        ValueError, match=r"patient 'a' has slides of different times or events; survival is a patient's"
    ):
        labels.read_labels(path, SLIDES, SURVIVAL, **OS | {"key": "slide_id"})


def test_rows_that_match_no_slide_may_hold_anything(table):
    path = table("patient_id,tmb\na,1.5\nb,2\nelsewhere,>50\nc,\n")
    frame = labels.read_labels(path, SLIDES, kinds.Regression(), columns=["tmb"], key="patient_id")
    assert frame["value"].tolist() == [1.5, 1.5, 2.0]


def test_grades_keep_their_order_and_others_are_refused(table):
    endpoint = kinds.Ordinal(("low", "mid", "high"))
    path = table("slide_id,label\na1,low\na2,low\nb,high\nc,high\n")
    assert labels.read_labels(path, SLIDES, endpoint)["label"].tolist() == ["low", "low", "high", "high"]
    path = table("slide_id,label\na1,low\na2,low\nb,High\nc,high\n")
    with pytest.raises(ValueError, match=r"row 4: label of 'b' is 'High', none of low, mid, high; correct it"):
        labels.read_labels(path, SLIDES, endpoint)


def test_the_stage_writes_the_kind_and_the_fingerprint_knows_it(table, tmp_path):
    sheet = SLIDES.assign(mpp=0.5, site="")
    artifacts.write_table(tmp_path / "sheet.parquet", "sheet", sheet, artifacts.provenance("sheet", 1, {}))
    path = table("patient_id,months,status\na,12.5,1\nb,3,0\nc,20,0\n")
    arguments = {"kind": "survival", "classes": [], "columns": ["months", "status"], "task": "os"}
    arguments |= {"key": "patient_id", "id_column": "patient_id"}
    out = tmp_path / "os.parquet"
    labels.run(sheet_path=tmp_path / "sheet.parquet", labels_path=path, out_path=out, **arguments)
    frame, meta = artifacts.read_table(out, "labels")
    assert kinds.read_endpoint(meta) == SURVIVAL
    assert meta["task"] == "os"
    assert labels.labels_fingerprint(frame, SURVIVAL) != labels.labels_fingerprint(frame)
    changed = frame.assign(time=frame["time"] + 1)
    assert labels.labels_fingerprint(frame, SURVIVAL) != labels.labels_fingerprint(changed, SURVIVAL)


def test_an_external_patient_has_one_survival_too(table):
    path = table("slide_id,months,status\na1,2,1\na2,3,1\nb,4,0\n")
    with pytest.raises(ValueError, match=r"patient 'a' has slides of different times or events; survival"):
        labels.read_labels(path, SLIDES, SURVIVAL, **OS | {"key": "slide_id"}, external=True)


def test_a_row_is_the_one_that_holds_the_value(table):
    path = table("patient_id,tmb\na,NA\na,much\nb,2\nc,3\n")
    with pytest.raises(ValueError, match=r"row 3: tmb of 'a' is 'much', not a number"):
        labels.read_labels(path, SLIDES, kinds.Regression(), columns=["tmb"], key="patient_id")


def test_ids_of_no_slide_contradict_nothing(table):
    path = table("slide_id,label\na1,x\na2,x\nb,y\nc,y\nz,x\nz,y\nz2,X\n")
    assert len(labels.read_labels(path, SLIDES)) == 4


def test_the_fingerprint_knows_the_smallest_numbers():
    frames = [SLIDES.assign(label="q1", value=[1e-11, 2e-11, 3e-11, 4e-11, last]) for last in (5e-11, 5.1e-11)]
    one, other = (labels.labels_fingerprint(frame, kinds.Regression()) for frame in frames)
    assert one != other
