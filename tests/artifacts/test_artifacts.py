"""Each artifact comes back as it was written, and nothing broken or half-written is read as whole."""

import errno
import io
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save as save_tensors
from shapely.geometry import Polygon

from slpd_core import artifacts
from slpd_core.artifacts import files
from slpd_core.artifacts.checksums import find_name
from slpd_core.artifacts.hdf5 import seal_h5
from slpd_core.artifacts.reading import NamedFile

META = artifacts.provenance("stage", 1, {"key": 1.5}, "input")
SLIDE = artifacts.SlideInfo("slide 7", artifacts.OK, "", 9000, 8000, 0.25, "sheet", "ab" * 16)
LOST = artifacts.SlideInfo("torn", artifacts.QUARANTINED, "torn: no tiles; copy it again")
REGIONS = artifacts.Regions(SLIDE, np.array([[0, 0], [8192, 0]]), np.array([0.25, 1.0], np.float32), 4096, 8192, 0.5)
FRAMES = {
    "sheet": pd.DataFrame(
        {
            "slide_id": ["001"],
            "patient_id": ["NA"],
            "mpp": [float("nan")],
            "site": ["05"],
        }
    ),
    "ledger": pd.DataFrame(
        {
            "slide_id": ["a", "b"],
            "patient_id": ["p", "p"],
            "status": ["ok", "quarantined"],
            "reason": ["", "torn"],
            "width_px": [10, 0],
            "height_px": [20, 0],
            "mpp": [0.5, float("nan")],
            "mpp_source": ["sheet", ""],
            "tissue_mm2": [1.5, 0.0],
            "tissue_source": ["segmented", "outline"],
            "regions": [3, 0],
            "fingerprint": ["f", "g"],
            "slide_fingerprint": ["e", ""],
            "remarks": ["Much is tissue.", ""],
        }
    ),
    "labels": pd.DataFrame({"slide_id": ["a", "001"], "patient_id": ["p", "NA"], "label": ["none", "1.0"]}),
    "embed": pd.DataFrame(
        {
            "slide_id": ["a", "a"],
            "x": [0, 4096],
            "y": [0, 0],
            "embedding": [np.arange(3, dtype=np.float32), np.ones(3, np.float32)],
        }
    ),
    "few_shot": pd.DataFrame({"fold": [0], "repeat": [9], "shots": [16], "classifier": ["logreg"], "auc": [0.5]}),
    "few_shot_results": pd.DataFrame(
        {"features": ["slpd"], "classifier": ["logreg"], "shots": [16], "folds": [9], "auc_low": [float("nan")]}
    ),
    "retrieval": pd.DataFrame(
        {
            **{"n_prototypes": [4], "fold": [0], "slide_id": ["a"], "patient_id": ["p"], "label": ["x"]},
            **{"ap_5": [float("nan")], "mv_1": [1.0], "mv_3": [1.0], "mv_5": [0.0]},
        }
    ),
    "retrieval_results": pd.DataFrame(
        {"features": ["slpd"], "n_prototypes": [4], "queries": [9], "folds": [3], "ap_5_mean": [0.5]}
    ),
    "attention": pd.DataFrame({"slide_id": ["a"], "x": [4096], "y": [0], "fold": [0], "attention": [0.25]}),
    "folds": pd.DataFrame({"fold": [0], "slide_id": ["a"], "patient_id": ["p"], "label": ["x"], "part": ["test"]}),
    "evaluate": pd.DataFrame(
        {"fold": [0], "slide_id": ["a"], "patient_id": ["p"], "label": ["x"], "p_x": [0.25], "p_y": [0.75]}
    ),
    "external": pd.DataFrame(
        {"features": ["slpd"], "classifier": ["mil"], "fold": [0], "slide_id": ["e"], "p_x": [0.25], "p_y": [0.75]}
    ),
    "external_results": pd.DataFrame(
        {"row": ["slpd/mil"], "folds": [10], "slides": [4], "patients": [3], "auc": [float("nan")]}
    ),
    "history": pd.DataFrame({"epoch": [0, 1], "loss": [5.5, 1 / 3], "entropy_inter": [float("nan"), 0.1]}),
    "remarks": pd.DataFrame({"remark": ["never tested", "=1+1"], "id": ["NA", "007"], "fold": ["", "0"]}),
    "results": pd.DataFrame({"row": ["slpd/mil"], "patch_encoder": [""], "splits": ["10 folds"], "auc_mean": [0.1]}),
}


