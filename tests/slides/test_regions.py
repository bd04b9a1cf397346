"""The grid of regions: exact, deterministic, and kept where there is tissue."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from PIL import Image
from shapely import Point, box

from slpd_core import artifacts
from slpd_core.drawing import overlays
from slpd_core.slides import regions
from slpd_core.wsi.errors import SlideError

SLIDE = artifacts.SlideInfo("s", artifacts.OK, "", 10_000, 9_000, 0.5, "vendor", "f")

L_SHAPE = box(58, 80, 89, 124).union(box(80, 58, 124, 89))


def test_no_tissue_no_regions():
    kept = regions.select_regions(artifacts.Tissue(SLIDE, ()))
    assert kept.coords.shape == (0, 2)
    assert kept.slide.status == artifacts.OK


@pytest.mark.parametrize(
    ("slide_mpp", "side"), [(0.5, 4096), (0.25, 8192), (0.499, 4096), (0.2525, 8110), (0.504, 4063)]
)
def test_a_region_spans_the_same_microns_on_every_slide(slide_mpp, side):
    slide = replace(SLIDE, width_px=20_000, height_px=20_000, mpp=slide_mpp)
    kept = regions.select_regions(artifacts.Tissue(slide, (box(0, 0, 20_000, 20_000),)))
    assert kept.size_level0_px == side
    assert set(np.diff(np.unique(kept.coords[:, 0]))) == {side}


@pytest.mark.parametrize(("edge", "count"), [("pad", 9), ("drop", 4)])
def test_regions_over_the_edge_are_padded_or_dropped(edge, count):
    kept = regions.select_regions(
        artifacts.Tissue(SLIDE, (box(0, 0, 10_000, 9_000),)), edge=edge, min_tissue_fraction=0.01
    )
    assert len(kept.coords) == count
    assert (kept.tissue_fraction >= 0.01).all()


def test_a_slide_smaller_than_a_region_is_padded_or_dropped():
    small = replace(SLIDE, width_px=3000, height_px=2500)
    tissue = artifacts.Tissue(small, (box(0, 0, 3000, 2500),))
    kept = regions.select_regions(tissue)
    assert kept.coords.tolist() == [[0, 0]]
    assert kept.tissue_fraction == pytest.approx([3000 * 2500 / 4096**2])
    assert len(regions.select_regions(tissue, edge="drop").coords) == 0


def test_too_little_tissue_is_dropped():
    tissue = artifacts.Tissue(SLIDE, (box(0, 0, 4096, 1200), box(4096, 0, 6000, 4096)))
    kept = regions.select_regions(tissue)
    np.testing.assert_array_equal(kept.coords, [[0, 0], [4096, 0]])
    np.testing.assert_array_equal(regions.select_regions(tissue, min_tissue_fraction=0.3).coords, [[4096, 0]])


@pytest.fixture
def run(tmp_path, settings):
    """Run the stage on a tissue artifact and read what it wrote."""

    def run(tissue, made_from="f"):
        meta = artifacts.provenance("tissue", 1, {}, made_from)
        artifacts.write_tissue(tmp_path / "t.geojson", tissue, meta)
        artifacts.write_picture(tmp_path / "t.png", Image.new("RGB", (500, 450), "pink"))
        regions.run(
            tissue_path=tmp_path / "t.geojson",
            outlined_path=tmp_path / "t.png",
            regions_path=tmp_path / "r.h5",
            overlay_path=tmp_path / "r.png",
            section=settings.regions,
            quarantine=(SlideError,),
        )
        return artifacts.read_regions(tmp_path / "r.h5")[0]

    return run


def test_a_slide_coarser_than_the_target_is_quarantined(run):
    kept = run(artifacts.Tissue(replace(SLIDE, mpp=1.0), (box(0, 0, 9000, 9000),)))
    assert kept.slide.status == artifacts.QUARANTINED
    assert "s: 1 um/px (vendor) is coarser than regions.target_mpp 0.5" in kept.slide.reason
    assert len(kept.coords) == 0


def test_a_quarantined_slide_stays_so(run):
    lost = artifacts.SlideInfo("s", artifacts.QUARANTINED, "torn")
    kept = run(artifacts.Tissue(lost, ()))
    assert (kept.slide.status, kept.slide.reason, len(kept.coords)) == (artifacts.QUARANTINED, "torn", 0)


def test_the_stage_writes_what_it_kept(run):
    kept = run(artifacts.Tissue(SLIDE, (box(0, 0, 4096, 9000),)))
    np.testing.assert_array_equal(kept.coords, [[0, 0], [0, 4096]])
    np.testing.assert_allclose(kept.tissue_fraction, [1, 1])


def test_regions_are_known_by_their_tissue(run, tmp_path):
    fingerprints = []
    for made_from in ("f", "f", "g"):
        run(artifacts.Tissue(SLIDE, ()), made_from)
        fingerprints.append(artifacts.read_regions(tmp_path / "r.h5")[1]["fingerprint"])
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_slide_without_regions_says_why(run):
    kept = run(artifacts.Tissue(SLIDE, (box(0, 0, 1000, 1700),)))
    assert (kept.slide.status, len(kept.coords)) == (artifacts.OK, 0)
    assert "the fullest has 10%; lower regions.min_tissue_fraction (25%)" in kept.slide.reason
    inked = replace(SLIDE, remarks=("100% is ink.",))
    assert re.fullmatch(
        r"no tissue found; .* if there is some\. 100% is ink\.", run(artifacts.Tissue(inked, ())).slide.reason
    )
    small = artifacts.Tissue(replace(SLIDE, width_px=3000, height_px=3000), (box(0, 0, 3000, 3000),))
    assert "set regions.edge to pad" in regions.select_regions(small, edge="drop").slide.reason


@pytest.mark.parametrize(("side", "kept"), [(2048, 1), (2047, 0)])
def test_a_square_with_just_enough_tissue_is_kept(side, kept):
    """A quarter, to the last px."""
    regions_of_slide = regions.select_regions(artifacts.Tissue(SLIDE, (box(0, 0, 2048, side),)))
    assert len(regions_of_slide.coords) == kept


def test_a_square_without_tissue_is_never_kept():
    kept = regions.select_regions(artifacts.Tissue(SLIDE, (box(4096, 0, 4200, 100),)), min_tissue_fraction=0.0)
    np.testing.assert_array_equal(kept.coords, [[4096, 0]])


def test_a_slide_a_little_coarser_than_the_target_is_enlarged_and_no_more():
    tissue = artifacts.Tissue(replace(SLIDE, mpp=0.509), (box(0, 0, 9000, 9000),))
    assert len(regions.select_regions(tissue).coords)
    with pytest.raises(SlideError, match=r"0\.512 um/px .* is coarser than regions\.target_mpp 0\.5"):
        regions.select_regions(replace(tissue, slide=replace(SLIDE, mpp=0.512)))


def test_a_bad_slide_stops_the_stage_where_it_is_not_to_be_quarantined(tmp_path, settings):
    tissue = artifacts.Tissue(replace(SLIDE, mpp=1.0), (box(0, 0, 9000, 9000),))
    artifacts.write_tissue(tmp_path / "t.geojson", tissue, artifacts.provenance("tissue", 1, {}, "f"))
    artifacts.write_picture(tmp_path / "t.png", Image.new("RGB", (500, 450)))
    paths = {"tissue_path": tmp_path / "t.geojson", "outlined_path": tmp_path / "t.png"}
    paths |= {"regions_path": tmp_path / "r.h5", "overlay_path": tmp_path / "r.png"}
    with pytest.raises(SlideError, match="is coarser than"):
        regions.run(**paths, section=settings.regions, quarantine=())
    assert not (tmp_path / "r.h5").exists()


def test_of_two_anchors_that_keep_as_much_the_one_further_along_the_row_is_taken():
    """Tissue the same along both axes, which a shift along one of them keeps whole."""
    tissue = artifacts.Tissue(replace(SLIDE, width_px=200, height_px=200), (L_SHAPE,))
    assert regions.select_regions(tissue, anchor="tissue", size_px=64).coords.tolist() == [[24, 60], [88, 60]]


@pytest.mark.parametrize("axis", [0, 1])
def test_an_anchored_grid_moves_along_the_axis_where_it_keeps_more(axis):
    corners = [[4096 - 1100, 0], [4096 + 1100, 2200]]
    low, high = ([corner[axis], corner[1 - axis]] for corner in corners)
    kept = regions.select_regions(artifacts.Tissue(SLIDE, (box(*low, *high),)), anchor="tissue")
    assert len(kept.coords) == 1
    assert kept.coords[0, 1 - axis] == 0
    assert high[axis] - 4096 <= kept.coords[0, axis] <= low[axis]


def test_the_grid_can_be_anchored_where_it_keeps_most_tissue():
    """A biopsy across the corner of four cells: none holds a quarter, one of its own holds all."""
    tissue = artifacts.Tissue(SLIDE, (box(4096 - 1100, 4096 - 1100, 4096 + 1100, 4096 + 1100),))
    assert len(regions.select_regions(tissue).coords) == 0
    kept = regions.select_regions(tissue, anchor="tissue")
    assert kept.tissue_fraction.tolist() == pytest.approx([2200**2 / 4096**2])
    assert (kept.coords[0] <= 4096 - 1100).all()
    assert (kept.coords[0] + 4096 >= 4096 + 1100).all()


def test_an_anchored_grid_never_keeps_less():
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y, radius = rng.uniform(1000, 8000, 3)
        tissue = artifacts.Tissue(SLIDE, (Point(x, y).buffer(radius).intersection(box(0, 0, 10_000, 9_000)),))
        held = [regions.select_regions(tissue, anchor=anchor).tissue_fraction.sum() for anchor in ("slide", "tissue")]
        assert held[1] >= held[0]


def test_the_picture_shows_kept_and_dropped_squares(run, tmp_path):
    """At a twentieth: a kept square's border, a dropped one's, and white where a square hangs over the edge."""
    run(artifacts.Tissue(SLIDE, (box(0, 0, 4096, 4096), box(4096, 0, 5000, 2000), box(9000, 7000, 10_000, 9_000))))
    picture = np.asarray(Image.open(tmp_path / "r.png"))
    assert tuple(picture[100, 0]) == overlays.KEPT_COLOR
    assert tuple(picture[100, 2 * 4096 // 20]) == overlays.DROPPED_COLOR
    assert tuple(picture[300, 0]) == (255, 192, 203)  # no tissue: not drawn
    assert picture.shape[1] > 600
    assert tuple(picture[30, 590]) == (255, 255, 255)


def test_the_picture_of_a_quarantined_slide_says_why(run, tmp_path):
    run(artifacts.Tissue(replace(SLIDE, mpp=1.0), (box(0, 0, 9000, 9000),)))
    assert Image.open(tmp_path / "r.png").width == 640
    run(artifacts.Tissue(artifacts.SlideInfo("s", artifacts.QUARANTINED, "torn"), ()))
    assert Image.open(tmp_path / "r.png").size == (500, 450)


@pytest.fixture
def coordinates(tmp_path):
    """Write TRIDENT's coordinates of a slide."""

    def write(corners, side=4096):
        with h5py.File(tmp_path / "s_patches.h5", "w") as file:
            file["coords"] = np.array(corners, np.int64).reshape(-1, 2)
            file["coords"].attrs["patch_size_level0"] = side
        return tmp_path / "s_patches.h5"

    return write


