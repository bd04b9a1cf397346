"""Focus: blurred regions score below sharp ones, and are dropped where asked to."""

from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely import box

from slpd_core import artifacts
from slpd_core.drawing import overlays
from slpd_core.slides import focus, regions
from slpd_core.wsi import identity, outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.writer import write_slide

SIDE = 512
SIZE = (2 * SIDE, 2 * SIDE)  # of the planted slide: four regions


def draw_tissue(rng: np.random.Generator, spot_px: int, contrast: float, side: int = SIDE) -> np.ndarray:
    """Nuclei of some size on pink, uint8 (side, side, 3)."""
    n = side // spot_px + 1
    spots = np.kron(rng.random((n, n)) < 0.3, np.ones((spot_px, spot_px)))[:side, :side, None]
    pink, violet = np.array([225.0, 150, 190]), np.array([110.0, 60, 150])
    return (pink + contrast * spots * (violet - pink)).astype(np.uint8)


def blur(pixels: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def make_regions(n: int = 4, path=None, mpp: float = 0.5, side: int = SIDE) -> artifacts.Regions:
    content = identity.slide_fingerprint(path) if path else "f"
    info = artifacts.SlideInfo("s", artifacts.OK, "", *SIZE, mpp, "sheet", content)
    corners = np.array([(0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)], np.int64)[:n]
    return artifacts.Regions(info, corners, np.ones(n, np.float32), side, SIDE, 0.5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.2, 1.0), st.floats(1.0, 6.0))
def test_a_blurred_patch_scores_below_the_sharp_one_whatever_its_tissue(seed, spot_px, contrast, sigma):
    patch = draw_tissue(np.random.default_rng(seed), spot_px, contrast, side=256)
    assert focus.focus_score(blur(patch, sigma)) < focus.focus_score(patch)


def test_a_score_is_the_variance_of_the_laplacian():
    """By the definition: four neighbors less four times the pixel."""
    gray = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    padded = np.pad(gray.astype(float), 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]
    assert focus.focus_score(np.dstack([gray] * 3)) == pytest.approx(laplacian.var(), rel=1e-5)


def test_patches_are_those_with_most_tissue():
    """A corner of a region and half of another one: no patch on glass, none where there is a fuller one."""
    whole = replace(make_regions(2), size_px=2048, size_level0_px=2048, coords=np.array([[0, 0], [2048, 0]]))
    polygons = (box(0, 0, 512, 512), box(3072, 0, 4096, 2048))
    patches, counts = focus.choose_patches(whole, polygons)
    assert counts.tolist() == [4, focus.N_PATCHES]
    assert sorted(map(tuple, patches.coords[:4].tolist())) == [(0, 0), (0, 256), (256, 0), (256, 256)]
    assert (patches.coords[4:, 0] >= 3072).all()
    assert len({*map(tuple, patches.coords.tolist())}) == len(patches.coords)
    assert np.ptp(patches.coords[4:], axis=0).tolist() >= [256, 1024]  # all over it
    assert (patches.size_px, patches.size_level0_px) == (256, 256)


def test_patches_of_a_finer_slide_are_as_large_in_um():
    finer = replace(make_regions(1), size_level0_px=1013)  # for 512 px
    patches, _ = focus.choose_patches(finer, (box(0, 0, 1024, 1024),))
    assert sorted(map(tuple, patches.coords.tolist())) == [(0, 0), (0, 506), (506, 0), (506, 506)]
    assert patches.size_level0_px == 506


def test_a_region_without_tissue_is_not_measured_and_stays(planted):
    path = planted(SIZE, {(0, 0, SIDE, SIDE): (200, 120, 170)})
    tissue = artifacts.Tissue(make_regions(path=path).slide, (box(0, 0, SIDE, SIDE),))
    measured = focus.measure_focus(path, tissue, make_regions(2, path))
    assert np.isnan(measured.focus).tolist() == [False, True]
    kept, blurred = focus.drop_blurred(measured, 1e9)
    assert (kept.coords.tolist(), blurred.tolist()) == ([[SIDE, 0]], [[0, 0]])


@pytest.fixture
def half_blurred(tmp_path):
    """A slide of four regions, the left two out of focus; its path and tissue."""
    rng = np.random.default_rng(1)
    sharp = np.concatenate([draw_tissue(rng, 8, 1.0), draw_tissue(rng, 12, 1.0)])
    path = tmp_path / "s.tiff"
    write_slide(path, np.concatenate([blur(sharp), sharp], axis=1), 0.5)
    info = replace(make_regions(path=path).slide, fingerprint=identity.slide_fingerprint(path))
    return path, artifacts.Tissue(info, (box(0, 0, *SIZE),))


@pytest.fixture
def run(tmp_path, settings, half_blurred):
    """Run the stage regions on that slide; returns what it wrote."""

    def run(min_focus, slide_path=half_blurred[0], quarantine=(SlideError,), **options) -> artifacts.Regions:
        artifacts.write_tissue(tmp_path / "t.geojson", half_blurred[1], artifacts.provenance("tissue", 1, {}, "f"))
        artifacts.write_picture(tmp_path / "t.png", Image.new("RGB", (512, 512), "pink"))
        options = {"slide_path": slide_path, "quarantine": quarantine, "state_dir": tmp_path / "state"} | options
        regions.run(
            tissue_path=tmp_path / "t.geojson",
            outlined_path=tmp_path / "t.png",
            regions_path=tmp_path / "r.h5",
            overlay_path=tmp_path / "r.png",
            section=settings.regions.model_copy(update={"size_px": SIDE, "min_focus": min_focus}),
            **options,
        )
        return artifacts.read_regions(tmp_path / "r.h5")[0]

    return run