def test_every_table_has_an_example():
    assert FRAMES.keys() == artifacts.TABLES.keys()


@pytest.mark.parametrize("rows", [None, 0], ids=["rows", "empty"])
@pytest.mark.parametrize("name", FRAMES)
def test_a_table_comes_back(tmp_path, name, rows):
    frame = FRAMES[name].head(rows) if rows is not None else FRAMES[name]
    artifacts.write_table(tmp_path / "t.parquet", name, frame, META | {"embed_dim": "3"})
    back, meta = artifacts.read_table(tmp_path / "t.parquet", name)
    assert list(back.columns) == list(frame.columns)
    assert meta["fingerprint"] == META["fingerprint"]
    for column in frame.columns:
        for mine, theirs in zip(frame[column], back[column], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["history", "remarks", "results"])
def test_a_table_for_people_too_is_read_from_what_is_checked(tmp_path, name):
    artifacts.write_both(tmp_path / "t.parquet", name, FRAMES[name], META)
    beside = pd.read_csv(tmp_path / "t.csv", dtype=FRAMES[name].dtypes.to_dict(), keep_default_na=name == "history")
    pd.testing.assert_frame_equal(beside.replace("'=1+1", "=1+1"), FRAMES[name])
    (tmp_path / "t.csv").write_text("edited")
    pd.testing.assert_frame_equal(artifacts.read_table(tmp_path / "t.parquet", name)[0], FRAMES[name])


def test_a_table_without_a_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folds table without \['part'\]"):
        artifacts.write_table(tmp_path / "t.parquet", "folds", FRAMES["folds"].drop(columns="part"), META)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("slide", [SLIDE, LOST], ids=["ok", "quarantined"])
def test_tissue_comes_back(tmp_path, slide):
    ring = Polygon([(0, 0), (100, 0), (100, 100), (0, 100)], [[(20, 20), (40, 20), (40, 40), (20, 40)]])
    polygons = (ring, Polygon([(200, 0), (300, 0), (300, 50)])) if slide is SLIDE else ()
    artifacts.write_tissue(tmp_path / "t.geojson", artifacts.Tissue(slide, polygons), META)
    back, meta = artifacts.read_tissue(tmp_path / "t.geojson")
    assert [polygon.area for polygon in back.polygons] == [polygon.area for polygon in polygons]
    assert all(mine.equals(theirs) for mine, theirs in zip(polygons, back.polygons, strict=True))
    assert replace(back.slide, mpp=1.0) == replace(slide, mpp=1.0)
    assert back.slide.mpp == slide.mpp or math.isnan(slide.mpp)
    assert meta == META


def test_regions_come_back_with_the_attributes_of_trident(tmp_path):
    import h5py

    artifacts.write_regions(tmp_path / "r.h5", REGIONS, META)
    back, meta = artifacts.read_regions(tmp_path / "r.h5")
    np.testing.assert_array_equal(back.coords, REGIONS.coords)
    np.testing.assert_array_equal(back.tissue_fraction, REGIONS.tissue_fraction)
    assert back.slide == SLIDE
    assert (back.size_px, back.size_level0_px, back.target_mpp) == (4096, 8192, 0.5)
    assert meta == META
    with h5py.File(tmp_path / "r.h5") as file:
        coords = file["coords"]
        assert coords.dtype == np.int64
        trident = {
            "patch_size": 4096,
            "patch_size_level0": 8192,
            "level0_magnification": 40,
            "target_magnification": 20,
        }
        trident |= {"overlap": 0, "name": "slide 7", "level0_width": 9000, "level0_height": 8000}
        assert {key: coords.attrs[key] for key in trident} == trident


def test_no_regions_come_back(tmp_path):
    none = artifacts.Regions(LOST, np.empty((0, 2), np.int64), np.empty(0, np.float32), 4096, 0, 0.5)
    artifacts.write_regions(tmp_path / "r.h5", none, META)
    back, _ = artifacts.read_regions(tmp_path / "r.h5")
    assert back.coords.shape == (0, 2)
    assert (back.slide.status, back.slide.reason) == (LOST.status, LOST.reason)


def test_tokens_come_back(tmp_path):
    tokens = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float16)
    mean_color = np.random.default_rng(1).uniform(0, 255, (2, 16, 3)).astype(np.float16)
    own = {"precision": "fp32", "encoder_source": "random", "encoder_name": "vit"}
    with artifacts.create_tokens(tmp_path / "t.h5", REGIONS, 4, 8, META | own) as written:
        for number in range(2):
            written.tokens[number], written.mean_color[number] = tokens[number], mean_color[number]
    back, meta = artifacts.read_tokens(tmp_path / "t.h5")
    np.testing.assert_array_equal(back.tokens, tokens)
    np.testing.assert_array_equal(back.mean_color, mean_color)
    np.testing.assert_array_equal(back.coords, REGIONS.coords)
    assert back.slide == SLIDE
    assert meta == META | own
    with artifacts.open_tokens(tmp_path / "t.h5") as (opened, _):
        np.testing.assert_array_equal(opened.tokens[1], tokens[1])


def test_the_tokens_of_an_empty_and_of_a_lost_slide_come_back(tmp_path):
    for slide in (SLIDE, LOST):
        none = artifacts.Regions(slide, np.empty((0, 2), np.int64), np.empty(0, np.float32), 4096, 8192, 0.5)
        with artifacts.create_tokens(tmp_path / "t.h5", none, 16, 384, META):
            pass
        back, meta = artifacts.read_tokens(tmp_path / "t.h5")
        assert (back.tokens.shape, back.tokens.dtype) == ((0, 256, 384), np.float16)
        assert (back.mean_color.shape, back.mean_color.dtype) == ((0, 256, 3), np.float16)
        assert back.coords.shape == (0, 2)
        assert (back.slide.status, back.slide.reason) == (slide.status, slide.reason)
        assert meta == META


def test_colours_that_are_not_the_tokens_own_are_refused(tmp_path):
    import h5py

    with artifacts.create_tokens(tmp_path / "t.h5", REGIONS, 4, 8, META):
        pass
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        del file["mean_color"]
        file["mean_color"] = np.zeros((2, 9, 3), np.float16)
    seal_h5(tmp_path / "t.h5")
    with pytest.raises(ValueError, match=r"mean_color float16 \(2, 9, 3\) for tokens \(2, 16, 8\); delete the file"):
        artifacts.read_tokens(tmp_path / "t.h5")


def test_a_text_comes_back(tmp_path):
    artifacts.write_text(tmp_path / "deep" / "t.csv", "a;±µ\n")
    assert (tmp_path / "deep" / "t.csv").read_text(encoding="utf-8") == "a;±µ\n"


def test_tokens_are_contiguous_and_plain(tmp_path):
    import h5py

    with artifacts.create_tokens(tmp_path / "t.h5", REGIONS, 4, 8, META):
        pass
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["tokens"].chunks is None
        assert file["tokens"].compression is None


def test_a_job_that_dies_while_writing_tokens_leaves_nothing(tmp_path):
    def work():
        with artifacts.create_tokens(tmp_path / "t.h5", REGIONS, 4, 8, META) as written:
            written.tokens[0] = 1
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        work()
    assert not list(tmp_path.iterdir())


def test_arrays_come_back(tmp_path):
    arrays = {"ids": np.array(["ä", "b c"]), "x": np.eye(3, dtype=np.float32), "none": np.empty((0, 4), np.int16)}
    artifacts.write_arrays(tmp_path / "a.h5", arrays, {"n": 3}, META)
    back, attrs = artifacts.read_arrays(tmp_path / "a.h5", tuple(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert back["none"].dtype == np.int16
    assert attrs == META | {"n": 3}


def test_weights_come_back(tmp_path):
    tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.zeros((), np.float32)}
    artifacts.write_weights(tmp_path / "w.safetensors", tensors, META)
    back, meta = artifacts.read_weights(tmp_path / "w.safetensors")
    assert back.keys() == tensors.keys()
    np.testing.assert_array_equal(back["a.weight"], tensors["a.weight"])
    assert meta == META


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_picture_comes_back_and_any_viewer_opens_it(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    picture, path = Image.fromarray(pixels).convert(mode), tmp_path / "results/cohort/tissue/a.png"
    artifacts.write_picture(path, picture)
    for source in (path, io.BytesIO(artifacts.read_picture(path))):
        with Image.open(source) as back:
            np.testing.assert_array_equal(back.convert("RGB"), picture.convert("RGB"))
    with Image.open(path) as back:
        back.verify()


def test_the_same_weights_are_the_same_bytes(tmp_path):
    path, found = tmp_path / "w.safetensors", set()
    for _ in range(20):
        artifacts.write_weights(path, {"b": np.ones(2), "a": np.zeros(3)}, {f"key {n}": "text" for n in range(9)})
        found.add(path.read_bytes())
    assert len(found) == 1


def write_one_of_each(folder):
    rng = np.random.default_rng(0)
    artifacts.write_table(folder / "t.parquet", "folds", FRAMES["folds"], META)
    artifacts.write_table(folder / "e.parquet", "embed", FRAMES["embed"], META | {"embed_dim": "3"})
    artifacts.write_both(folder / "h.parquet", "history", FRAMES["history"], META)
    artifacts.write_tissue(folder / "t.geojson", artifacts.Tissue(SLIDE, (Polygon([(0, 0), (9, 0), (9, 9)]),)), META)
    artifacts.write_regions(folder / "r.h5", REGIONS, META)
    with artifacts.create_tokens(folder / "k.h5", REGIONS, 4, 8, META) as tokens:
        tokens.tokens[:], tokens.mean_color[:] = rng.normal(size=(2, 16, 8)), rng.uniform(0, 255, (2, 16, 3))
    with artifacts.create_patches(folder / "p.h5", replace(REGIONS, size_px=16), META) as patches:
        for number in range(2):
            patches[number] = rng.integers(0, 256, (16, 16, 3))
    artifacts.write_weights(folder / "w.safetensors", {"a": np.ones(1000, np.float32)}, META)
    for name in ("i.png", "i.jpg"):
        artifacts.write_picture(folder / name, Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)))
    artifacts.write_json(folder / "memo.json", {"fingerprint": "f"})
    artifacts.write_arrays(folder / "a.h5", {"x": np.ones(1000), "names": np.array(["a", "b"])}, {}, META)


