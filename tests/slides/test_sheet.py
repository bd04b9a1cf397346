"""The sheet is checked whole, and every problem has its row."""

import logging
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.slides import sheet, sheet_table

HEADER = "slide_id,patient_id,label,path"


@pytest.fixture
def write(tmp_path):
    """Write a sheet whose slides exist as empty files."""

    def write(*rows: str, header: str = HEADER):
        for name in "abcde":
            (tmp_path / f"{name}.svs").touch()
        (tmp_path / "slides.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / "slides.csv"

    return write


GOOD = ("a,p1,x,a.svs", "b,p2,x,b.svs", "c,p3,y,c.svs", "d,p4,y,d.svs")


def test_a_good_sheet(write, tmp_path):
    frame = sheet.read_sheet(write(*GOOD))
    assert frame["slide_id"].tolist() == ["a", "b", "c", "d"]
    assert frame["path"].tolist() == [str(tmp_path / f"{name}.svs") for name in "abcd"]
    assert frame["mpp"].isna().all()


def test_a_sheet_of_a_spreadsheet_is_read(write, tmp_path):
    """A byte order mark, Windows line ends, blank lines, trailing commas, quotes, spaces in the header."""
    path = write()
    rows = [
        '"Präp 7 (2)","p1, left","x, rare",a.svs,,',
        "",
        'b,"p1, left","x, rare",b.svs,,',
        "c,p3,y,c.svs,,",
        "d,p4,y,d.svs,,",
        ",,,,,",
    ]
    path.write_text("\ufeff" + "\r\n".join(["slide_id, patient_id,label,path ,,", *rows]), encoding="utf-8")
    frame = sheet.read_sheet(path)
    assert frame["slide_id"].tolist() == ["Präp 7 (2)", "b", "c", "d"]
    assert frame["patient_id"].tolist() == ["p1, left", "p1, left", "p3", "p4"]
    path.write_text("\ufeff" + "\r\n".join(["slide_id, patient_id,label,path ,,", *rows[:-2], "d,p4,y,gone.svs"]))
    with pytest.raises(ValueError, match="row 6, slide 'd'"):
        sheet.read_sheet(path)


@pytest.mark.parametrize(
    ("header", "what"),
    [(HEADER + ",MPP", "column MPP; write mpp"), (HEADER + ",mpp,mpp", "column mpp is listed twice")],
)
def test_a_column_is_not_passed_over(write, header, what):
    with pytest.raises(ValueError, match=what):
        sheet.read_sheet(write(*GOOD, header=header))


def test_ids_stay_texts(write):
    rows = ("001,1,0,a.svs,", "1e3,NA,0,b.svs,0.25", "NaN,3,1,c.svs,", "null,4,1,d.svs,")
    frame = sheet.read_sheet(write(*rows, header=HEADER + ",mpp"))
    assert frame["slide_id"].tolist() == ["001", "1e3", "NaN", "null"]
    assert frame["patient_id"].tolist() == ["1", "NA", "3", "4"]
    assert frame["mpp"].iloc[1] == 0.25


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a,p,x,a.svs", "row 6, slide 'a': slide_id is already in row 2"),
        ("A,p,x,a.svs", "row 6, slide 'A': slide_id is already in row 2"),
        ("../a,p,x,a.svs", "row 6, slide '../a': slide_id is no plain file name"),
        ("e/f,p,x,a.svs", "no plain file name"),
        ("e..f,p,x,a.svs", "no plain file name"),
        ("-e,p,x,a.svs", "no plain file name"),
        ("$(rm),p,x,a.svs", "no plain file name"),
        ("{slide},p,x,a.svs", "no plain file name"),
        ("e" * 201 + ",p,x,a.svs", "no plain file name"),
        ("e,p,x,a.svs", "row 6, slide 'e': path is already in row 2"),
        ("e,p,x,", "no file named"),
        ("e,p,x, y,a.svs", "row 6: 5 fields, the header has 4; quote a field that holds a comma"),
        (",p,x,a.svs", "no plain file name"),
        ("e,P1 ,x,a.svs", "row 6: patient_id 'P1' is 'p1' of row 2 but for case or spaces; write both alike"),
        ("e,1.23457E+18,x,a.svs", "row 6: patient_id is 1.23457E+18, a number that a spreadsheet has rounded"),
        ("e,#N/A,x,a.svs", "row 6: patient_id is #N/A, the error of a formula"),
        ("e,p,x,a\x1b[31m.svs", r"row 6: path 'a\x1b[31m.svs' contains invisible characters"),
        ("e,p,x,./a.svs", "row 6, slide 'e': path is already in row 2"),
        ("e,p,x,f.svs", "no file"),
    ],
)
def test_a_problem_is_named_with_its_row(write, row, what):
    with pytest.raises(ValueError, match=r"slides\.csv: \d problem") as error:
        sheet.read_sheet(write(*GOOD, row))
    assert what in str(error.value)