def test_the_sharp_half_is_kept_and_the_blurred_half_dropped_and_drawn_so(run, tmp_path):
    measured = run(0.0)
    assert len(measured.coords) == 4
    left = measured.coords[:, 0] == 0
    assert measured.focus.dtype == np.float32
    assert 10 * measured.focus[left].max() < measured.focus[~left].min()
    kept = run(50.0)
    assert kept.coords.tolist() == [[SIDE, 0], [SIDE, SIDE]]
    np.testing.assert_array_equal(kept.focus, measured.focus[~left])
    picture = np.asarray(Image.open(tmp_path / "r.png"))
    assert tuple(picture[100, 0]) == overlays.DROPPED_COLOR
    assert tuple(picture[100, 256]) == overlays.KEPT_COLOR


def test_a_slide_out_of_focus_says_so(run):
    kept = run(1e6)
    assert (kept.slide.status, len(kept.coords), len(kept.focus)) == (artifacts.OK, 0, 0)
    assert kept.slide.reason.startswith("no region in focus, the sharpest has ")
    assert kept.slide.reason.endswith("or lower regions.min_focus (1e+06)")


def test_without_min_focus_nothing_is_read_or_written_of_it(run, settings, tmp_path):
    kept = run(None, slide_path=tmp_path / "gone.tiff")
    assert (len(kept.coords), kept.focus) == (4, None)
    with h5py.File(tmp_path / "r.h5") as file:
        assert {*file} == {"coords", "tissue_fraction"}
        assert "min_focus" not in file.attrs["section"]
    recorded = {"size_px", "target_mpp", "min_tissue_fraction", "edge", "anchor"}
    assert {*settings.regions.selection.model_dump()} == recorded
    measuring = settings.regions.model_copy(update={"min_focus": 0.0}).selection
    assert {*measuring.model_dump()} == {*recorded, "min_focus"}


def test_a_threshold_that_drops_no_region_leaves_the_fingerprint(run, tmp_path):
    """Then tokens that are kept, or in the cache, are of these regions."""
    fingerprints, dropping = [], (50.0, 51.0)
    for min_focus in (None, 0.0, 1e-6, *dropping):
        kept = run(min_focus)
        assert (kept.focus is None, len(kept.coords)) == (min_focus is None, 2 if min_focus in dropping else 4)
        fingerprints.append(artifacts.read_regions(tmp_path / "r.h5")[1]["fingerprint"])
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]
    assert len({*fingerprints}) == 3


def test_a_slide_that_cannot_be_read_is_tried_again_and_then_quarantined(run, tmp_path):
    gone = tmp_path / "gone.tiff"
    with pytest.raises(OSError, match=r"gone\.tiff"):
        run(0.0, gone)
    lost = run(0.0, gone, (SlideError, OSError))
    assert (lost.slide.status, len(lost.coords)) == (artifacts.QUARANTINED, 0)
    assert lost.slide.reason.endswith("the next run tries it again")
    assert outages.count_failures(tmp_path / "state") == {"s": 1}
    assert len(run(0.0).coords) == 4


def test_a_slide_that_breaks_where_it_is_read_is_quarantined_or_stops_the_stage(run, half_blurred, monkeypatch):
    def read(self, *_):
        raise SlideError(f"{self.path}: broken data")

    monkeypatch.setattr(Slide, "read", read)
    lost = run(0.0)
    assert (lost.slide.status, lost.slide.reason) == (artifacts.QUARANTINED, f"{half_blurred[0]}: broken data")
    with pytest.raises(SlideError, match="broken data"):
        run(0.0, quarantine=())


def test_a_slide_that_another_one_replaced_is_not_read(run, half_blurred):
    write_slide(half_blurred[0], np.zeros((600, 600, 3), np.uint8), 0.5)
    with pytest.raises(ValueError, match="replaced since the tissue of s was found") as error:
        run(0.0)
    assert not isinstance(error.value, SlideError)


def test_focus_is_carried_to_the_file_and_to_chosen_regions(tmp_path):
    measured = replace(make_regions(), focus=np.array([1, np.nan, 3, 4], np.float32))
    artifacts.write_regions(tmp_path / "r.h5", measured, artifacts.provenance("regions", 1, {}))
    np.testing.assert_array_equal(artifacts.read_regions(tmp_path / "r.h5")[0].focus, measured.focus)
    assert len(focus.drop_blurred(measured, 3.0)[0].coords) == 3  # just as sharp as asked for, and one not measured
    few = measured.select(np.array([2, 0]))
    assert (few.coords[:, 1].tolist(), few.focus.tolist()) == ([SIDE, 0], [3, 1])
    assert make_regions().select(slice(1)).focus is None
    artifacts.write_regions(tmp_path / "r.h5", replace(measured, focus=measured.focus[:3]), {})
    with pytest.raises(ValueError, match=r"focus \(3,\) for 4 regions"):
        artifacts.read_regions(tmp_path / "r.h5")
