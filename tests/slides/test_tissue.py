"""Tissue is found where it was planted, as polygons QuPath opens."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from shapely import Polygon, box, contains_xy, union_all

from slpd_core import artifacts
from slpd_core.slides import segmentation, tissue
from slpd_core.wsi import errors, identity
from slpd_core.wsi.reader import Slide

REAL = Path(__file__).parents[3] / "shared"
PINK, GREY, BLACK = (200, 120, 170), (120, 120, 124), (8, 8, 8)


def iou(polygons, truth):
    found = union_all(polygons)
    return found.intersection(truth).area / found.union(truth).area


@hypothesis_settings(max_examples=60)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_polygons_hold_just_the_pixels_of_the_mask(mask):
    polygons = tissue.mask_polygons(mask, (8.0, 4.0))
    assert all(polygon.is_valid and polygon.area > 0 for polygon in polygons)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = contains_xy(union_all(polygons), x * 8, y * 4) if polygons else np.zeros_like(mask)
    np.testing.assert_array_equal(inside, mask)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(union_all(polygons).area)


def test_a_hole_is_a_hole_and_an_island_in_it_an_island():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    mask[10:30, 10:30] = False
    mask[15:25, 15:25] = True
    polygons = tissue.mask_polygons(mask, (1.0, 1.0))
    assert sorted(len(polygon.interiors) for polygon in polygons) == [0, 1]
    assert sum(polygon.area for polygon in polygons) == pytest.approx(mask.sum(), rel=0.02)


def test_planted_tissue_is_found(planted, settings, tmp_path):
    rectangles = {
        (500, 700, 2500, 1500): PINK,
        (4000, 400, 800, 2800): (150, 90, 180),
        (1200, 1100, 700, 700): (244,) * 3,
    }
    path = planted((6000, 4000), rectangles)
    tissue.run(
        slide_id="s",
        slide_path=path,
        mpp=None,
        geojson_path=tmp_path / "s.geojson",
        overlay_path=tmp_path / "s.png",
        section=settings.tissue.segmentation,
        quarantine=(),
    )
    found, meta = artifacts.read_tissue(tmp_path / "s.geojson")
    truth = box(500, 700, 3000, 2200).difference(box(1200, 1100, 1900, 1800)).union(box(4000, 400, 4800, 3200))
    assert iou(found.polygons, truth) > 0.93
    assert found.slide == artifacts.SlideInfo(
        "s", "ok", "", 6000, 4000, 0.5, "tiff resolution", identity.slide_fingerprint(path)
    )
    assert meta["stage"] == "tissue"
    assert Image.open(tmp_path / "s.png").size == (375, 250)
    collection = json.loads((tmp_path / "s.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    assert {feature["type"] for feature in collection["features"]} == {"Feature"}
    assert collection["features"][0]["properties"]["objectType"] == "annotation"
    assert [feature["properties"]["tissue_id"] for feature in collection["features"]] == [0, 1]


@pytest.mark.parametrize("noise", [0, 6], ids=["clean", "noisy"])
def test_glass_is_not_tissue(noise):
    rng = np.random.default_rng(0)
    pixels = (244 - rng.integers(0, noise + 1, (300, 400, 3))).astype(np.uint8)
    assert not segmentation.find_tissue(pixels, 8.0)[0].any()


def test_grey_dust_and_black_edges_are_not_tissue():
    pixels = np.full((300, 400, 3), 244, np.uint8)
    pixels[100:200, 100:200] = PINK
    pixels[:, :20] = BLACK
    pixels[220:280, 300:360] = GREY
    mask = segmentation.find_tissue(pixels, 8.0)[0]
    truth = np.zeros_like(mask)
    truth[100:200, 100:200] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


@pytest.mark.parametrize("ink", [(30, 60, 200), (20, 140, 70), (60, 170, 190)], ids=["blue", "green", "cyan"])
def test_pen_marks_are_not_tissue(ink):
    pixels = np.full((300, 400, 3), 244, np.uint8)
    pixels[100:200, 100:200] = PINK
    pixels[40:52, 30:380] = pixels[60:250, 300:312] = ink
    mask = segmentation.find_tissue(pixels, 8.0)[0]
    truth = np.zeros_like(mask)
    truth[100:200, 100:200] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


@pytest.mark.parametrize("stain", [PINK, (120, 90, 190), (230, 170, 190), (90, 70, 160)])
def test_haematoxylin_and_eosin_are_no_ink(stain):
    pixels = np.full((300, 400, 3), 244, np.uint8)
    pixels[100:200, 100:200] = stain
    assert segmentation.find_tissue(pixels, 8.0)[0][102:198, 102:198].all()


def test_the_edge_of_a_coverslip_is_not_tissue():
    pixels = np.full((300, 400, 3), 244, np.uint8)
    pixels[:, 30:32] = (205, 190, 160)
    for row in range(300):
        pixels[row, 300 + row // 10 : 302 + row // 10] = (150, 170, 200)
    pixels[100:200, 100:200] = PINK
    mask = segmentation.find_tissue(pixels, 8.0)[0]
    assert mask[102:198, 102:198].all()
    assert not mask[:, :90].any()
    assert not mask[:, 210:].any()


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """A folder of 22 slides composed of real H&E tiles, with the tissue that is known of each."""
    tool = REAL / "tools" / "lung_cohort.py"
    if not tool.exists():
        pytest.skip("no tool that composes slides of real tiles beside the checkout")
    folder = tmp_path_factory.mktemp("composed")
    subprocess.run([sys.executable, tool, "--out", folder, "--patients", "8", "--cells", "20"], check=True)
    return folder


@pytest.mark.long
def test_known_tissue_of_composed_slides_is_found(composed):
    """masks/: one px a cell of 256 px, 0 for glass."""
    paths = sorted((composed / "slides").glob("*.tiff"))
    assert len(paths) >= 20
    for path in paths:
        rows, columns = np.nonzero(np.asarray(Image.open(composed / "masks" / f"{path.stem}.png")))
        truth = union_all(box(columns * 256, rows * 256, columns * 256 + 256, rows * 256 + 256))
        found, _ = tissue.segment_file(path.stem, path, 0.5)
        assert iou(found.polygons, truth) > 0.95, path.stem


def test_what_is_to_know_of_a_slide_is_kept_and_named(planted, settings, tmp_path, caplog):
    """Here that the sheet says other um/px than the slide; the setting by which it is read is kept too."""
    section = settings.tissue.segmentation.model_copy(update={"missing_tiles": "white"})
    paths = {"geojson_path": tmp_path / "s.geojson", "overlay_path": tmp_path / "s.png"}
    tissue.run(slide_id="s", slide_path=planted((600, 400), {}), mpp=0.25, section=section, quarantine=(), **paths)
    slide = artifacts.read_tissue(tmp_path / "s.geojson")[0].slide
    assert slide.remarks == (
        "The sheet says 0.25 um/px, the slide itself 0.5 (tiff resolution); the sheet's are used.",
    )
    assert f"s: {slide.remarks[0]}" in caplog.text
    assert slide.missing_tiles == "white"


def test_specks_go_and_pinholes_close():
    pixels = np.full((400, 400, 3), 244, np.uint8)
    pixels[100:300, 100:300] = PINK
    pixels[200:210, 200:210] = 244
    pixels[20:35, 20:35] = PINK
    mask = segmentation.find_tissue(pixels, 8.0)[0]
    assert mask[100:300, 100:300].mean() > 0.99
    assert not mask[:60, :60].any()


def test_pieces_and_holes_of_just_the_least_area_go_and_larger_ones_stay():
    least = {"smoothing_um": 0.0, "closing_um": 0.0, "min_island_um2": 36.0, "min_hole_um2": 36.0}  # 9 px of 2 um
    mask = np.zeros((40, 40), bool)
    mask[20:40, 20:40] = mask[2:5, 2:5] = mask[2:4, 10:15] = True
    mask[25:28, 25:28] = mask[32:34, 32:37] = False
    cleaned = mask.copy()
    cleaned[2:5, 2:5], cleaned[25:28, 25:28] = False, True
    np.testing.assert_array_equal(segmentation.clean_mask(mask, 2.0, **least), cleaned)


def test_a_slide_coarser_than_the_thumbnail_is_measured_at_its_own_um_per_px(planted):
    """Its 60 x 60 px are 57,600 um2 at 4 um/px: larger than the least island."""
    path = planted((300, 200), {(100, 50, 60, 60): PINK})
    with Slide(path, 4.0) as slide:
        found, _ = tissue.segment_slide("s", slide, thumbnail_mpp=2.0)
    assert [polygon.bounds for polygon in found.polygons] == [(100, 50, 160, 110)]


def test_glass_cut_off_by_the_border_is_no_hole():
    assert not segmentation.find_tissue(np.full((20, 20, 3), 244, np.uint8), 8.0)[0].any()
    pixels = np.full((200, 200, 3), PINK, np.uint8)
    pixels[:12, :12] = pixels[100:110, :8] = pixels[100:110, 100:110] = 244
    mask = segmentation.find_tissue(pixels, 8.0)[0]
    assert not mask[:8, :8].any()
    assert mask[100:110, 100:110].all()


def test_what_goes_into_tissue_is_in_its_fingerprint(planted, settings, tmp_path):
    """The slide, its um/px, its outline and how that is read."""
    path = planted((640, 480), {(100, 100, 300, 200): PINK})
    (tmp_path / "other.tiff").write_bytes(path.read_bytes() + b"0")
    (tmp_path / "a.geojson").write_text("[]")
    (tmp_path / "b.geojson").write_text("[] ")
    outline = settings.tissue.outline
    from_bounds = outline.model_copy(update={"mask_origin": "bounds"})
    ways = [
        {},
        {"slide_path": tmp_path / "other.tiff"},
        {"mpp": 0.25},
        {"mask_path": tmp_path / "a.geojson", "outline": outline},
        {"mask_path": tmp_path / "b.geojson", "outline": outline},
        {"mask_path": tmp_path / "b.geojson", "outline": from_bounds},
    ]
    names = {"slide_id": "s", "slide_path": path, "geojson_path": tmp_path / "t.geojson"}
    names |= {"overlay_path": tmp_path / "t.png", "section": settings.tissue.segmentation, "quarantine": ()}
    fingerprints = set()
    for way in ways:
        tissue.run(**(names | {"mpp": None} | way))
        fingerprints.add(artifacts.read_tissue(tmp_path / "t.geojson")[1]["fingerprint"])
    assert len(fingerprints) == len(ways)


def test_what_quarantines():
    assert errors.quarantine_errors("stop", last_attempt=True) == ()
    assert errors.quarantine_errors("quarantine", last_attempt=False) == (errors.SlideError,)
    assert OSError in errors.quarantine_errors("quarantine", last_attempt=True)


def test_a_slide_that_cannot_be_read_is_quarantined_with_a_picture(tmp_path, settings):
    (tmp_path / "s.svs").write_text("no slide")
    paths = {"geojson_path": tmp_path / "s.geojson", "overlay_path": tmp_path / "s.png"}
    arguments = {
        "slide_id": "s",
        "slide_path": tmp_path / "s.svs",
        "mpp": None,
        "section": settings.tissue.segmentation,
    } | paths
    with pytest.raises(errors.SlideError):
        tissue.run(**arguments, quarantine=())
    assert not list(tmp_path.glob("s.[gp]*"))
    tissue.run(**arguments, quarantine=(errors.SlideError,))
    found, _ = artifacts.read_tissue(tmp_path / "s.geojson")
    assert found.polygons == ()
    assert found.slide.status == artifacts.QUARANTINED
    assert "not a whole slide" in found.slide.reason
    assert Image.open(tmp_path / "s.png").size[0] > 100


@pytest.mark.parametrize(
    ("name", "mpp", "share"), [("cmu-1-small-region.svs", None, 0.37), ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.65)]
)
def test_tissue_of_real_slides(real, name, mpp, share):
    found, picture = tissue.segment_file("s", real(name), mpp)
    area = sum(polygon.area for polygon in found.polygons) / (found.slide.width_px * found.slide.height_px)
    assert area == pytest.approx(share, abs=0.05)
    assert all(isinstance(polygon, Polygon) and polygon.is_valid for polygon in found.polygons)
    assert picture.size[0] > 100
