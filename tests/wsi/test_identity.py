"""A slide is all of its files, by every byte, whatever it is called and wherever it lies."""

import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from slpd_core.wsi import identity, slide_files
from slpd_core.wsi.reader import Slide

NAME = b"0123456789ABCDEF0123456789ABCDEF"
SIDE = 64  # of an image of the MIRAX slide, px


def write_mirax(path: Path, color: int = 200, images: Sequence[int] = range(4)) -> Path:
    """A MIRAX slide of one level and 2 x 2 images of one color, 0.5 um/px; images: those that were scanned."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    tile = np.full((SIDE, SIDE, 3), color, np.uint8)
    jpeg = simplejpeg.encode_jpeg(tile, quality=92, colorspace="RGB", colorsubsampling="444")
    (folder / "Data0000.dat").write_bytes(jpeg * 4)
    index = bytearray(b"01.02" + NAME + struct.pack("<ii", 45, 0) + struct.pack("<i", 49))
    records = [value for number in images for value in (number, number * len(jpeg), len(jpeg), 0)]
    index += struct.pack(f"<iiii{len(records)}i", 0, 57, len(images), 0, *records)
    struct.pack_into("<i", index, 41, len(index))
    (folder / "Index.dat").write_bytes(bytes(index + bytes(16)))
    general = {"SLIDE_VERSION": "01.02", "SLIDE_ID": NAME.decode(), "IMAGENUMBER_X": 2, "IMAGENUMBER_Y": 2}
    general |= {"OBJECTIVE_MAGNIFICATION": 20, "CURRENT_SLIDE_VERSION": "1.9"}
    levels = {"HIER_COUNT": 1, "NONHIER_COUNT": 0, "INDEXFILE": "Index.dat", "HIER_0_NAME": "Slide zoom level"}
    levels |= {"HIER_0_COUNT": 1, "HIER_0_SECTION": "LAYER_0", "HIER_0_VAL_0": "0", "HIER_0_VAL_0_SECTION": "LEVEL_0"}
    level = {"OVERLAP_X": 0, "OVERLAP_Y": 0, "MICROMETER_PER_PIXEL_X": 0.5, "MICROMETER_PER_PIXEL_Y": 0.5}
    level |= {"IMAGE_FILL_COLOR_BGR": 0, "DIGITIZER_WIDTH": SIDE, "DIGITIZER_HEIGHT": SIDE, "IMAGE_FORMAT": "JPEG"}
    level |= {"IMAGE_CONCAT_FACTOR": 0}
    sections = {"GENERAL": general, "HIERARCHICAL": levels, "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"}}
    lines = []
    for title, values in (sections | {"LEVEL_0": level}).items():
        lines += [f"[{title}]", *(f"{key} = {value}" for key, value in values.items())]
    (folder / "Slidedat.ini").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    path.write_bytes(b"a picture of its label")
    return path


def dicom(series: str, content: bytes = b"", *, implicit: bool = False, nested: bool = True) -> bytes:
    """The header of a DICOM file of a series; nested: within one of its sequences another series is named."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        tag = struct.pack("<HH", group, number)
        if implicit and group > 2:
            return tag + struct.pack("<I", len(value)) + value
        return tag + kind + struct.pack("<H", len(value)) + value

    other = element(0x20, 0xE, b"UI", b"9.9.9")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + other + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    length = 0xFFFFFFFF
    tag = struct.pack("<HH", 0x8, 0x1115)
    sequence = (tag if implicit else tag + b"SQ\0\0") + struct.pack("<I", length) + item
    sequence += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    parts = [bytes(128), b"DICM", element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1"), element(8, 0x60, b"CS", b"SM")]
    parts += [sequence] * nested + [element(0x20, 0xE, b"UI", series.encode()), element(0x28, 0x10, b"US", b"ab")]
    return b"".join(parts) + content


@pytest.fixture
def mirax(tmp_path):
    return write_mirax(tmp_path / "scans" / "a.mrxs")


@pytest.mark.parametrize("name", ["Data0000.dat", "Index.dat", "Slidedat.ini"])
def test_a_mirax_slide_is_known_by_each_of_its_files(mirax, name):
    before = identity.slide_fingerprint(mirax), identity.sample_fingerprint(mirax), identity.file_stamps(mirax)
    path = mirax.with_suffix("") / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = identity.slide_fingerprint(mirax), identity.sample_fingerprint(mirax), identity.file_stamps(mirax)
    assert [old != new for old, new in zip(before, after, strict=True)] == [True] * 3


def test_what_a_viewer_leaves_beside_a_mirax_slide_is_not_of_it(mirax):
    before = identity.slide_fingerprint(mirax), identity.file_stamps(mirax)
    (mirax.with_suffix("") / "Thumbs.db").write_bytes(b"cache")
    (mirax.parent / "b.mrxs").write_bytes(b"another")
    assert (identity.slide_fingerprint(mirax), identity.file_stamps(mirax)) == before


def test_a_slide_under_another_name_elsewhere_is_the_same(mirax, tmp_path):
    moved = tmp_path / "archive" / "b.mrxs"
    shutil.copytree(mirax.with_suffix(""), moved.with_suffix(""))
    shutil.copy(mirax, moved)
    assert identity.slide_fingerprint(moved) == identity.slide_fingerprint(mirax)


@pytest.mark.parametrize("farm", [False, True], ids=["a link alone", "its folder linked too"])
def test_a_mirax_slide_opens_by_a_link(mirax, tmp_path, farm):
    link = tmp_path / "links" / "b.mrxs"
    link.parent.mkdir()
    link.symlink_to(mirax)
    if farm:
        link.with_suffix("").symlink_to(mirax.with_suffix(""))
    with Slide(link) as slide:
        assert slide.size == (2 * SIDE, 2 * SIDE)
        assert slide.read((0, 0), (SIDE, SIDE), 0.5).mean() == pytest.approx(200, abs=1)
    assert identity.slide_fingerprint(link) == identity.slide_fingerprint(mirax)


def test_a_linked_index_beside_other_data_is_another_slide(mirax, tmp_path):
    """As stores of content keep them: what lies beside the link is what is read."""
    other = write_mirax(tmp_path / "links" / "b.mrxs", color=100)
    other.unlink()
    other.symlink_to(mirax)
    with Slide(other) as slide:
        assert slide.read((0, 0), (SIDE, SIDE), 0.5).mean() == pytest.approx(100, abs=1)
    assert identity.slide_fingerprint(other) != identity.slide_fingerprint(mirax)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_dicom_slide_is_the_files_of_its_series(tmp_path, implicit, nested):
    files = {"one": "1.2.3", "two": "1.2.3", "three": "1.2.4"}
    for number, (name, series) in enumerate(files.items()):
        content = dicom(series, bytes([number]), implicit=implicit, nested=nested)
        (tmp_path / f"{name}.dcm").write_bytes(content)
    (tmp_path / "notes.txt").write_text("no slide")
    one, two, three = (tmp_path / f"{name}.dcm" for name in files)
    found = {path.name: {file for _, file in slide_files.slide_files(path)} for path in (one, two, three)}
    assert found == {"one.dcm": {one, two}, "two.dcm": {one, two}, "three.dcm": {three}}
    first = identity.slide_fingerprint(one)
    assert first == identity.slide_fingerprint(two)
    two.write_bytes(dicom("1.2.3", b"x", implicit=implicit, nested=nested))
    assert identity.slide_fingerprint(one) != first


def test_a_real_dicom_slide_names_its_series(real, tmp_path):
    link = tmp_path / "slide"
    link.symlink_to(real("multiframe_camelyon_challenge_image.dcm"))
    with Slide(link, 0.5) as slide:
        assert slide.size == (1152, 700)
        series = slide._source.properties["dicom.SeriesInstanceUID"]
    assert slide_files._series_of_file(link) == series


def test_a_vms_slide_is_known_by_the_pictures_it_names(tmp_path):
    index = tmp_path / "a.vms"
    lines = ["[Virtual Microscope Specimen]", "ImageFile=1.jpg", "ImageFile(1,0)=2.jpg", "MapFile=m.jpg", "No=../b"]
    index.write_text("\n".join(lines))
    for name in ("1.jpg", "2.jpg", "m.jpg", "other.jpg"):
        (tmp_path / name).write_text(name)
    assert [file.name for _, file in slide_files.slide_files(index)] == ["a.vms", "1.jpg", "2.jpg", "m.jpg"]
    before = identity.slide_fingerprint(index)
    (tmp_path / "1.jpg").write_text("2.jpg")
    (tmp_path / "2.jpg").write_text("1.jpg")
    assert identity.slide_fingerprint(index) != before


def test_a_vms_slide_may_name_pictures_in_another_encoding(tmp_path):
    index, picture = tmp_path / "a.vms", os.fsencode(tmp_path) + b"/B\xfcrste.jpg"
    index.write_bytes(b"[Virtual Microscope Specimen]\nImageFile=B\xfcrste.jpg\n")
    found = []
    for content in (b"one", b"two"):
        Path(os.fsdecode(picture)).write_bytes(content)
        found += [identity.slide_fingerprint(index), identity.sample_fingerprint(index)]
    assert len(set(found)) == 4
    assert identity.describe_files({"a": index})["a"][1] == index.stat().st_size + 3


def test_an_index_names_files_of_its_own_folder_only(mirax, tmp_path):
    """No other folder's, no device's, and no more than its first MiB say."""
    folder = mirax.with_suffix("")
    (tmp_path / "secret").write_text("elsewhere")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    names = ["../../secret", str(tmp_path / "secret"), "zero", "pipe", ".", "..", "Index.dat", "Index.dat/..", ""]
    text = "\n".join(f"FILE_{number} = {name}" for number, name in enumerate(names))
    (folder / "late.dat").write_text("named too late")
    (folder / "Slidedat.ini").write_text(text + " " * slide_files.MAX_INDEX_BYTES + "\nFILE_9 = late.dat")
    assert [file.name for _, file in slide_files.slide_files(mirax)] == ["a.mrxs", "Slidedat.ini", "Index.dat"]


def test_every_byte_of_a_large_file_counts_and_the_sample_leaves_some_out(tmp_path):
    path = tmp_path / "a.svs"
    content = bytearray(6_000_000)
    path.write_bytes(content)
    whole, sampled = identity.slide_fingerprint(path), identity.sample_fingerprint(path)
    content[66_000:90_000] = b"\1" * 24_000  # between the first block and the second
    path.write_bytes(content)
    assert identity.sample_fingerprint(path) == sampled
    assert identity.slide_fingerprint(path) != whole


def test_a_memo_spares_the_reading_until_a_file_is_another(mirax, tmp_path, monkeypatch):
    memo, reads = tmp_path / "state" / "a.json", []
    read = identity.artifacts.file_fingerprint
    monkeypatch.setattr(identity.artifacts, "file_fingerprint", lambda path: reads.append(path) or read(path))
    first = identity.slide_fingerprint(mirax, memo)
    assert (len(reads), identity.slide_fingerprint(mirax, memo), len(reads)) == (4, first, 4)
    data = mirax.with_suffix("") / "Data0000.dat"
    stat = data.stat()
    data.write_bytes(data.read_bytes()[::-1])
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and date as before
    second = identity.slide_fingerprint(mirax, memo)
    assert second != first
    assert second == identity.slide_fingerprint(mirax)
    memo.write_text("{")
    assert identity.slide_fingerprint(mirax, memo) == second


def test_a_flipped_bit_of_a_memo_is_no_fingerprint(tmp_path, monkeypatch):
    """Each bit of it: a damaged memo is none, and the slide is read once more."""
    path, memo = tmp_path / "a.svs", tmp_path / "results/cohort/state/a.json"
    path.write_bytes(b"slide")
    right = identity.slide_fingerprint(path, memo)
    whole = memo.read_bytes()
    monkeypatch.setattr(identity.artifacts, "write_json", lambda *_: None)  # which waits for the disk
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        memo.write_bytes(damaged)
        assert identity.slide_fingerprint(path, memo) == right, bit


def test_a_file_that_changes_while_it_is_read_has_no_fingerprint(tmp_path, monkeypatch):
    path = tmp_path / "a.svs"
    path.write_bytes(b"first")
    monkeypatch.setattr(identity.artifacts, "file_fingerprint", lambda _: path.write_bytes(b"second, longer"))
    with pytest.raises(OSError, match=r"a\.svs: changed while it was read"):
        identity.slide_fingerprint(path, tmp_path / "memo")
    assert not (tmp_path / "memo").exists()


@pytest.fixture
def describe(tmp_path):
    """What slides are known by that are written as {id: (name, content, date in ns)}."""

    def describe(slides):
        paths = {}
        for slide_id, (name, content, date) in slides.items():
            paths[slide_id] = tmp_path / name
            paths[slide_id].parent.mkdir(exist_ok=True)
            paths[slide_id].write_bytes(content)
            os.utime(paths[slide_id], ns=(date, date))
        return identity.describe_files(paths)

    return describe


def test_slides_of_equal_size_and_date_are_told_apart_when_they_are_swapped(describe):
    """By their names; in folders of their own, where all have one name, by their bytes."""
    first, second = (b"one", 10**18), (b"two", 10**18)
    for names in (("1.svs", "2.svs"), ("1/slide.svs", "2/slide.svs")):
        before = describe({"a": (names[0], *first), "b": (names[1], *second)})
        after = describe({"a": (names[1], *second), "b": (names[0], *first)})
        assert before["a"] == after["b"] != after["a"] == before["b"]


def test_a_date_is_seen_to_the_nanosecond_and_a_slide_may_move(describe):
    before = describe({"a": ("1/slide.svs", b"one", 10**18)})
    assert describe({"a": ("2/slide.svs", b"one", 10**18)}) == before
    assert describe({"a": ("2/slide.svs", b"one", 10**18 + 1)}) != before


def test_a_slide_that_is_away_is_described_as_that(tmp_path):
    assert identity.describe_files({"a": tmp_path / "a.svs", "b": tmp_path / "b.svs"}) == dict.fromkeys(
        "ab", ("not read: No such file or directory", 0)
    )


def test_of_twins_one_that_cannot_be_read_is_described_as_that(describe, monkeypatch):
    sample = identity.sample_fingerprint

    def fail(path):
        if path.parent.name == "1":
            raise OSError(5, "Input/output error")
        return sample(path)

    monkeypatch.setattr(identity, "sample_fingerprint", fail)
    found = describe({"a": ("1/slide.svs", b"one", 10**18), "b": ("2/slide.svs", b"two", 10**18)})
    assert found["a"] == ("not read: Input/output error", 0)
    assert found["b"][0].startswith("slide.svs: 3 bytes of")


def test_a_folder_of_dicom_slides_is_gone_through_once(tmp_path, monkeypatch):
    """Not once per slide, which takes hours of a flat folder of thousands."""
    for number in range(12):
        (tmp_path / f"{number:02}.dcm").write_bytes(dicom(f"1.2.{number // 3}"))
    read, reads = slide_files._series_of_file, []
    monkeypatch.setattr(slide_files, "_series_of_file", lambda path: reads.append(path.name) or read(path))
    found = [[file.name for _, file in slide_files.slide_files(path)] for path in sorted(tmp_path.iterdir())]
    assert found[4] == ["04.dcm", "03.dcm", "05.dcm"]
    assert slide_files._series_of_folder(tmp_path, tmp_path.stat().st_mtime_ns)["1.2.3"] == (
        "09.dcm",
        "10.dcm",
        "11.dcm",
    )
    assert len(reads) <= 2 * 12


def test_all_files_of_a_slide_are_described(mirax):
    text, size = identity.describe_files({"a": mirax})["a"]
    files = [mirax, *mirax.with_suffix("").iterdir()]
    assert size == sum(file.stat().st_size for file in files)
    data = mirax.with_suffix("") / "Data0000.dat"
    data.write_bytes(data.read_bytes()[:-9])
    assert identity.describe_files({"a": mirax})["a"][0] != text


def test_copies_are_those_of_equal_content(tmp_path):
    rng = np.random.default_rng(0)
    content = rng.bytes(6_000_000)
    near = bytearray(content)
    near[66_000] ^= 1  # not in the sample
    files = {"a": content, "b": near, "c": content, "d": content[:-1], "e": b"short", "f": b"short", "g": b"shord"}
    for name, value in files.items():
        (tmp_path / name).with_suffix(".svs").write_bytes(value)
    paths = {name: tmp_path / f"{name}.svs" for name in (*files, "gone")}
    assert identity.find_copies(paths) == [("a", "c"), ("e", "f")]


def test_copies_read_whole_only_what_may_be_one(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.svs").write_text(name * (1 + (name == "c")))
    monkeypatch.setattr(identity, "slide_fingerprint", lambda path: pytest.fail(f"{path} read whole"))
    assert identity.find_copies({name: tmp_path / f"{name}.svs" for name in "abc"}) == []
