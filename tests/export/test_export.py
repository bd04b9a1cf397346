"""What a tool reads in an export is what the artifacts hold: corners, order, dtypes and values."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slpd_core import artifacts, config
from slpd_core.export import export
from tests.export.conftest import DIM, GRID, LEVEL0, MPP, SIDE, STATUS
from tests.export.readers import (
    read_clam,
    read_hs2p,
    read_stamp,
    read_torchmil,
    read_trident_coords,
    read_trident_features,
    trident_read_size,
)

SLIDES = [slide for slide in STATUS if slide in ("a", "b-1")]
ALL = [*export.WRITERS]


@pytest.fixture
def sets(planted):
    """Per slide: name of the features, kind, vectors and corners that every format has to hold."""
    return {
        slide: [
            ("slpd", "regions", planted.embeddings["slpd"][slide], planted.regions[slide].coords),
            ("patch_tokens", "patches", planted.tokens[slide].reshape(-1, DIM), planted.patch_corners(slide)),
        ]
        for slide in SLIDES
    }


def test_trident_finds_corners_and_features_and_reads_as_many_px_as_they_mean(exported, sets, planted):
    job = exported("trident") / "trident"
    for slide, of_slide in sets.items():
        for name, kind, vectors, corners in of_slide:
            px = SIDE if kind == "regions" else SIDE // GRID
            coords = read_trident_coords(job, f"/x/{slide} scan.ome.tif", 20, px)
            features = read_trident_features(job, f"/x/{slide} scan.ome.tif", 20, px, name)
            np.testing.assert_array_equal(coords.corners, corners)
            np.testing.assert_array_equal(features.corners, corners)
            np.testing.assert_array_equal(features.vectors, vectors.astype(np.float32))
            assert (coords.corners.dtype, features.vectors.dtype) == (np.int64, np.float32)
            assert features.about["encoder"] == name
            level0 = LEVEL0 if kind == "regions" else round(LEVEL0 / GRID)
            for about in (coords.about, features.about):
                assert (about["patch_size"], about["patch_size_level0"]) == (px, level0)
                assert trident_read_size(about) == level0
                assert (about["overlap"], about["name"]) == (0, slide)
                assert (about["level0_width"], about["level0_height"]) == (9000, 8000)
                assert {"level0_magnification", "target_magnification", "savetodir"} <= about.keys()
        contours = json.loads((job / "contours_geojson" / f"{slide} scan.ome.geojson").read_text())
        assert [one["properties"]["tissue_id"] for one in contours["features"]] == [*range(len(contours["features"]))]
        assert contours["features"][0]["geometry"]["type"] == "Polygon"
        assert len(contours["features"]) == len(planted.regions[slide].coords)


def test_trident_has_corners_of_patches_before_there_are_tokens(exported, planted):
    job = exported("trident", what=["patches"], features=False) / "trident"
    for slide in SLIDES:
        bag = read_trident_coords(job, f"{slide} scan.ome.tif", 20, SIDE // GRID)
        np.testing.assert_array_equal(bag.corners, planted.patch_corners(slide))
    assert [path.name for path in job.iterdir() if "overlap" in path.name] == [f"20x_{SIDE // GRID}px_0px_overlap"]
    assert not [*job.glob("*/features*")]
    record = artifacts.read_json(job.parent / "slides" / "a.json")
    assert record["reason"] == "corners of patches alone: there are no features yet"


def test_features_that_are_gone_do_not_stay_behind(exported):
    job = exported("trident") / "trident"
    assert [*job.glob("*/features*/*.h5")]
    exported("trident", features=False)
    assert not [*job.glob("20x_64px*/features*/*.h5")]


def test_clam_reads_tensors_and_coordinates(exported, sets):
    folder = exported("clam") / "clam"
    for slide, of_slide in sets.items():
        for name, _, vectors, corners in of_slide:
            bag = read_clam(folder / name, slide)
            np.testing.assert_array_equal(bag.vectors, vectors.astype(np.float32))
            np.testing.assert_array_equal(bag.corners, corners)
            assert (bag.vectors.dtype, bag.corners.dtype) == (np.float32, np.int32)


def test_stamp_reads_um(exported, sets):
    folder = exported("stamp") / "stamp"
    for slide, of_slide in sets.items():
        for name, kind, vectors, corners in of_slide:
            bag = read_stamp(folder / name / f"{slide}.h5")
            np.testing.assert_array_equal(bag.vectors, vectors.astype(np.float16))
            np.testing.assert_array_equal(bag.corners, (corners * MPP).astype(np.float32))
            assert (bag.vectors.dtype, bag.corners.dtype) == (np.float16, np.float32)
            side = LEVEL0 if kind == "regions" else round(LEVEL0 / GRID)
            assert bag.about["tile_size_um"] == side * MPP
            assert bag.about["tile_size_px"] == (SIDE if kind == "regions" else SIDE // GRID)
            assert (bag.about["extractor"], bag.about["feat_type"]) == (name, "tile")
            assert re.fullmatch(r"\d+\.\d+\.\d+", bag.about["stamp_version"])


def test_slide2vec_has_tokens_of_rank_3_and_embeddings_of_rank_2_bit_for_bit(exported, planted):
    folder = exported("slide2vec", runs=("slpd", "dino.fold1")) / "slide2vec"
    for slide in SLIDES:
        tokens = torch.load(folder / "patch_tokens" / f"{slide}.pt", weights_only=True)
        assert tokens.dtype == torch.float16
        np.testing.assert_array_equal(tokens.numpy(), planted.tokens[slide])
        for run in ("slpd", "dino.fold1"):
            embeddings = torch.load(folder / run / f"{slide}.pt", weights_only=True)
            np.testing.assert_array_equal(embeddings.numpy(), planted.embeddings[run][slide])


def test_hs2p_has_corners_by_x_and_then_y(exported, sets, planted):
    folder = exported("hs2p", features=False) / "hs2p"
    for slide, of_slide in sets.items():
        for _, kind, _, corners in of_slide:
            bag = read_hs2p(folder / kind, slide)
            assert bag.corners.tolist() == sorted(corners.tolist())
            tiling = bag.about["tiling"]
            assert tiling["tile_size_lv0"] == tiling["read_tile_size_px"] == tiling["step_px_lv0"]
            assert bag.about["provenance"]["image_path"] == f"slides/{slide} scan.ome.tif"
        regions = planted.regions[slide]
        by_region = dict(zip(map(tuple, regions.coords), regions.tissue_fraction, strict=True))
        bag = read_hs2p(folder / "regions", slide)
        assert [by_region[tuple(xy)] for xy in bag.corners] == bag.about["fractions"].tolist()
        of_patches = np.repeat(regions.tissue_fraction, GRID**2)  # a patch has its region's
        by_patch = dict(zip(map(tuple, planted.patch_corners(slide)), of_patches, strict=True))
        bag = read_hs2p(folder / "patches", slide)
        assert [by_patch[tuple(xy)] for xy in bag.corners] == bag.about["fractions"].tolist()


def test_torchmil_reads_folders_of_arrays(exported, sets):
    folder = exported("torchmil") / "torchmil"
    for slide, of_slide in sets.items():
        for name, _, vectors, corners in of_slide:
            bag = read_torchmil(folder / name, slide)
            np.testing.assert_array_equal(bag.vectors, vectors.astype(np.float32))
            np.testing.assert_array_equal(bag.corners, corners)
            assert bag.vectors.dtype == np.float32


@pytest.fixture
def compared(planted):
    """Tokens of a compared encoder that knows 2 x 2 patches; by slide, in their order. It fails on b-1 alone."""
    rng, tokens = np.random.default_rng(1), {}
    meta = artifacts.provenance("test", 1, {}) | dict.fromkeys(artifacts.ENCODER_META, "x") | {"precision": "fp32"}
    fails = {"status": "quarantined", "reason": "no file of features"}
    changes = {"b-1": fails, "torn": {"status": "ok", "reason": ""}}  # the cohort's own encoder fails on torn
    for slide, regions in planted.regions.items():
        of_slide = planted.regions["a"] if slide == "torn" else regions.select(np.arange(len(regions.coords)))
        of_slide = of_slide.select(np.arange(0)) if slide == "b-1" else of_slide
        of_slide = replace(of_slide, slide=replace(regions.slide, **changes.get(slide, {})))
        tokens[slide] = rng.normal(size=(len(of_slide.coords), 4, 7)).astype(np.float16)
        path = planted.root / "compared" / "plain" / "tokens" / f"{slide}.h5"
        with artifacts.create_tokens(path, of_slide, 2, 7, meta) as out:
            for i, row in enumerate(tokens[slide]):
                out.tokens[i] = row
    return tokens


def test_tokens_of_compared_encoders_are_bags_of_their_own(exported, compared, planted, sets):
    folder = exported("clam", "trident", "slide2vec", "hs2p")
    half = round(LEVEL0 / 2)
    corners = [
        (x + dx, y + dy) for x, y in planted.regions["a"].coords.tolist() for dy in (0, half) for dx in (0, half)
    ]
    bag = read_clam(folder / "clam" / "plain", "a")
    np.testing.assert_array_equal(bag.vectors, compared["a"].reshape(-1, 7).astype(np.float32))
    assert bag.corners.tolist() == [[*xy] for xy in corners]
    theirs = read_trident_features(folder / "trident", "a scan.ome.tif", 20, SIDE // 2, "plain")
    assert (theirs.corners.tolist(), theirs.about["patch_size"]) == ([[*xy] for xy in corners], SIDE // 2)
    tensor = torch.load(folder / "slide2vec" / "plain" / "a.pt", weights_only=True)
    np.testing.assert_array_equal(tensor.numpy(), compared["a"])
    for name, kind, vectors, own_corners in sets["a"]:  # those of the cohort's own are there as well
        np.testing.assert_array_equal(read_clam(folder / "clam" / name, "a").vectors, vectors.astype(np.float32))
        assert read_hs2p(folder / "hs2p" / kind, "a").corners.tolist() == sorted(own_corners.tolist())


def test_a_slide_that_one_encoder_cannot_encode_lacks_its_bag_alone(exported, compared):
    folder = exported("clam", "trident", "hs2p")
    of_slide = {path.relative_to(folder / "clam").as_posix() for path in (folder / "clam").rglob("b-1.*")}
    assert of_slide == {f"{name}/{kind}_files/b-1.{kind}" for name in ("slpd", "patch_tokens") for kind in ("pt", "h5")}
    record = artifacts.read_json(folder / "slides" / "b-1.json")
    assert (record["status"], record["reason"]) == ("ok", "nothing of plain: no file of features")
    assert not [*folder.rglob("torn.pt")]  # though this encoder has tokens of it
    assert artifacts.read_json(folder / "slides" / "torn.json")["reason"] == "torn in two"
    assert artifacts.read_json(folder / "slides" / "blank.json")["status"] == "empty"


def test_a_slide_without_regions_has_no_file_but_what_its_tool_expects(exported, caplog):
    folder = exported(*ALL)
    of_blank = {path.relative_to(folder).as_posix() for path in folder.rglob("*blank*")}
    assert of_blank == {
        "slides/blank.json",
        "hs2p/regions/blank.coordinates.meta.json",
        "hs2p/patches/blank.coordinates.meta.json",
    }
    assert read_hs2p(folder / "hs2p" / "regions", "blank").corners.shape == (0, 2)
    assert artifacts.read_json(folder / "slides" / "blank.json")["status"] == "empty"
    assert "empty: no regions, so it has no features" in caplog.text


def test_a_quarantined_slide_is_left_out_and_named_and_its_old_files_are_removed(exported, planted, tmp_path, caplog):
    old = tmp_path / "export" / "clam" / "patch_tokens" / "pt_files" / "torn.pt"
    old.parent.mkdir(parents=True)
    old.touch()
    folder = exported(*ALL)
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*torn*")] == ["slides/torn.json"]
    assert "quarantined: torn in two" in caplog.text
    record = artifacts.read_json(folder / "slides" / "torn.json")
    assert (record["status"], record["reason"]) == ("quarantined", "torn in two")
    assert set(record["files"]) == {*ALL}
    assert not any(record["files"].values())


def test_a_record_names_every_file_as_the_table_of_formats_does(exported):
    folder = exported(*ALL)
    recorded = set()
    for slide in STATUS:
        record = artifacts.read_json(folder / "slides" / f"{slide}.json")
        recorded |= {f"{name}/{file}" for name, files in record["files"].items() for file in files}
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith("slides/")} == recorded
    for name in ALL:
        fmt = config.EXPORT_FORMATS[name]
        patterns = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(f"{name}/{text}")) for text in fmt.files.values()]
        files = [file for file in recorded if file.startswith(f"{name}/")]
        assert all(any(re.fullmatch(pattern, file) for pattern in patterns) for file in files)
        assert all(any(re.fullmatch(pattern, file) for file in files) for pattern in patterns)


def test_the_page_has_the_table_of_formats():
    page = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (`.*`) \|$", page, re.MULTILINE)
    files = {
        name: ", ".join(f"`{text}`" for text in [*fmt.files.values(), *fmt.tables.values()])
        for name, fmt in config.EXPORT_FORMATS.items()
    }
    assert rows == [(name, fmt.readers, files[name]) for name, fmt in config.EXPORT_FORMATS.items()]
    assert {*export.WRITERS} == {name for name, fmt in config.EXPORT_FORMATS.items() if not fmt.per_run}


def test_two_exports_have_equal_bytes(exported, tmp_path):
    first = {path.relative_to(tmp_path / "export"): path for path in exported(*ALL).rglob("*") if path.is_file()}
    contents = {name: path.read_bytes() for name, path in first.items()}
    exported(*ALL)
    assert {name: path.read_bytes() for name, path in first.items()} == contents
    assert len(contents) > 40


@pytest.mark.parametrize("kind", ["embed", "tokens"])
def test_features_of_other_regions_are_refused_by_the_slides_name(exported, planted, kind):
    regions = planted.regions["a"]
    other = artifacts.Regions(regions.slide, regions.coords[:2] + 1, regions.tissue_fraction[:2], SIDE, LEVEL0, 0.5)
    path = planted.root / "regions" / "a.h5"
    artifacts.write_regions(path, other, artifacts.provenance("regions", 1, {}))
    what = ["regions"] if kind == "embed" else ["patches"]
    with pytest.raises(ValueError, match=rf"{kind}/.*: slide a has 3 regions here and 2 in its regions file"):
        exported("clam", what=what)


@pytest.mark.parametrize("kind", ["regions", "patches"])
def test_features_of_as_many_other_regions_are_refused(exported, planted, kind):
    moved = replace(planted.regions["a"], coords=planted.regions["a"].coords[::-1])
    artifacts.write_regions(planted.root / "regions" / "a.h5", moved, artifacts.provenance("regions", 1, {}))
    with pytest.raises(ValueError, match="slide a has 3 regions here and 3 in its regions file, or others"):
        exported("clam", what=[kind])


def test_a_slide_that_encoding_quarantined_is_left_out(exported, planted):
    facts = replace(planted.regions["a"].slide, status="quarantined", reason="a tile is broken")
    none = replace(planted.regions["a"].select(np.arange(0)), slide=facts)
    artifacts.write_regions(planted.root / "regions" / "a.h5", none, artifacts.provenance("regions", 1, {}))
    record = artifacts.read_json(exported("clam", what=["patches"]) / "slides" / "a.json")
    assert (record["status"], record["reason"], record["files"]) == ("quarantined", "a tile is broken", {"clam": []})


def test_a_file_is_whole_or_not_there(exported, planted, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no room")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no room"):
        exported("torchmil")
    folder = planted.root.parent / "export"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == []
