"""The patches sampled from a slide lie on its tissue, within its regions, and are its own pixels."""

import numpy as np
import pytest
import shapely

from slpd_core import artifacts, config
from slpd_core.slides import patches
from slpd_core.wsi import outages
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide

META = artifacts.provenance("regions", 1, {}, "f")
LEFT = shapely.box(0, 0, 256, 512)
REGION_PX, PATCH_PX = 512, 64


def info(mpp=0.5, status=artifacts.OK, name="s"):
    return artifacts.SlideInfo(name, status, "", 1024, 512, mpp, "sheet", "")


def regions(corners, mpp=0.5, name="s"):
    coords, side = np.array(corners, np.int64).reshape(-1, 2), round(REGION_PX * 0.5 / mpp)
    return artifacts.Regions(info(mpp, name=name), coords, np.ones(len(coords), np.float32), REGION_PX, side, 0.5)


@pytest.fixture
def slide(planted):
    """Tissue in the left half of the first region, its colour changing from place to place."""
    return planted(
        (1024, 512), {(x, y, 32, 32): (100 + x // 4, 60, y // 4) for x in range(0, 256, 32) for y in range(0, 512, 32)}
    )


@pytest.fixture
def sample(tmp_path):
    """Run the stage on regions at the given corners with tissue in LEFT; gives the patches and where they lie."""

    def sample(path, corners, n=20, seed=1, mpp=0.5, quarantine=(SlideError,), name="s", meta=META, state=None):
        artifacts.write_regions(tmp_path / "r.h5", regions(corners, mpp, name), meta)
        artifacts.write_tissue(tmp_path / "t.geojson", artifacts.Tissue(info(mpp, name=name), (LEFT,)), META)
        patches.run(
            slide_path=path,
            tissue_path=tmp_path / "t.geojson",
            regions_path=tmp_path / "r.h5",
            patches_path=tmp_path / "p.h5",
            section=config.PatchesConfig(patches_per_slide=n),
            patch_px=PATCH_PX,
            jpeg_scaled_decoding=True,
            seed=seed,
            quarantine=quarantine,
            state_dir=state,
        )
        found, _ = artifacts.read_patches(tmp_path / "p.h5")
        return found, artifacts.read_arrays(tmp_path / "p.h5", ("coords",))[0]["coords"]

    return sample


def test_patches_are_the_slides_own_pixels_with_tissue_at_their_centre(sample, slide):
    found, corners = sample(slide, [(0, 0), (512, 0)])
    assert found.shape == (20, PATCH_PX, PATCH_PX, 3)
    centres = corners + PATCH_PX / 2
    assert shapely.contains_xy(LEFT, centres).all()
    assert ((corners >= 0) & (corners + PATCH_PX <= 512)).all()
    assert (np.diff(corners[:, 1]) >= 0).all()
    with Slide(slide) as opened:
        for patch, corner in zip(found, corners.tolist(), strict=True):
            np.testing.assert_array_equal(patch, opened.read(corner, (PATCH_PX, PATCH_PX), 0.5))


def test_patches_are_spread_and_depend_on_the_seed_and_the_slide_alone(sample, slide):
    _, one = sample(slide, [(0, 0)], n=200)
    _, again = sample(slide, [(0, 0)], n=200)
    _, other = sample(slide, [(0, 0)], n=200, seed=2)
    _, elsewhere = sample(slide, [(0, 0)], n=200, name="another")
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != elsewhere).any()
    assert len(np.unique(one, axis=0)) > 190
    np.testing.assert_allclose(one.mean(0), [(256 - PATCH_PX / 2) / 2, (512 - PATCH_PX) / 2], atol=30)


def test_patches_are_known_by_their_regions_and_the_seed(sample, slide, tmp_path):
    fingerprints = []
    for changed in ({}, {}, {"seed": 2}, {"meta": artifacts.provenance("regions", 1, {}, "g")}):
        sample(slide, [(0, 0)], n=1, **changed)
        fingerprints.append(artifacts.read_patches(tmp_path / "p.h5")[1]["fingerprint"])
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_a_patch_of_a_finer_slide_covers_more_of_its_pixels(sample, planted):
    fine = planted((1024, 1024), {(0, 0, 256, 512): (120, 60, 90)}, mpp=0.25)
    found, corners = sample(fine, [(0, 0)], mpp=0.25)
    assert shapely.contains_xy(LEFT, corners + PATCH_PX).all()  # 64 px at 0.5 um/px are 128 px here
    with Slide(fine) as opened:
        np.testing.assert_array_equal(found[3], opened.read(corners[3].tolist(), (PATCH_PX, PATCH_PX), 0.5))


@pytest.mark.parametrize("corners", [[], [(512, 0)]], ids=["no region", "no tissue in it"])
def test_nothing_to_sample_gives_no_patches_and_the_slide_is_not_opened(sample, tmp_path, corners):
    found, coords = sample(tmp_path / "gone.tiff", corners)
    assert found.shape == (0, PATCH_PX, PATCH_PX, 3)
    assert len(coords) == 0


def test_a_broken_slide_has_no_patches_unless_it_is_to_stop_the_run(sample, slide):
    slide.write_bytes(slide.read_bytes()[:2000])
    found, coords = sample(slide, [(0, 0)])
    assert len(found) == len(coords) == 0
    with pytest.raises(SlideError, match=r"planted\.tiff"):
        sample(slide, [(0, 0)], quarantine=())


def test_a_slide_that_is_read_after_an_outage_is_tried_as_often_in_the_next(sample, slide, tmp_path):
    state, both = tmp_path / "state", (SlideError, OSError)
    for count in (1, 2, 3):
        assert len(sample(tmp_path / "gone.tiff", [(0, 0)], quarantine=both, state=state)[0]) == 0
        assert outages.count_failures(state) == {"s": count}
    assert len(sample(slide, [(0, 0)], state=state)[0])
    assert outages.count_failures(state) == {"s": 3}
    sample(tmp_path / "gone.tiff", [(0, 0)], quarantine=both, state=state)
    assert outages.count_failures(state) == {"s": 4}


def test_a_broken_file_of_patches_is_named(sample, slide, tmp_path):
    sample(slide, [(0, 0)])
    (tmp_path / "p.h5").write_bytes((tmp_path / "p.h5").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"p\.h5: .*delete the file"):
        artifacts.read_patches(tmp_path / "p.h5")