def test_a_folder_is_a_slide_where_it_is_one(write, tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zattrs").touch()
    (tmp_path / "scans").mkdir()
    frame = sheet.read_sheet(write(*GOOD, "e,p,x,a.zarr"))
    assert frame["path"].tolist()[-1] == str(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"row 6, slide 'e': .*scans: a folder that is neither OME-Zarr nor DICOM"):
        sheet.read_sheet(write(*GOOD, "e,p,x,scans"))


@pytest.mark.parametrize("mpp", ["half", "0", "50", "-0.5", "nan", "0_1", "inf"])
def test_an_mpp_must_be_plausible(write, mpp):
    rows = [f"{row}," for row in GOOD[:-1]] + [f"{GOOD[-1]},{mpp}"]
    with pytest.raises(ValueError, match=rf"row 5, slide 'd': mpp '{mpp}' is no um/px within 0.05-5.0"):
        sheet.read_sheet(write(*rows, header=HEADER + ",mpp"))


@pytest.mark.parametrize(
    ("mpp", "problem"),
    [
        ("40", "is a magnification; mpp is about 0.25 um/px at 40x; write the slide's or leave it empty"),
        ("40x", "is a magnification; mpp is about 0.25 um/px at 40x"),
        ("x20", "is a magnification; mpp is about 0.5 um/px at 20x"),
        ("20 X", "is a magnification; mpp is about 0.5 um/px at 20x"),
        ("63\N{MULTIPLICATION SIGN}", "is a magnification; mpp is about 0.16 um/px at 63x"),
        ("2,5x", "is a magnification; mpp is about 4 um/px at 2.5x"),
        ("0x", "is no um/px within"),
        ("x", "is no um/px within"),
        ("41", "is no um/px within"),
    ],
)
def test_a_magnification_is_named_as_one(write, mpp, problem):
    rows = [row.replace(",", ";") for row in (*(f"{row}," for row in GOOD[:-1]), f"{GOOD[-1]},")]
    rows[-1] += mpp
    with pytest.raises(ValueError, match="1 problem") as error:
        sheet.read_sheet(write(*rows, header=HEADER.replace(",", ";") + ";mpp"))
    assert f"row 5, slide 'd': mpp '{mpp}' {problem}" in str(error.value)


def test_an_mpp_of_a_low_power_objective_is_an_mpp(write):
    rows = [f"{row},{mpp}" for row, mpp in zip(GOOD, ("4", "5", "2.5", "1"), strict=True)]
    assert sheet.read_sheet(write(*rows, header=HEADER + ",mpp"))["mpp"].tolist() == [4, 5, 2.5, 1]


def test_all_problems_come_at_once(write):
    with pytest.raises(ValueError, match="4 problem") as error:
        sheet.read_sheet(write(*GOOD, "a,p,x,f.svs", "../f,p,,a.svs"))
    assert [f"row {row}" in str(error.value) for row in (6, 7)] == [True, True]


def test_problems_are_sorted_by_row_those_of_the_whole_sheet_come_last(write):
    rows = ("a,p,x,a.svs,20", "b,P,x,b.svs,,5", "c,p,x,,", "../d,#N/A,x,gone.svs,", "a,p,x,e.svs,x")
    with pytest.raises(ValueError, match="problem") as error:
        sheet.read_sheet(write(*rows, header=HEADER + ",mpp"))
    places = [line.split()[:2] for line in str(error.value).splitlines()[1:]]
    numbers = [int(number.strip(":,")) for word, number in places if word == "row"]
    assert numbers == sorted(numbers)
    assert {*numbers} == {2, 3, 4, 5, 6}
    with pytest.raises(ValueError, match="problem") as error:
        sheet.read_sheet(write("a,p,x,a.svs,20", "b,p,x,b.svs,x"))
    assert [line.split()[:2] for line in str(error.value).splitlines()[1:]] == [
        *(["row", "2:"], ["row", "3:"]),
        ["no", "slides;"],
    ]


@pytest.mark.parametrize("has_column", [True, False])
def test_a_slide_without_a_patient_is_of_that_in_its_barcode_or_else_its_own(write, caplog, has_column):
    one, other = (f"TCGA-55-1234-01Z-00-DX{i}.AB-CD" for i in (1, 2))
    rows = [f"{one},a.svs,x", f"{other},b.svs,x", "c,c.svs,y", "TCGA-5-1,d.svs,y", "e,e.svs,x"]
    header = "slide_id,path,label"
    if has_column:
        header, rows = header + ",patient_id", [*(f"{row}," for row in rows[:-1]), rows[-1] + ",TCGA-55-1234"]
    with caplog.at_level(logging.INFO):
        frame = sheet.read_sheet(write(*rows, header=header))
    last = "TCGA-55-1234" if has_column else "e"
    assert frame["patient_id"].tolist() == ["TCGA-55-1234", "TCGA-55-1234", "c", "TCGA-5-1", last]
    assert caplog.messages == [
        "2 slides without patient_id: the first 12 characters of their TCGA barcodes stand in",
        f"{2 if has_column else 3} slides without patient_id: their slide_id stands in, one patient each",
    ]


def test_nothing_is_filled_in_where_patients_are_stated(write, caplog):
    with caplog.at_level(logging.INFO):
        frame = sheet.read_sheet(write(*GOOD, "TCGA-55-1234-01Z,p5,x,e.svs"))
    assert frame["patient_id"].tolist() == ["p1", "p2", "p3", "p4", "p5"]
    assert not caplog.messages


def test_slides_that_look_alike_and_are_their_own_patients_are_named_once(write):
    frame = sheet.read_sheet(
        write("a-1,x,a.svs", "a_01,x,b.svs", "c,y,c.svs", "d,y,d.svs", header="slide_id,label,path")
    )
    assert sheet.find_ambiguities(frame) == ["slide_id: 'a-1', 'a_01' look alike; if they are one, write them alike"]


def test_a_tilde_is_the_home_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "below").mkdir()
    write("a,p1,x,~/a.svs", "b,p2,x,~/b.svs", "c,p3,y,~/c.svs", "d,p4,y,../d.svs").rename(tmp_path / "below/s.csv")
    frame = sheet.read_sheet(Path("~/below/s.csv"))
    assert frame["path"].tolist() == [*(str(tmp_path / f"{name}.svs") for name in "abc"), f"{tmp_path}/below/../d.svs"]
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "gone.csv")):
        sheet.read_sheet(Path("~/gone.csv"))


def test_missing_columns_are_named(write):
    with pytest.raises(ValueError, match="no column path among slide_id, label") as error:
        sheet.read_sheet(write("a,x", header="slide_id,label"))
    assert sheet_table.EXAMPLE in str(error.value)


NAMES = {"slide_id": "Scan No.", "label": "diagnosis", "path": "file name"}


def test_columns_have_the_names_of_the_setting(write):
    """A column of our name beside the one that is named is not read; one column can serve twice."""
    expected = sheet.read_sheet(write(*GOOD))
    path = write(*(f"{row},other" for row in GOOD), header="Scan No.,patient_id,diagnosis,file name,label")
    pd.testing.assert_frame_equal(sheet.read_sheet(path, columns=NAMES), expected)
    path = write("a.svs,x", "b.svs,x", "c.svs,y", "d.svs,y", header="file,label")
    frame = sheet.read_sheet(path, columns={"slide_id": "file", "path": "file"})
    assert frame["slide_id"].tolist() == ["a.svs", "b.svs", "c.svs", "d.svs"]
    assert frame["path"].tolist() == expected["path"].tolist()


def test_a_workbook_has_the_names_of_the_setting(write, tmp_path):
    expected = sheet.read_sheet(write(*GOOD))
    book = openpyxl.Workbook()
    book.active.append(["legend"])
    rows = book.create_sheet()
    for row in ["Scan No.,patient_id,diagnosis,file name", *GOOD]:
        rows.append(row.split(","))
    book.save(tmp_path / "slides.xlsx")
    pd.testing.assert_frame_equal(sheet.read_sheet(tmp_path / "slides.xlsx", columns=NAMES), expected)