WHOLE = artifacts.Tissue(SLIDE, (box(0, 0, 5000, 9000),))


def test_coordinates_of_another_tool_are_taken_as_they_are(coordinates):
    corners = [[5000, 17], [3, 0], [904, 4096], [-96, 8999]]
    kept = regions.import_regions(WHOLE, coordinates(corners), size_px=4096, target_mpp=0.5)
    assert kept.coords.tolist() == corners
    np.testing.assert_allclose(kept.tissue_fraction, [0, 1, 1, 4000 / 4096**2])
    assert (kept.size_px, kept.size_level0_px, kept.target_mpp, kept.slide) == (4096, 4096, 0.5, SLIDE)


@pytest.mark.parametrize(
    ("corners", "side", "message"),
    [
        (
            [[0, 0]],
            2048,
            r"s: .*s_patches\.h5 lists squares of 2048 level-0 px \(1024 um\), but a region has 4096 \(2048",
        ),
        ([[0, 0], [10_000, 0]], 4096, r"s: .* lists a square at \(10000, 0\), beyond the slide's 10000 x 9000"),
        ([[0, -4096]], 4096, r"\(0, -4096\), beyond"),
    ],
)
def test_coordinates_of_another_slide_are_refused_by_name(coordinates, corners, side, message):
    with pytest.raises(ValueError, match=message) as error:
        regions.import_regions(WHOLE, coordinates(corners, side), size_px=4096, target_mpp=0.5)
    assert not isinstance(error.value, SlideError)


def test_no_coordinates_is_a_bad_slide_and_none_in_them_is_a_slide_without_regions(coordinates):
    with pytest.raises(SlideError, match=r"^s: no file of coordinates in regions\.coordinates"):
        regions.import_regions(WHOLE, None, size_px=4096, target_mpp=0.5)
    kept = regions.import_regions(WHOLE, coordinates([]), size_px=4096, target_mpp=0.5)
    assert (len(kept.coords), kept.slide.reason) == (0, "s_patches.h5 lists no regions")
    bad = replace(WHOLE, slide=replace(SLIDE, status=artifacts.QUARANTINED, reason="torn"))
    assert regions.import_regions(bad, None, size_px=4096, target_mpp=0.5).slide.reason == "torn"
