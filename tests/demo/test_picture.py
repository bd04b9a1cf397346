import numpy as np
import pytest

from slpd_core.demo.layout import LABELS
from slpd_core.demo.picture import apply_stain, draw_slide_pixels, upsample_rows
from slpd_core.demo.stamps import NUCLEUS_SHAPES, draw_nucleus_stamps, paste_stamps
from slpd_core.runtime import generator


def test_a_slide_depends_on_its_generators_only():
    first, again, other = (draw_slide_pixels(generator(1, name), generator(2, name), "glands", 512) for name in "aab")
    assert first.dtype == np.uint8
    assert first.shape == (512, 512, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("label", LABELS)
def test_glass_is_white_and_a_little_noisy_and_tissue_pink(label):
    picture = draw_slide_pixels(generator(4, label), generator(4), label, 768)
    glass, tissue = (picture[where].reshape(-1, 3) for where in (np.s_[:16, :16], np.s_[200:560, 200:560]))
    assert (glass.mean(0) > 220).all()
    assert (glass.std(0) > 0).all()
    assert (glass.std(0) < 5).all()
    red, green, blue = tissue.mean(0)
    assert red > blue > green


def test_bands_make_the_whole():
    field = generator(2).standard_normal((40, 40), np.float32)
    whole = upsample_rows(field, slice(0, 160))
    bands = [upsample_rows(field, slice(top, min(top + 48, 160))) for top in range(0, 160, 48)]
    np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-5)


def test_light_falls_off_exponentially_with_the_dye():
    dye = np.array([[0, 60, 120, 180]], np.uint8)
    none = np.zeros_like(dye)
    for planes in ((dye, none), (none, dye)):
        light = apply_stain(generator(3), *planes)[0].astype(float)
        through = light / light[0]
        np.testing.assert_allclose(through[2], through[1] ** 2, atol=0.01)
        np.testing.assert_allclose(through[3], through[1] ** 3, atol=0.01)


def test_every_slide_has_its_own_stain():
    planes = np.full((2, 1, 1), 120, np.uint8)
    colours = np.array([apply_stain(generator(seed), *planes)[0, 0] for seed in range(8)], float)
    assert (colours.std(0) > 4).all()


def test_put_keeps_the_darker_and_leaves_out_what_hangs_over():
    rng = generator(5)
    stamps = rng.integers(0, 255, (30, 4, 4), np.uint8)
    x, y = rng.uniform(-3, 27, (2, 30))
    plane, expected = np.zeros((24, 20), np.uint8), np.zeros((24, 20), np.uint8)
    paste_stamps(plane, stamps, x, y)
    for stamp, left, top in zip(stamps, np.rint(x - 2).astype(int), np.rint(y - 2).astype(int), strict=True):
        if 0 <= left <= 16 and 0 <= top <= 20:
            for row in range(4):
                for column in range(4):
                    place = top + row, left + column
                    expected[place] = max(expected[place], stamp[row, column])
    assert expected.any()
    np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize(("kind", "smallest_um", "largest_um"), [("epithelial", 6, 12), ("round", 4, 8)])
def test_nuclei_are_of_natural_size(kind, smallest_um, largest_um):
    stamps = draw_nucleus_stamps(generator(6), kind)
    area_um2 = (stamps > NUCLEUS_SHAPES[kind][3] / 4).sum((2, 3)) * 0.25
    diameter_um = 2 * np.sqrt(area_um2 / np.pi)
    assert smallest_um < np.percentile(diameter_um, 10)
    assert np.percentile(diameter_um, 90) < largest_um