def test_a_named_column_that_is_not_there_is_an_error_for_the_cohort_alone(write):
    path = write(*GOOD)
    with pytest.raises(ValueError, match=r"no column Label among .* sheet\.columns\.label \(did you mean label"):
        sheet.read_sheet(path, columns={"label": "Label"})
    with pytest.raises(ValueError, match=r"no column resolution among .*; correct sheet\.columns\.mpp\. Example"):
        sheet.read_sheet(path, columns={"mpp": "resolution"})
    new = {"columns": {"slide_id": "scan", "label": "diagnosis", "mpp": "resolution"}, "external": True}
    frame = sheet.read_sheet(path, **new)
    assert frame["slide_id"].tolist() == ["a", "b", "c", "d"]
    frame = sheet.read_sheet(write("n,a.svs,0.5", header="scan,path,resolution"), **new)
    assert frame[["slide_id", "mpp"]].to_numpy().tolist() == [["n", 0.5]]
    with pytest.raises(ValueError, match="no column scan or slide_id among path; correct "):
        sheet.read_sheet(write("a.svs", header="path"), **new)


@pytest.mark.parametrize(
    ("header", "suggestion"),
    [
        ("filename,diagnosis,path", "{slide_id: filename}"),
        ("Slide ID;Sub-type;File Path", "{slide_id: Slide ID, path: File Path}"),
        ("slide,path,labels", "{slide_id: slide}"),
        ("image_id,oncotree_code,slide_path", "{slide_id: image_id, path: slide_path}"),
        ("slide_id,class: A/B,tiles", None),
        ("Slide: ID,path,label", '{slide_id: "Slide: ID"}'),
    ],
)
def test_names_that_people_use_are_suggested(write, header, suggestion):
    with pytest.raises(ValueError, match="no column ") as error:
        sheet.read_sheet(write("1,2,3", header=header))
    asked = f"add it, or did you mean sheet.columns: {suggestion}?"
    assert (asked if suggestion else "; add it. Example") in str(error.value)


@pytest.mark.parametrize("column", ["case_id", "Case ID", "PatientID", "bcr"])
def test_a_column_that_may_name_the_patients_is_not_passed_over(write, column):
    rows = [f"{row},p" for row in ("a,x,a.svs", "b,x,b.svs", "c,y,c.svs", "d,y,d.svs")]
    header = f"slide_id,label,path,{column}"
    if column == "bcr":
        assert sheet.read_sheet(write(*rows, header=header))["patient_id"].tolist() == ["a", "b", "c", "d"]
        return
    with pytest.raises(ValueError, match=f"no column patient_id, but {column} may be it") as error:
        sheet.read_sheet(write(*rows, header=header))
    assert f"set sheet.columns: {{patient_id: {column}}}, or {{patient_id: slide_id}} if each" in str(error.value)
    for name, patients in ((column, ["p"] * 4), ("slide_id", ["a", "b", "c", "d"])):
        frame = sheet.read_sheet(write(*rows, header=header), columns={"patient_id": name})
        assert frame["patient_id"].tolist() == patients
    frame = sheet.read_sheet(write(*rows, header=header), external=True)
    assert frame["patient_id"].tolist() == ["a", "b", "c", "d"]


