"""Tables of files and labels, as CLAM, STAMP and torchmil read them."""

import numpy as np

from tests.export.readers import read_rows


def test_a_line_per_slide_says_what_it_has_and_why(tables, caplog):
    rows = read_rows(tables("clam", "hs2p") / "clam" / "exported.csv")
    assert [(row["slide_id"], row["status"], row["files"]) for row in rows] == [
        ("a", "ok", "4"),
        ("b-1", "ok", "4"),
        ("blank", "empty", "0"),
        ("torn", "quarantined", "0"),
    ]
    assert rows[3]["reason"] == "torn in two"
    assert "torn has no features, quarantined: torn in two" in caplog.text


def test_clam_has_a_table_per_task_of_slides_that_have_a_bag(tables):
    folder = tables("clam") / "clam"
    assert read_rows(folder / "grade.csv") == [
        {"case_id": "p", "slide_id": "a", "label": "x"},
        {"case_id": "p", "slide_id": "b-1", "label": "y"},
    ]
    assert [row["label"] for row in read_rows(folder / "tmb.csv")] == ["1.5", "1.5"]
    assert [(row["label_time"], row["label_event"]) for row in read_rows(folder / "os.csv")] == [("3.0", "1")] * 2


def test_stamp_has_a_table_of_slides_and_one_of_patients(tables):
    folder = tables("stamp", labels=("x", "x")) / "stamp"
    files = [row["FILENAME"] for row in read_rows(folder / "slide_table.csv")]
    assert read_rows(folder / "slide_table.csv")[0]["PATIENT"] == "p"
    assert files == ["a.h5", "b-1.h5"]
    assert all((folder / "slpd" / name).exists() for name in files)
    row = {"PATIENT": "p", "kind": "x", "grade": "x", "tmb": "1.5", "os_time": "3.0", "os_event": "1"}
    assert read_rows(folder / "clinical_table.csv") == [row]


def test_a_patient_whose_slides_disagree_has_no_label_of_stamp_and_is_named(tables, caplog):
    (row,) = read_rows(tables("stamp") / "stamp" / "clinical_table.csv")
    assert (row["grade"], row["tmb"]) == ("", "1.5")
    assert "the slides of a patient differ in grade, left empty: p" in caplog.text


def test_torchmil_has_a_label_per_bag(tables):
    folder = tables("torchmil") / "torchmil" / "Y"
    assert read_rows(folder / "grade.csv") == [{"index": "0", "label": "y"}, {"index": "1", "label": "x"}]
    assert read_rows(folder / "kind.csv") == [{"index": "0", "label": "x"}, {"index": "1", "label": "y"}]
    assert [np.load(folder / "kind" / f"{slide}.npy").tolist() for slide in ("a", "b-1")] == [[0], [1]]
    assert [np.load(folder / "grade" / f"{slide}.npy").tolist() for slide in ("a", "b-1")] == [[1], [0]]
    assert np.load(folder / "grade" / "a.npy").dtype == np.int64
    assert np.load(folder / "tmb" / "a.npy").tolist() == [1.5]
    assert np.load(folder / "os" / "a.npy").tolist() == [3, 1]
    assert not (folder / "grade" / "torn.npy").exists()


def test_classes_without_an_order_are_sorted(tables):
    folder = tables("torchmil", labels=("y", "x")) / "torchmil" / "Y"
    assert read_rows(folder / "kind.csv") == [{"index": "0", "label": "x"}, {"index": "1", "label": "y"}]
    assert [np.load(folder / "kind" / f"{slide}.npy").tolist() for slide in ("a", "b-1")] == [[1], [0]]


def test_two_writings_have_equal_bytes(tables):
    names = ("clam", "stamp", "torchmil")
    contents = []
    for out in ("one", "two"):
        folder = tables(*names, out=out)
        paths = sorted(path for name in names for path in (folder / name).rglob("*") if path.suffix in (".csv", ".npy"))
        contents.append({path.relative_to(folder): path.read_bytes() for path in paths})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 12
