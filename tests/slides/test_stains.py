"""Stains: normalized to a reference by the published methods, once per slide, before regions are encoded."""

import numpy as np
import pytest

from slpd_core import artifacts
from slpd_core.slides import slide_stains, stains
from slpd_core.wsi import identity
from slpd_core.wsi.region_reader import RegionReader
from slpd_core.wsi.writer import write_slide

METHODS = ("macenko", "reinhard")
HEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.21, 0.85, 0.48])


def draw_stained(seed: int, matrix: np.ndarray, strength: float = 1.0, shape=(200, 300)) -> np.ndarray:
    """Pixels of two stains, or of one, uint8 RGB. From a strength of 1.5 on none is as pale as glass."""
    rng = np.random.default_rng(seed)
    concentrations = rng.uniform(0.5, 1.5, (*shape, 2)) * strength
    concentrations[:, : shape[1] // 4, 0] = 0
    concentrations[:, -shape[1] // 4 :, 1] = 0
    return np.clip(np.rint(240 * np.exp(-concentrations @ matrix.T) - 1), 0, 255).astype(np.uint8)


def stain_matrix(turn: float = 0.0) -> np.ndarray:
    """Unit vectors of two stains, as another laboratory has them."""
    turned = HEMATOXYLIN + turn * np.array([1, 0, -0.5]), EOSIN + turn * np.array([0.33, 0, 0.5])
    vectors = np.stack(turned, axis=1)
    return vectors / np.linalg.norm(vectors, axis=0)


@pytest.fixture
def mild(monkeypatch):
    """A reference for Reinhard that is less bright and varied, so that no channel of what is drawn here is full."""
    monkeypatch.setattr(stains, "REINHARD_MEAN", stains.REINHARD_MEAN - [0.5, 0, 0])
    monkeypatch.setattr(stains, "REINHARD_STD", stains.REINHARD_STD / 2)


@pytest.mark.parametrize("turn", [0.0, 0.08, -0.05])
def test_the_stains_of_a_slide_are_found(turn):
    matrix = stain_matrix(turn)
    found = stains.find_stains(stains.optical_density(draw_stained(0, matrix).reshape(-1, 3)))
    np.testing.assert_allclose(found, matrix, atol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_slides_of_two_laboratories_become_alike(method, mild):
    """The same tissue in other stains of another strength: farther apart before than after."""
    slides = [draw_stained(1, stain_matrix(), strength=1.6), draw_stained(1, stain_matrix(0.08), strength=1.8)]
    normalized = [stains.fit_stains(slide.reshape(-1, 3), method).apply(slide) for slide in slides]
    before, after = (np.abs(np.subtract(*np.asarray(pair, float))).mean() for pair in (slides, normalized))
    assert after < before / 5
    assert after < 4


def test_macenko_brings_stains_and_concentrations_to_the_reference():
    pixels = draw_stained(2, stain_matrix(0.05), strength=0.8)
    density = stains.optical_density(stains.fit_stains(pixels.reshape(-1, 3), "macenko").apply(pixels)).reshape(-1, 3)
    unit = stains.MACENKO_STAINS / np.linalg.norm(stains.MACENKO_STAINS, axis=0)
    np.testing.assert_allclose(stains.find_stains(density), unit, atol=0.03)
    maxima = np.percentile(np.linalg.pinv(stains.MACENKO_STAINS) @ density.T, 99, axis=1)
    np.testing.assert_allclose(maxima, stains.MACENKO_CONCENTRATIONS, rtol=0.05)


def test_reinhard_brings_mean_and_deviation_to_the_reference(mild):
    """By Reinhard's equations, in plain numpy."""
    pixels = draw_stained(3, stain_matrix(), strength=1.6)
    normalized = stains.fit_stains(pixels.reshape(-1, 3), "reinhard").apply(pixels).reshape(-1, 3).astype(float)
    long, medium, short = np.log(np.maximum(normalized, 1) @ stains.RGB_TO_LMS.T).T
    lab = [(long + medium + short) / 3**0.5, (long + medium - 2 * short) / 6**0.5, (long - medium) / 2**0.5]
    np.testing.assert_allclose(np.mean(lab, axis=1), stains.REINHARD_MEAN, atol=0.005)
    np.testing.assert_allclose(np.std(lab, axis=1), stains.REINHARD_STD, rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_what_has_the_references_own_stains_stays(method, mild):
    pixels = draw_stained(4, stain_matrix(), strength=1.6)
    once = stains.fit_stains(pixels.reshape(-1, 3), method).apply(pixels)
    twice = stains.fit_stains(once.reshape(-1, 3), method).apply(once)
    assert np.abs(twice.astype(int) - once).mean() < 2


def test_macenko_is_torchstains():
    """On stained pixels alone: torchstain takes the highest concentrations of glass and tissue together."""
    normalizers = pytest.importorskip("torchstain.numpy.normalizers", reason="no torchstain")
    pixels = draw_stained(5, stain_matrix(0.04), strength=1.8)
    assert len(stains.select_stained(pixels.reshape(-1, 3))) == pixels[..., 0].size
    reference = normalizers.NumpyMacenkoNormalizer().normalize(pixels, stains=False)[0]
    difference = stains.fit_stains(pixels.reshape(-1, 3), "macenko").apply(pixels).astype(int) - reference
    assert (difference.min(), difference.max()) == (0, 1)  # it cuts off what is rounded here


@pytest.mark.parametrize("method", METHODS)
def test_glass_stays_pale_and_black_is_no_error(method):
    transform = stains.fit_stains(draw_stained(6, stain_matrix()).reshape(-1, 3), method)
    ends = transform.apply(np.array([[[255, 255, 255], [244, 244, 244], [0, 0, 0]]], np.uint8))
    assert (ends[0, :2] >= 225).all()
    assert (ends[0, 2] < 60).all()


@pytest.mark.parametrize("method", METHODS)
def test_glass_is_no_part_of_the_fit(method):
    tissue = draw_stained(7, stain_matrix()).reshape(-1, 3)
    glass = np.full((3 * len(tissue), 3), 243, np.uint8)
    alone, mixed = (stains.fit_stains(pixels, method).affine for pixels in (tissue, np.concatenate([glass, tissue])))
    np.testing.assert_allclose(alone, mixed, atol=1e-9)


def test_too_little_tissue_and_a_single_stain_are_not_fitted():
    pixels = draw_stained(8, stain_matrix()).reshape(-1, 3)
    assert stains.fit_stains(pixels[: stains.MIN_PIXELS - 1], "macenko") is None
    gray = np.repeat(np.random.default_rng(0).integers(40, 180, (5000, 1)), 3, axis=1).astype(np.uint8)
    assert stains.fit_stains(gray, "macenko") is None
    assert np.isfinite(stains.fit_stains(gray, "reinhard").affine).all()


def test_a_transform_writes_where_it_is_asked_to():
    pixels = draw_stained(9, stain_matrix())
    transform, before, out = stains.fit_stains(pixels.reshape(-1, 3), "macenko"), pixels.copy(), np.zeros_like(pixels)
    assert transform.apply(pixels, out) is out
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(transform.apply(pixels, pixels), out)


@pytest.fixture
def reader(tmp_path):
    """A reader of a slide of four regions in a laboratory's stains."""
    path = tmp_path / "s.tiff"
    spots = draw_stained(10, stain_matrix(0.06), shape=(32, 32))
    write_slide(path, spots.repeat(32, axis=0).repeat(32, axis=1), 0.5)  # JPEG keeps the colors of large spots
    info = artifacts.SlideInfo("s", artifacts.OK, "", 1024, 1024, 0.5, "sheet", identity.slide_fingerprint(path))
    coords = np.array([(0, 0), (512, 0), (0, 512), (512, 512)], np.int64)
    return RegionReader(path, artifacts.Regions(info, coords, np.ones(4, np.float32), 512, 512, 0.5))


def test_samples_lie_in_the_regions_and_all_over_them(reader):
    samples = slide_stains.place_samples(reader.regions)
    assert len({*map(tuple, samples.coords.tolist())}) == len(samples.coords) == 16
    large = artifacts.Regions(reader.regions.slide, reader.regions.coords * 8, np.ones(4, np.float32), 4096, 4096, 0.5)
    samples = slide_stains.place_samples(large)
    assert len(samples.coords) == slide_stains.N_SAMPLES
    assert ((samples.coords >= 0) & (samples.coords + 256 <= 8192)).all()
    for low in large.coords:
        inside = ((samples.coords >= low) & (samples.coords < low + 4096)).all(axis=1)
        assert 15 <= inside.sum() <= 17
        assert (np.ptp(samples.coords[inside], axis=0) >= 2048).all()


def test_a_slide_is_fitted_once_and_all_its_regions_alike(reader, monkeypatch):
    fits, fit = [], stains.fit_stains
    monkeypatch.setattr(slide_stains, "fit_stains", lambda *arguments: fits.append(1) or fit(*arguments))
    normalizer, pixels = slide_stains.SlideStains("macenko"), [reader.read(i) for i in range(4)]
    normalized = [normalizer.normalize(reader, region) for region in pixels]
    assert len(fits) == 1
    again = slide_stains.SlideStains("macenko")
    np.testing.assert_array_equal(again.normalize(reader, pixels[3]), normalized[3])
    found = stains.find_stains(stains.optical_density(np.concatenate(normalized).reshape(-1, 3)))
    np.testing.assert_allclose(found, stains.MACENKO_STAINS / np.linalg.norm(stains.MACENKO_STAINS, axis=0), atol=0.06)


def test_a_slide_that_cannot_be_fitted_keeps_its_colors_with_a_warning(reader, monkeypatch, caplog):
    monkeypatch.setattr(slide_stains, "fit_stains", lambda *_: None)
    pixels, normalizer = reader.read(0), slide_stains.SlideStains("macenko")
    out = np.zeros_like(pixels)
    np.testing.assert_array_equal(normalizer.normalize(reader, pixels, out), pixels)
    np.testing.assert_array_equal(normalizer.normalize(reader, pixels), pixels)
    assert [record.message for record in caplog.records] == ["s: no two stains found, its colors are not normalized"]


def test_a_sample_that_cannot_be_read_is_the_error_of_every_region_and_read_once(reader, monkeypatch):
    pixels, reads = reader.read(0), []

    def read(self, i):
        reads.append(i)
        raise OSError("away")

    monkeypatch.setattr(RegionReader, "read", read)
    normalizer = slide_stains.SlideStains("reinhard")
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            normalizer.normalize(reader, pixels)
    assert reads == [0]