def test_a_missing_sheet_shows_one_and_names_the_demo(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"slides\.csv: no such sheet") as error:
        sheet.read_sheet(tmp_path / "slides.csv")
    assert sheet_table.EXAMPLE in str(error.value)
    assert "make demo" in str(error.value)


def test_an_id_is_one_however_its_signs_are_composed(write, tmp_path):
    """Patients of a Mac and of Windows, with spaces at the ends; the slide's file as its disk has it."""
    mac, windows = "Mu\u0308ller", "M\u00fcller"
    (tmp_path / f"{mac}.svs").touch()
    rows = (f"{mac},{mac},x,a.svs", f"b, {windows} ,x,b.svs", f"c,p3,y,{windows}.svs", "d,p4,y,d.svs")
    frame = sheet.read_sheet(write(*rows))
    assert frame["slide_id"].tolist() == [windows, "b", "c", "d"]
    assert frame["patient_id"].tolist() == [windows, windows, "p3", "p4"]
    assert frame["path"][2] == str(tmp_path / f"{mac}.svs")


@pytest.mark.parametrize(
    ("kind", "separator", "encoding"),
    [("semicolons", ";", "utf-8"), ("tabs", "\t", "utf-8"), ("Unicode text", "\t", "utf-16")],
)
def test_a_sheet_of_another_country_is_read(write, tmp_path, kind, separator, encoding):
    expected = sheet.read_sheet(write(*(f"{row},0.5,h" for row in GOOD), header=HEADER + ",mpp,site"))
    lines = [HEADER + ",mpp,site", *(f"{row},0#5,h" for row in GOOD)]
    text = "\r\n".join(line.replace(",", separator).replace("#", ",") for line in lines)
    (tmp_path / "slides.csv").write_bytes(text.encode(encoding))
    pd.testing.assert_frame_equal(sheet.read_sheet(tmp_path / "slides.csv"), expected)


def test_patients_that_are_one_by_their_slides_barcodes_are_named(write):
    names = [f"TCGA-55-1234-01Z-00-DX{number}" for number in (1, 2)]
    rows = (f"{names[0]},{names[0]},x,a.svs", f"{names[1]},{names[1]},x,b.svs", "TCGA-55-99,p,y,c.svs", "d,q,y,d.svs")
    assert sheet.find_ambiguities(sheet.read_sheet(write(*rows))) == [
        f"patient_id: '{names[0]}', '{names[1]}' are one by the barcode of their slides, TCGA-55-1234"
    ]


def test_a_workbook_is_a_sheet(write, tmp_path):
    expected = sheet.read_sheet(write(*(f"{row},0.5" for row in GOOD), header=HEADER + ",mpp"))
    book = openpyxl.Workbook()
    for row in [[*HEADER.split(","), "mpp"], *([*row.split(","), 0.5] for row in GOOD)]:
        book.active.append(row)
    book.save(tmp_path / "slides.xlsx")
    pd.testing.assert_frame_equal(sheet.read_sheet(tmp_path / "slides.xlsx"), expected)


@pytest.mark.parametrize("text", ["", '"a,b\nc', "\x00\x01"])
def test_what_is_no_table_is_named(tmp_path, text):
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(ValueError, match=r"slides\.csv: "):
        sheet.read_sheet(tmp_path / "slides.csv")


def test_no_slides_are_refused(write):
    with pytest.raises(ValueError, match="no slides"):
        sheet.read_sheet(write())


def test_what_a_sheet_leaves_in_doubt_is_named(write):
    frame = sheet.read_sheet(write("a-1,p1,x,a.svs", "a_01,p01,x,b.svs", "c,p3,y,c.svs", "d,p3,x,d.svs", "e,q,y,e.svs"))
    assert sheet.find_ambiguities(frame) == [
        "slide_id: 'a-1', 'a_01' look alike; if they are one, write them alike",
        "patient_id: 'p1', 'p01' look alike; if they are one, write them alike",
    ]


