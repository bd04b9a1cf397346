"""The slides in a folder are found wherever they lie, and nothing else."""

from collections import Counter
from pathlib import Path

import pytest

from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.identity import describe_files, find_copies, slide_fingerprint
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.slide_files import slide_files
from slpd_core.wsi.slide_folder import KNOWN_SUFFIXES, find_slides
from tests.wsi.test_identity import dicom, write_mirax


@pytest.fixture
def write(tmp_path):
    """Write files below a folder; returns the folder."""

    def make(*names: str, content: bytes = b"") -> Path:
        for name in names:
            path = tmp_path / "slides" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "slides"

    return make


def listed(folder: Path) -> list[tuple[str, str]]:
    return [(name, path.relative_to(folder).as_posix()) for name, path in find_slides(folder)[0]]


def test_each_extension_of_a_slide_is_known_in_any_case(write):
    names = [f"{index:02}{suffix}" for index, suffix in enumerate(sorted(KNOWN_SUFFIXES))]
    folder = write(*(name.upper() if index % 2 else name for index, name in enumerate(names)))
    assert [name for name, _ in listed(folder)] == [f"{index:02}" for index in range(len(names))]


def test_slides_lie_in_folders_of_folders_sorted_by_name(write):
    folder = write("z/a.svs", "b.tiff", "y/x/c.ndpi", "a/d.ome.tif")
    assert listed(folder) == [("a", "z/a.svs"), ("b", "b.tiff"), ("c", "y/x/c.ndpi"), ("d.ome", "a/d.ome.tif")]


def test_what_is_no_slide_is_counted_and_what_is_hidden_passed_over(write):
    folder = write(
        "a.svs", "._a.svs", ".cache/b.svs", "a.svs.part", "notes.TXT", "readme", "below/more.txt", ".DS_Store"
    )
    slides, others = find_slides(folder)
    assert slides == [("a", folder / "a.svs")]
    assert others == Counter({".txt": 2, "": 1, ".part": 1})


def test_the_data_of_a_mirax_slide_are_its_own(write):
    folder = write("b.svs")
    write_mirax(folder / "below" / "a.mrxs")
    write("below/a/thumbnail.tif", "below/other/c.tif")
    assert listed(folder) == [("a", "below/a.mrxs"), ("b", "b.svs"), ("c", "below/other/c.tif")]


def test_a_dicom_series_is_one_slide(write):
    folder = write("one/1.dcm", "one/2.dcm", content=dicom("1.2.3"))
    write("two/5.dcm", "two/6.dcm", "two/9.DCM", content=dicom("4.5.6"))
    write("two/3.dcm", "two/7.dcm", content=dicom("7.8.9"))
    write("mixed/x.dcm", content=dicom("1.1.1"))
    write("mixed/b.svs", "one/notes.txt")
    write("torn/t.dcm", "torn/u.dcm", content=b"no DICOM")
    assert listed(folder) == [
        *(("3", "two/3.dcm"), ("5", "two/5.dcm"), ("b", "mixed/b.svs"), ("one", "one/1.dcm")),
        *(("t", "torn/t.dcm"), ("u", "torn/u.dcm"), ("x", "mixed/x.dcm")),
    ]
    assert [path.name for _, path in slide_files(folder / "two" / "5.dcm")] == ["5.dcm", "6.dcm", "9.DCM"]


def test_the_one_series_of_the_folder_itself_is_named_by_its_file(write):
    assert listed(write("2.dcm", "10.dcm", content=dicom("1.2.3"))) == [("10", "10.dcm")]


def test_an_ome_zarr_is_one_slide_as_a_folder_or_a_zip(write):
    folder = write("a.ome.zarr/0/.zarray", "a.ome.zarr/c.svs", "below/B.ZARR/zarr.json", "c.ozx", "d.ome.zarr.zip")
    write("e.zarr.zip", "other.zip", ".hidden.zarr/zarr.json")
    assert listed(folder) == [
        *(("B", "below/B.ZARR"), ("a", "a.ome.zarr"), ("c", "c.ozx"), ("d", "d.ome.zarr.zip"), ("e", "e.zarr.zip")),
    ]
    assert find_slides(folder)[1] == Counter({".zip": 1})


def test_a_folder_of_one_dicom_series_is_the_slide_of_its_files(write):
    folder = write("one/1.dcm", "one/2.dcm", content=dicom("1.2.3"))
    assert slide_files(folder / "one") == slide_files(folder / "one" / "1.dcm")
    assert slide_fingerprint(folder / "one") == slide_fingerprint(folder / "one" / "2.dcm")
    write("one/3.dcm", content=dicom("7.8.9"))
    with pytest.raises(SlideError, match="one: 2 DICOM series in one folder; name a file of one"):
        Slide(folder / "one")


def test_a_folder_that_is_no_slide_is_named_with_the_remedy(write):
    write_mirax(write("notes/a.txt") / "a.mrxs")
    folder = write("b.svs")
    with pytest.raises(SlideError, match=r"a: a folder that is neither OME-Zarr nor DICOM; name a\.mrxs beside it"):
        Slide(folder / "a")
    with pytest.raises(SlideError, match="correct its path in the sheet"):
        Slide(folder / "notes")
    assert describe_files({"a": folder / "notes"}) == {"a": ("no slide", 0)}
    assert find_copies({"a": folder / "notes", "b": folder / "notes"}) == []


def test_links_are_followed_each_folder_once(write, tmp_path):
    folder = write("a.svs", "below/b.svs")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "c.svs").touch()
    (folder / "linked").symlink_to(tmp_path / "archive")
    (folder / "d.svs").symlink_to(tmp_path / "archive" / "c.svs")
    (folder / "again").symlink_to(folder / "below")
    (folder / "below" / "circle").symlink_to(folder)
    assert listed(folder) == [("a", "a.svs"), ("b", "again/b.svs"), ("c", "linked/c.svs"), ("d", "d.svs")]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        find_slides(tmp_path / "gone")