READERS = {
    "t.parquet": lambda path: artifacts.read_table(path, "folds"),
    "e.parquet": lambda path: artifacts.read_table(path, "embed"),
    "h.parquet": lambda path: artifacts.read_table(path, "history"),
    "t.geojson": artifacts.read_tissue,
    "r.h5": artifacts.read_regions,
    "k.h5": artifacts.read_tokens,
    "p.h5": lambda path: artifacts.read_patches(path)[0][()],
    "w.safetensors": artifacts.read_weights,
    "i.png": artifacts.read_picture,
    "i.jpg": artifacts.read_picture,
    "memo.json": artifacts.read_json,
    "a.h5": lambda path: artifacts.read_arrays(path, ("x", "names")),
}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", READERS)
def test_a_truncated_artifact_is_named_with_the_remedy(tmp_path, name, share):
    write_one_of_each(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"{name}: .*delete the file") as error:
        READERS[name](path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_anywhere_is_named_with_the_remedy(tmp_path, name):
    write_one_of_each(tmp_path)
    path, rng = tmp_path / name, np.random.default_rng(7)
    whole = path.read_bytes()
    READERS[name](path)
    for bit in rng.integers(0, 8 * len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}: ") as error:
            READERS[name](path)
        assert "delete the file" in str(error.value), bit


@pytest.mark.parametrize("read", [artifacts.read_weights, artifacts.read_torch])
@pytest.mark.parametrize("word", [b'"slpd"', b"xxh3-128:"])
def test_no_flipped_bit_turns_the_check_of_weights_off(tmp_path, read, word):
    write_one_of_each(tmp_path)
    path = tmp_path / "w.safetensors"
    whole = path.read_bytes()
    read(path)
    for bit in range(8 * whole.index(word), 8 * (whole.index(word) + len(word))):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w\.safetensors: "):
            read(path)


def test_weights_of_an_earlier_version_serve_where_those_from_elsewhere_do(tmp_path):
    """They have metadata and no checksum, and nobody is told to delete what took weeks to train."""
    path, tensor = tmp_path / "encoder.safetensors", np.ones(3, np.float32)
    path.write_bytes(save_tensors({"x": tensor}, {"slpd": json.dumps({"stage": "pretrain"})}))
    np.testing.assert_array_equal(artifacts.read_torch(path)["x"].numpy(), tensor)
    with pytest.raises(ValueError, match="of an earlier version"):
        artifacts.read_weights(path)


def test_arrays_that_overlap_are_a_broken_file(tmp_path):
    write_one_of_each(tmp_path)
    path = tmp_path / "k.h5"
    with h5py.File(path) as file:
        tokens, color = (file[name].id.get_offset().to_bytes(8, "little") for name in ("tokens", "mean_color"))
    first, second = min(tokens, color), max(tokens, color)
    path.write_bytes(path.read_bytes().replace(second, (int.from_bytes(first, "little") + 1).to_bytes(8, "little")))
    with pytest.raises(ValueError, match=r"k\.h5: .*overlap.*delete the file"):
        artifacts.read_tokens(path)


def test_a_slice_of_tokens_is_checked_by_itself(tmp_path):
    import h5py

    write_one_of_each(tmp_path)
    path = tmp_path / "k.h5"
    with h5py.File(path) as file:
        last = file["tokens"].id.get_offset() + file["tokens"].nbytes - 1
    content = bytearray(path.read_bytes())
    content[last] ^= 64
    path.write_bytes(content)
    with artifacts.open_tokens(path) as (tokens, _):
        assert np.isfinite(tokens.tokens[0]).all()
        assert tokens.mean_color[:].shape == (2, 16, 3)
        for rows in (1, slice(1, 2), slice(None), ()):
            with pytest.raises(ValueError, match=r"k\.h5: damaged, tokens 1 does not match its checksum"):
                tokens.tokens[rows]
    with pytest.raises(ValueError, match=r"k\.h5: damaged, tokens 1 does not match its checksum"):
        artifacts.copy_tokens(path, tmp_path / "copy.h5", REGIONS, META["fingerprint"])
    assert not (tmp_path / "copy.h5").exists()


@pytest.mark.parametrize("name", READERS)
def test_artifacts_that_changed_places_are_named(tmp_path, name):
    one, other, elsewhere = (
        tmp_path / folder for folder in ("results/cohort/stage/one", "results/cohort/stage/other", "mine/stage/one")
    )
    for folder in (one, other):
        folder.mkdir(parents=True)
        write_one_of_each(folder)
    shutil.copytree(one, elsewhere)
    READERS[name](one / name)
    READERS[name](elsewhere / name)  # a copy outside of results may have any name
    (other / name).replace(one / name)
    with pytest.raises(ValueError, match=rf"one/{name}: was written as stage/other/{name}, .*delete the file"):
        READERS[name](one / name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("results/tiny/tokens/a.h5", "tokens/a.h5"),
        ("/data/results/x/results/tiny/compared/uni/tokens/a.h5", "compared/uni/tokens/a.h5"),
        ("results/tiny/pretrain/results/encoder.safetensors", "pretrain/results/encoder.safetensors"),
        ("/cache/a.h5", ""),
        ("results/cache/a.h5", ""),
    ],
)
def test_the_name_of_an_artifact_is_its_path_within_its_cohorts_results(path, name):
    assert find_name(path) == name


