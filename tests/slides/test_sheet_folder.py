"""A folder of slides is a sheet: its files name them."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from slpd_core.slides import sheet


@pytest.fixture
def folder(tmp_path):
    for name in (
        "uuid-1/TCGA-55-1234-01Z-00-DX1.AB.svs",
        "uuid-2/TCGA-55-1234-01Z-00-DX2.CD.svs",
        "b.tif",
        "notes.txt",
    ):
        (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / name).touch()
    return tmp_path / "slides"


def test_a_folder_is_read_as_the_sheet_that_names_its_slides(folder, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        frame = sheet.read_sheet(folder)
    assert f"{folder}: 3 slides; left out by extension: .txt (1)" in caplog.messages
    rows = [f"{path.stem},slides/{path.relative_to(folder)}" for path in folder.rglob("*.*") if path.suffix != ".txt"]
    (tmp_path / "slides.csv").write_text("\n".join(["slide_id,path", *sorted(rows)]) + "\n")
    expected = sheet.read_sheet(tmp_path / "slides.csv")
    pd.testing.assert_frame_equal(frame, expected)
    assert sheet.sheet_fingerprint(frame) == sheet.sheet_fingerprint(expected)
    assert frame["patient_id"].tolist() == ["TCGA-55-1234", "TCGA-55-1234", "b"]


@pytest.mark.parametrize("spelled", ["slides", "../slides", "~/slides"])
def test_a_folder_is_found_from_where_one_stands_and_from_home(folder, tmp_path, monkeypatch, spelled):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work" if spelled.startswith("..") else tmp_path)
    frame = sheet.read_sheet(spelled)
    assert {Path(path).resolve() for path in frame["path"]} == {*folder.rglob("*.svs"), folder / "b.tif"}


def test_all_files_that_cannot_name_a_slide_are_named(folder):
    for name in ("B.svs", "x$y.svs", "below/TCGA-55-1234-01Z-00-DX2.CD.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    with pytest.raises(ValueError, match="3 problem") as error:
        sheet.read_sheet(folder)
    text = str(error.value)
    assert "b.tif, slide 'b': has the name of B.svs; rename one, or write a sheet" in text
    assert "x$y.svs, slide 'x$y': rename the file; use letters, digits" in text
    assert "uuid-2/TCGA-55-1234-01Z-00-DX2.CD.svs" in text
    assert "below/TCGA-55-1234-01Z-00-DX2.CD.tif" in text


def test_a_folder_without_slides_says_what_was_looked_for(tmp_path):
    for name in ("a.jpg", "b", "c.txt", "d.TXT"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="no slide in it or below it; looked for") as error:
        sheet.read_sheet(tmp_path)
    assert {".svs", ".mrxs", ".dcm", ".tiff"} <= {*str(error.value).partition("; left")[0].split()}
    assert "left out by extension: .txt (2), no extension (1), .jpg (1). Correct the path, or write a sheet" in str(
        error.value
    )


def test_files_of_slides_are_read_as_their_folder(folder):
    (folder / "notes.txt").unlink()
    paths = [str(path) for path in folder.rglob("*.*")]
    pd.testing.assert_frame_equal(sheet.read_sheet(paths, external=True), sheet.read_sheet(folder))
    assert sheet.read_external({"new": paths})["new"]["slide_id"].iloc[-1] == "b"


def test_files_that_cannot_name_a_slide_are_named(folder):
    (folder / "x$y.ome.zarr").mkdir()
    paths = [str(folder / name) for name in ("b.tif", "B.svs", "x$y.ome.zarr")]
    with pytest.raises(ValueError, match=r"files of slides: 2 problem") as error:
        sheet.read_sheet(paths)
    assert "b.tif, slide 'b': has the name of" in str(error.value)
    assert "x$y.ome.zarr, slide 'x$y': rename the file" in str(error.value)
    with pytest.raises(ValueError, match=rf"{folder}: 1 problem.*\n.*slide 'slides': "):
        sheet.read_sheet([str(folder)])