def test_the_stage_writes_the_sheet_and_notes_what_is_in_doubt(write, tmp_path, caplog):
    path = write(*GOOD[:3], "d,p01,y,d.svs")
    with caplog.at_level(logging.WARNING):
        sheet.run(sheet_path=path, out_path=tmp_path / "out.parquet", columns={})
    frame, meta = artifacts.read_table(tmp_path / "out.parquet", "sheet")
    pd.testing.assert_frame_equal(frame, sheet.read_sheet(path).drop(columns="path"), check_dtype=False)
    assert meta["stage"] == "sheet"
    assert "patient_id: 'p1', 'p01' look alike" in caplog.text


@pytest.mark.parametrize("labels", ["xxyy", "xXy ", "xxxx"])
def test_labels_are_no_part_of_the_sheet(write, labels):
    """A slide may have none, and none is wrong here."""
    expected = sheet.read_sheet(write("a,a.svs", "b,b.svs", "c,c.svs", "d,d.svs", header="slide_id,path"))
    assert [*expected.columns] == ["slide_id", "patient_id", "path", "mpp", "site"]
    rows = [f"{name},{name}.svs,{label}" for name, label in zip("abcd", labels, strict=True)]
    pd.testing.assert_frame_equal(sheet.read_sheet(write(*rows, header="slide_id,path,label")), expected)


def test_a_sheet_needs_no_patients_and_no_labels(write, tmp_path):
    frame = sheet.read_sheet(write("n,a.svs", header="slide_id,path"))
    assert frame[["slide_id", "patient_id"]].to_numpy().tolist() == [["n", "n"]]
    with pytest.raises(FileNotFoundError, match=r"name yours.* in config\.yaml \(sheet: path, or predict: sheet\)"):
        sheet.read_sheet(tmp_path / "gone.csv")


def test_a_slide_is_in_one_sheet_only(write):
    """Of the cohort's and those of external cohorts: all results of a slide lie under its id."""
    frame = sheet.read_sheet(write(*GOOD))
    sheet.require_new(frame, {})
    new = frame.assign(slide_id=["n1", "n2", "n3", "n4"])
    sheet.require_new(frame, {"rome": new.iloc[:2], "oslo": new.iloc[2:]})
    with pytest.raises(
        ValueError, match=r"^predict\.sheet\.rome: A are in the cohort's sheet too; remove them from one"
    ):
        sheet.require_new(frame, {"rome": frame.iloc[:1].assign(slide_id="A")})
    with pytest.raises(ValueError, match=r"oslo: N2 are in predict.sheet.rome too") as error:
        sheet.require_new(frame, {"rome": new, "oslo": pd.concat([frame[:1], new[1:2].assign(slide_id="N2")])})
    assert "predict.sheet.oslo: a are in the cohort's sheet too" in str(error.value)


def test_patients_alike_are_remarked_on_where_slides_are_only_predicted(write):
    """No fold keeps them apart; in a cohort one of them may be trained on and the other tested."""
    path = write("n,p1,,a.svs", "m,P1,,b.svs")
    with pytest.raises(ValueError, match="patient_id 'P1' is 'p1' of row 2 but for case or spaces"):
        sheet.read_sheet(path)
    frame = sheet.read_sheet(path, external=True)
    assert frame["patient_id"].tolist() == ["p1", "P1"]
    assert sheet.find_ambiguities(frame) == ["patient_id: 'p1', 'P1' look alike; if they are one, write them alike"]


def test_the_identity_of_a_sheet_is_all_it_says_but_where_slides_lie(write):
    frame = sheet.read_sheet(write(*GOOD))
    known = sheet.sheet_fingerprint(frame)
    assert sheet.sheet_fingerprint(frame.assign(path="elsewhere")) == known
    columns = [name for name in frame.columns if name != "path"]
    assert len(columns) == 4
    for column in columns:
        changed = frame[column].astype(object)
        changed.iloc[2] = 0.25 if column == "mpp" else "another"
        assert sheet.sheet_fingerprint(frame.assign(**{column: changed})) != known, column
    assert sheet.sheet_fingerprint(frame.iloc[:3]) != known