@pytest.mark.parametrize("name", [name for name in READERS if name != "p.h5"])
def test_a_share_that_goes_away_is_no_broken_artifact(tmp_path, monkeypatch, name):
    write_one_of_each(tmp_path)
    path, naming, calls = tmp_path / name, NamedFile._naming, []

    @contextmanager
    def fail_at_last(self):
        with naming(self):
            calls.append(failure)
            if len(calls) == fails_at:
                raise OSError(failure, os.strerror(failure))
            yield

    fails_at, failure = 0, 0
    monkeypatch.setattr(NamedFile, "_naming", fail_at_last)
    READERS[name](path)
    for fails_at in range(1, len(calls) + 1):  # the first opens it
        failure = [errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ETIMEDOUT][fails_at % 4]
        calls.clear()
        with pytest.raises(OSError, match="the file itself may be whole") as error:
            READERS[name](path)
        assert (error.value.errno, error.value.filename) == (failure, str(path))


@pytest.mark.parametrize("name", READERS)
def test_an_artifact_that_cannot_be_opened_is_not_called_broken(tmp_path, monkeypatch, name):
    write_one_of_each(tmp_path)
    READERS[name](tmp_path / name)  # whatever is imported
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"Too many open files.*may be whole.*{name}"):
            READERS[name](tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_artifact_is_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        READERS[name](tmp_path / name)


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    write_one_of_each(tmp_path)
    with pytest.raises(ValueError, match=r"without \['mean_color', 'mean_color_xxh3', 'tokens'"):
        artifacts.read_tokens(tmp_path / "r.h5")
    with pytest.raises(ValueError, match="embed table without"):
        artifacts.read_table(tmp_path / "t.parquet", "embed")


def test_replacing_keeps_the_old_file_until_the_new_is_whole(tmp_path):
    path = tmp_path / "f.txt"
    artifacts.write_text(path, "old")

    def work():
        with artifacts.atomic_write(path) as part:
            part.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        work()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_one_file_do_not_meet(tmp_path):
    """Not even where their process ids are equal, as those of two containers are."""
    path = tmp_path / "f.txt"
    with artifacts.atomic_write(path) as one:
        one.write_text("one")
        with artifacts.atomic_write(path) as two:
            two.write_text("two")
            assert one.read_text() == "one"
        assert path.read_text() == "two"
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("machine", "running", "days", "stays"),
    [
        ("", False, 0, False),
        ("", True, 9, True),
        ("elsewhere", False, 0, True),
        ("elsewhere", False, 2, False),
    ],
)
def test_what_a_killed_process_left_is_removed_and_what_others_write_is_not(tmp_path, machine, running, days, stays):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = os.getpid() if running else int(ended.stdout)
    left = tmp_path / f".f.txt.{machine or files._machine()}.{number}.0a.part"
    left.write_text("half")
    date = time.time() - days * 86_400 - 1
    os.utime(left, (date, date))
    artifacts.write_text(tmp_path / "f.txt", "whole")
    assert left.exists() == stays


@given(st.lists(st.text()), st.lists(st.text()))
def test_fingerprints_differ_when_their_parts_do(a, b):
    assert (artifacts.fingerprint(*a) == artifacts.fingerprint(*b)) == (a == b)


@pytest.mark.parametrize("size", [0, 1, 65_536, 70_000, 20_000_000])
def test_the_fingerprint_of_a_file_sees_its_ends_and_its_size(tmp_path, size):
    path = tmp_path / "f"
    content = bytearray(size)
    seen = set()
    for edit in (None, 0, size - 1, "longer"):
        changed = bytearray(content)
        if edit == "longer":
            changed += b"\0"
        elif edit is not None and size:
            changed[edit] = 1
        path.write_bytes(changed)
        seen.add(artifacts.file_fingerprint(path))
    assert len(seen) == {0: 2, 1: 3}.get(size, 4)


def test_provenance_depends_on_all_it_names():
    base = ("stage", 1, {"key": 1.5}, "input")
    changed = [("other", *base[1:]), ("stage", 2, *base[2:]), (*base[:2], {"key": 2}, "input"), (*base[:3], "else")]
    assert len({artifacts.provenance(*arguments)["fingerprint"] for arguments in [base, *changed]}) == 5
