"""OME-Zarr is read exactly, however it is stored; what is broken, left out or of another kind is named."""

import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

from slpd_core.wsi import identity, zarr_arrays
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.zarr_codecs import check_crc32c
from tests.wsi.ome_zarr_writer import crc32c, write_array, write_group, write_ome_zarr, zip_folder

STORAGE = [
    *({"compressor": name} for name in ("", "blosc", "gzip", "lz4", "zlib", "zstd")),
    {"separator": "."},
    {"order": (2, 1, 0)},
    {"axes": "tczyx", "colors_per_chunk": 1},
    {"axes": "yxc", "colors_per_chunk": 2},
    *({"version": 3, "compressor": name} for name in ("", "blosc", "gzip", "zstd")),
    {"version": 3, "has_checksum": True, "separator": "."},
    {"version": 3, "order": (1, 2, 0)},
    {"version": 3, "shards": (2, 3)},
    {"version": 3, "shards": (4, 2), "index_location": "start", "has_checksum": True, "axes": "tczyx"},
]


@pytest.fixture(scope="module")
def levels():
    """Three levels of 301 x 211 px; each holds pixels of its own, so that none is taken for another."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (-(-211 // 2**i), -(-301 // 2**i), 3), dtype=np.uint8) for i in range(3)]


@pytest.fixture
def write(tmp_path, levels):
    """Write the levels as an OME-Zarr."""
    return lambda **options: write_ome_zarr(tmp_path / "a.ome.zarr", levels, **options)


def assert_equal_pixels(path: Path, levels, **options) -> None:
    with Slide(path, **options) as slide:
        assert (slide.size, slide.mpp, slide.mpp_source) == ((301, 211), 0.5, "ome")
        for i, level in enumerate(levels):
            height, width, _ = level.shape
            pixels = slide.read((-4 * 2**i, 8 * 2**i), (width, height), 0.5 * 2**i)
            assert (pixels[: height - 8, 4:] == level[8:, : width - 4]).all()
            assert (pixels[height - 8 :] == 255).all()
            assert (pixels[:, :4] == 255).all()


@pytest.mark.parametrize("storage", STORAGE, ids=str)
def test_each_storage_is_read_to_the_pixel(write, levels, storage):
    assert_equal_pixels(write(**storage), levels)


@pytest.mark.parametrize("storage", [{}, {"version": 3, "shards": (2, 3)}], ids=str)
@pytest.mark.parametrize("name", ["a.ozx", "a.ome.zarr.zip"])
@pytest.mark.parametrize("top", ["", "a.ome.zarr/"])
def test_a_zip_is_read_as_its_folder(write, levels, storage, name, top):
    folder = write(**storage)
    assert_equal_pixels(zip_folder(folder, folder.with_name(name), top=top), levels)


def test_a_zip_may_be_compressed_but_for_shards(write, levels):
    folder = write()
    assert_equal_pixels(zip_folder(folder, folder.with_name("a.ozx"), compression=zipfile.ZIP_DEFLATED), levels)
    shutil.rmtree(folder)
    sharded = zip_folder(write(version=3, shards=(2, 3)), folder.with_name("b.ozx"), compression=zipfile.ZIP_DEFLATED)
    with Slide(sharded) as slide, pytest.raises(SlideError, match=r"b\.ozx.*compressed by the zip"):
        slide.read((0, 0), (50, 50), 0.5)


def test_pixels_at_any_scale_are_those_of_a_tiff(tmp_path, levels):
    rng = np.random.default_rng(3)
    base = rng.integers(0, 256, (256, 320, 3), dtype=np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", [base], chunk_px=(64, 64))
    options = {"photometric": "rgb", "tile": (64, 64), "resolution": (20_000, 20_000), "resolutionunit": 3}
    tifffile.imwrite(tmp_path / "a.tif", base, compression="zlib", **options)
    with Slide(path) as slide, Slide(tmp_path / "a.tif") as tiff, Slide(path, threads=3) as threaded:
        for mpp in (0.5, 0.7, 1.0, 2.0):
            expected = tiff.read((17, 32), (70, 55), mpp)
            assert (slide.read((17, 32), (70, 55), mpp) == expected).all()
            assert (threaded.read((17, 32), (70, 55), mpp) == expected).all()
        assert (slide.thumbnail(4.0) == tiff.thumbnail(4.0)).all()


@pytest.mark.parametrize(("unit", "factor"), [("micrometer", 1.0), ("nanometer", 1e3), ("millimeter", 1e-3)])
def test_um_per_px_are_the_scale_in_its_unit(write, unit, factor):
    with Slide(write(mpp=0.25 * factor, unit=unit)) as slide:
        assert slide.mpp == pytest.approx(0.25)


def test_a_scale_of_all_levels_counts_too(write):
    path = write(mpp=0.5)
    meta = json.loads((path / ".zattrs").read_text())
    meta["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    (path / ".zattrs").write_text(json.dumps(meta))
    with Slide(path) as slide:
        assert slide.mpp == 0.25


def test_without_a_unit_the_sheet_states_the_scale(write):
    path = write(unit="")
    with pytest.raises(SlideError, match="no um/px in the slide"):
        Slide(path)
    with Slide(path, 0.4) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.4, "sheet")


@pytest.mark.parametrize("storage", [{}, {"version": 3}, {"version": 3, "shards": (2, 3)}], ids=str)
def test_a_chunk_that_is_left_out_is_an_error_or_the_fill_value(write, levels, storage):
    path = write(left_out=lambda index: index[1:] == (1, 2), fill_value=9, **storage)
    with (
        Slide(path) as slide,
        pytest.raises(SlideError, match=r"a\.ome\.zarr: missing chunk of level 0 at x=96, y=64;"),
    ):
        slide.read((0, 0), (301, 211), 0.5)
    expected = levels[0].copy()
    expected[64:128, 96:144] = 9
    with Slide(path, missing_tiles="white") as slide:
        assert (slide.read((0, 0), (301, 211), 0.5) == expected).all()
        assert slide.remarks == (
            "1 of the 28 tiles of level 0 are missing and read as the fill value 9 (tissue.missing_tiles).",
        )


def test_without_a_fill_value_a_chunk_that_is_left_out_is_an_error(write):
    path = write(left_out=lambda index: index[1:] == (1, 2), fill_value=None)
    with Slide(path, missing_tiles="white") as slide, pytest.raises(SlideError, match="missing chunk"):
        slide.read((0, 0), (301, 211), 0.5)


@pytest.mark.parametrize("storage", [{"compressor": name} for name in ("", "blosc", "gzip", "lz4", "zlib", "zstd")])
@pytest.mark.parametrize("damage", ["cut", "empty", "longer"])
def test_a_broken_chunk_is_named(write, storage, damage):
    path = write(**storage)
    chunk = path / "0" / "0" / "1" / "2"
    data = chunk.read_bytes()
    larger = np.random.default_rng(0).integers(0, 256, (1, 1, 200_000), dtype=np.uint8)
    write_array(path / "b", larger, (1, 1, 200_000), **storage)
    chunk.write_bytes({"cut": data[:-7], "empty": b"", "longer": (path / "b" / "0" / "0" / "0").read_bytes()}[damage])
    with Slide(path) as slide, pytest.raises(SlideError, match=r"a\.ome\.zarr: broken chunk of level 0 at x=96, y=64 "):
        slide.read((0, 0), (301, 211), 0.5)


@pytest.mark.parametrize("storage", [{"has_checksum": True}, {"shards": (4, 7)}], ids=str)
def test_a_flipped_bit_is_told_by_a_checksum(write, storage):
    path = write(version=3, compressor="", **storage)
    file = next(path for path in sorted((path / "0").rglob("*")) if path.is_file() and path.name != "zarr.json")
    data = bytearray(file.read_bytes())
    data[-20] ^= 4  # of the chunk, or of the index of its shard
    file.write_bytes(data)
    with Slide(path) as slide, pytest.raises(SlideError, match="differs from its checksum"):
        slide.read((0, 0), (301, 211), 0.5)


def test_the_checksum_is_that_of_its_standard():
    assert crc32c(b"123456789") == 0xE3069283.to_bytes(4, "little")
    assert check_crc32c(b"123456789" + crc32c(b"123456789")) == b"123456789"


def change(path: Path, **values) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"dtype": "<u2"}, "pixels of type <u2, not of 8 bits"),
        ({"compressor": {"id": "imagecodecs_jpegxl"}}, "compressed by imagecodecs_jpegxl"),
        ({"filters": [{"id": "delta"}]}, "filters"),
        ({"shape": [1, 211, 301]}, "1 channels, not the three of RGB"),
        ({"shape": [4, 211, 301]}, "4 channels, not the three of RGB"),
    ],
)
def test_an_array_of_another_kind_is_named_with_the_remedy(write, values, reason):
    path = write()
    change(path / "0" / ".zarray", **values)
    with pytest.raises(SlideError, match=rf"a\.ome\.zarr: OME-Zarr of a kind.*{reason}.*; save it as 8-bit RGB"):
        Slide(path)


def test_planes_of_focus_are_not_read(tmp_path, levels):
    path = write_ome_zarr(tmp_path / "a.zarr", levels, axes="tczyx")
    change(path / "0" / ".zarray", shape=[1, 3, 5, 211, 301])
    with pytest.raises(SlideError, match="5 planes along z, not one"):
        Slide(path)


def test_channels_of_other_colors_are_not_taken_for_rgb(write):
    def omero(*colors):
        return {"omero": {"channels": [{"color": color} for color in colors]}}

    Slide(write(attributes=omero("FF0000", "00ff00", "0000FF"))).close()
    with pytest.raises(SlideError, match="channels of the colors 0000FF 00FF00 FF0000; if they are red"):
        Slide(write(attributes=omero("0000FF", "00FF00", "FF0000")))


@pytest.mark.parametrize("axes", [None, ["c", "y", "x"], [{"name": "y"}, {"name": "x"}]])
def test_axes_that_are_not_stated_are_not_guessed(write, axes):
    path = write()
    pyramid = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    change(path / ".zattrs", multiscales=[pyramid | {"axes": axes}])
    with pytest.raises(SlideError, match=r"OME-Zarr of a kind that is not read \((it does not state its axes|no axis)"):
        Slide(path)


def test_of_a_bio_formats_conversion_the_largest_picture_is_read(tmp_path, levels):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path / "0", [levels[2]], mpp=2.0)
    write_ome_zarr(path / "1", levels)
    write_group(path, {"bioformats2raw.layout": 3})
    assert_equal_pixels(path, levels)
    write_group(path / "OME", {"series": ["0", "1"]})
    assert_equal_pixels(path, levels)
    with Slide(path) as slide:
        assert slide.remarks == ("Of the file's 2 pictures the largest is read, series 1.",)


@pytest.mark.parametrize(
    "transformation", [{"type": "scale", "scale": [1.0, 2.5, 2.5]}, {"type": "translation", "translation": [0, 9, 0]}]
)
def test_a_level_of_another_scale_or_position_is_not_read(write, levels, transformation):
    path = write()
    pyramid = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    pyramid["datasets"][1]["coordinateTransformations"].append(transformation)
    change(path / ".zattrs", multiscales=[pyramid])
    with Slide(path) as slide:
        assert "Level 1 is not read, since its stated scale or position is not that of its pixels." in slide.remarks
        expected = levels[0][:210, :300].reshape(105, 2, 150, 2, 3).mean((1, 3))
        assert np.abs(slide.read((0, 0), (150, 105), 1.0) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("path", ["../b.zarr/0", "/etc", "0/../../b.zarr/0", "x" * 5000, "0\0", "..\\b"])
def test_no_path_leaves_the_slide(tmp_path, write, levels, path):
    folder = write()
    write_ome_zarr(tmp_path / "b.zarr", levels)
    pyramid = json.loads((folder / ".zattrs").read_text())["multiscales"][0]
    pyramid["datasets"][0]["path"] = path
    change(folder / ".zattrs", multiscales=[pyramid])
    for slide in (folder, zip_folder(folder, tmp_path / "a.ozx")):
        with pytest.raises(SlideError, match="leads out of the slide"):
            Slide(slide)


def test_no_link_leaves_the_slide(tmp_path, write, levels):
    folder = write()
    (tmp_path / "link.zarr").symlink_to(folder)  # the slide itself may be one
    assert_equal_pixels(tmp_path / "link.zarr", levels)
    shutil.move(folder / "0" / "0", tmp_path / "elsewhere")
    (folder / "0" / "0").symlink_to(tmp_path / "elsewhere")
    with Slide(folder) as slide, pytest.raises(SlideError, match="a link leads out of the slide"):
        slide.read((0, 0), (10, 10), 0.5)


@pytest.mark.parametrize(
    "values",
    [
        {"chunks": [3, 100_000, 100_000]},
        {"chunks": [3, 1, 1], "shape": [3, 100_000, 100_000]},
        {"shape": [3, 10**13, 10**13]},
        {"shape": [3, 1 << 39, 1 << 39], "chunks": [3, 1 << 13, 1 << 13]},
    ],
    ids=str,
)
def test_what_an_array_states_takes_no_memory(write, values):
    path = write(compressor="")
    change(path / "0" / ".zarray", **values)
    with pytest.raises(SlideError, match=r"a\.ome\.zarr: .*(states|shape)"):
        Slide(path, missing_tiles="white")


def test_an_index_of_shards_is_bounded(write, monkeypatch):
    path = write(version=3, shards=(2, 3))
    monkeypatch.setattr(zarr_arrays, "MAX_CHUNKS_PER_SHARD", 5)
    with pytest.raises(SlideError, match="shards of 6 chunks, more than 5"):
        Slide(path)


@pytest.mark.parametrize("value", [None, -1, "x", [], {}, 1e300, [None], [{}], [[1]], True])
@pytest.mark.parametrize("storage", [{}, {"version": 3, "shards": (2, 3)}], ids=str)
def test_damaged_metadata_end_in_an_error_or_the_pixels(write, levels, storage, value):
    """Each entry at any depth, in turn, is replaced, or left out where the value is True."""
    path = write(**storage)

    def damage(node):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in [*items]:
            node[key] = value
            if value is True:
                del node[key]
            yield
            if value is True and isinstance(node, list):
                node.insert(key, child)
            node[key] = child
            yield from damage(child)

    for file in (*path.glob("*z*"), *(path / "0").glob("*z*")):
        meta = json.loads(file.read_text())
        for _ in damage(meta):
            file.write_text(json.dumps(meta))
            with suppress(SlideError), Slide(path, 0.5) as slide:
                slide.read((0, 0), (301, 211), 0.5)
        file.write_text(json.dumps(meta))
    assert_equal_pixels(path, levels)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 9, b"PK\5\6" + b"\xff" * 18])
def test_a_broken_zip_is_named(tmp_path, content):
    (tmp_path / "a.ozx").write_bytes(content)
    with pytest.raises(SlideError, match=r"a\.ozx: broken OME-Zarr"):
        Slide(tmp_path / "a.ozx")


def test_a_zip_of_several_slides_is_not_read(tmp_path, write):
    folder = write()
    path = zip_folder(folder, tmp_path / "a.zip", top="a.zarr/")
    with zipfile.ZipFile(path, "a") as file:
        file.write(folder / ".zattrs", "b.zarr/.zattrs")
    with pytest.raises(SlideError, match=r"several slides in one zip: a\.zarr/, b\.zarr/"):
        Slide(path)


def test_a_flipped_bit_in_a_zip_is_told(tmp_path, write):
    path = zip_folder(write(compressor=""), tmp_path / "a.ozx")
    with zipfile.ZipFile(path) as file:
        entry = file.getinfo("0/0/1/2")
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 2000] ^= 1
    path.write_bytes(data)
    with Slide(path) as slide, pytest.raises(SlideError, match="differs from its checksum"):
        slide.read((0, 0), (301, 211), 0.5)


def test_a_slide_that_is_not_there_is_named(tmp_path):
    for name in ("a.ozx", "a.zarr"):
        with pytest.raises(FileNotFoundError, match="correct its path in the sheet"):
            Slide(tmp_path / name)


def test_a_slide_is_known_by_each_of_its_files(tmp_path, write):
    path = write()
    described = identity.describe_files({"a": path})["a"]
    fingerprints = identity.slide_fingerprint(path), identity.sample_fingerprint(path)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert described[1] == sum(file.stat().st_size for file in files)
    copy = shutil.copytree(path, tmp_path / "elsewhere" / "b.zarr")
    assert (identity.slide_fingerprint(copy), identity.sample_fingerprint(copy)) == fingerprints
    assert identity.find_copies({"a": path, "b": copy}) == [("a", "b")]
    for file in (path / "0" / "0" / "1" / "2", path / "2" / ".zarray"):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert identity.slide_fingerprint(path) != fingerprints[0]
        assert identity.describe_files({"a": path})["a"] != described
        file.write_bytes(content)
    assert identity.slide_fingerprint(path) == fingerprints[0]
    (path / "0" / "0" / "1" / "2").rename(path / "0" / "0" / "1" / "9")
    assert identity.slide_fingerprint(path) != fingerprints[0]
