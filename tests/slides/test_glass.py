"""Tissue is found on glass of any tint, and stains are told from ink."""

import colorsys

import cv2
import numpy as np
import pytest

from slpd_core.slides import glass, segmentation

PINK, NUCLEI = (226, 158, 196), (116, 74, 142)
GLASS = (243, 242, 244)
# Optical density of the first stain of each pair, as published for color deconvolution, at 0.4 of full strength.
STAINS = {
    "Alcian blue": (0.87, 0.46, 0.16),
    "aniline blue (Azan)": (0.85, 0.51, 0.11),
    "methyl blue (trichrome)": (0.80, 0.59, 0.11),
    "light green": (0.95, 0.25, 0.20),
    "methyl green": (0.98, 0.14, 0.13),
    "methylene blue (Giemsa)": (0.83, 0.51, 0.20),
}
BLUE_PEN, GREEN_PEN = (30, 60, 200), (20, 140, 70)


def tint(hue, saturation, brightness=245):
    """A color of glass: hue in degrees, saturation in 0..255."""
    return tuple(round(brightness * part) for part in colorsys.hsv_to_rgb(hue / 360, saturation / 255, 1))


def draw(color=GLASS, matrix=PINK, nuclei=NUCLEI, width=256, height=192, *, change=1.0):
    """An ellipse of tissue with texture, whose color changes with the place, on glass at 8 um/px; and its mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: 4 * height, : 4 * width] / (4 * height)
    covered = ((x - 0.55) / 0.4) ** 2 + ((y - 0.5) / 0.36) ** 2 < 1
    share = cv2.resize(covered.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[..., None]
    y, x = np.mgrid[:height, :width] / height
    texture = rng.uniform(0.05, 0.4, (height, width, 1))
    gradient = change * np.stack([-20 * x, 16 * y, -16 * x * y], axis=2)
    inside = (1 - texture) * (np.array(matrix) + gradient) + texture * np.array(nuclei)
    pixels = share * inside + (1 - share) * np.array(color) + rng.normal(0, 0.5, (height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8), share[..., 0] > 0.5


def draw_pen(pixels, color, width=10):
    """The same slide with a line of a pen around its tissue, which light passes too; and where it is."""
    line = np.zeros(pixels.shape[:2], np.float32)
    rows, columns = line.shape
    cv2.ellipse(line, (columns // 2, rows // 2), (columns // 2 - 12, rows // 2 - 8), 0, 0, 330, 1, width)
    line = cv2.GaussianBlur(line, (0, 0), 1)
    return (pixels * (np.array(color) / 255) ** line[..., None]).astype(np.uint8), line > 0.5


def assert_found(mask, truth, at_least=0.97):
    """Recall and precision."""
    assert (mask & truth).sum() >= at_least * truth.sum()
    assert (mask & truth).sum() >= at_least * mask.sum()


@pytest.mark.parametrize("saturation", [0, 23, 40])
@pytest.mark.parametrize("hue", range(0, 360, 45))
def test_tissue_is_found_on_glass_of_any_tint(hue, saturation):
    pixels, truth = draw(tint(hue, saturation))
    mask, remarks = segmentation.find_tissue(pixels, 8.0)
    assert_found(mask, truth)
    assert remarks == ()


def test_glass_of_any_tint_is_not_tissue():
    rng = np.random.default_rng(0)
    for hue in range(0, 360, 45):
        pixels = (tint(hue, 40) - rng.integers(0, 5, (150, 200, 3))).astype(np.uint8)
        assert not segmentation.find_tissue(pixels, 8.0)[0].any()


def test_tinted_glass_beside_white_that_was_not_scanned():
    """Or beyond the cover slip: of two kinds of glass neither is tissue."""
    pixels, truth = draw(tint(40, 30))
    pixels[:, :60][~truth[:, :60]] = 255
    assert_found(segmentation.find_tissue(pixels, 8.0)[0], truth)
    assert glass.find_glass_colors(pixels).tolist() == [pytest.approx(tint(40, 30), abs=2), [255, 255, 255]]


@pytest.mark.parametrize("hue", [40, 220, 330])
def test_tissue_of_the_glass_s_own_hue_is_found_where_it_is_darker(hue):
    color = tint(hue, 40)
    pixels, truth = draw(color, matrix=np.array(color) * 0.85, nuclei=np.array(color) * 0.7, change=0)
    assert_found(segmentation.find_tissue(pixels, 8.0)[0], truth)


def test_dust_and_marker_on_tinted_glass_are_not_tissue():
    for hue in range(0, 360, 45):
        pixels, truth = draw(tint(hue, 40))
        pixels[10:50, 200:250], pixels[150:190, 10:50] = (120, 120, 124), (70, 68, 72)
        assert_found(segmentation.find_tissue(pixels, 8.0)[0], truth)


def test_a_slide_without_glass_is_taken_as_it_is():
    pixels = draw()[0][70:120, 80:140]
    assert glass.find_glass_colors(pixels).shape == (0, 3)
    mask, remarks = segmentation.find_tissue(np.tile(pixels, (3, 3, 1)), 8.0)
    assert mask.all()
    assert remarks == ("Tissue covers 100% of the slide; if its overlay is wrong, outline it (tissue.masks_dir).",)


@pytest.mark.parametrize("density", STAINS.values(), ids=STAINS)
@pytest.mark.parametrize("nuclei", [NUCLEI, (190, 40, 60)], ids=["hematoxylin", "red"])
def test_blue_and_green_stains_are_tissue(density, nuclei):
    matrix = 255 * 10 ** (-0.4 * np.array(density))
    pixels, truth = draw(matrix=matrix, nuclei=nuclei)
    mask, remarks = segmentation.find_tissue(pixels, 8.0)
    assert_found(mask, truth)
    assert all("is kept as a stain; if it is ink, set tissue.ink: exclude" in remark for remark in remarks)


def test_collagen_in_blue_between_red_muscle_is_tissue():
    red, truth = draw(matrix=(200, 110, 130), nuclei=(150, 40, 70))
    blue, _ = draw(matrix=(110, 150, 215), nuclei=(70, 100, 190))
    bundles = cv2.GaussianBlur(np.random.default_rng(1).normal(size=truth.shape), (0, 0), 5)
    share = 1 / (1 + np.exp(-(bundles - np.quantile(bundles, 0.6)) / bundles.std() * 5))[..., None]
    pixels = (share * blue + (1 - share) * red).astype(np.uint8)
    assert_found(segmentation.find_tissue(pixels, 8.0)[0], truth)


@pytest.mark.parametrize("width", [6, 24])
@pytest.mark.parametrize("color", [BLUE_PEN, GREEN_PEN], ids=["blue", "green"])
def test_ink_is_left_out_and_said(color, width):
    """Also where it is most of what is no glass."""
    pixels, truth = draw()
    cut = truth & (np.arange(256) >= 110)
    pixels[cut], truth = GLASS, truth & ~cut
    pixels, line = draw_pen(pixels, color, width)
    mask, remarks = segmentation.find_tissue(pixels, 8.0)
    assert_found(mask & ~line, truth & ~line, 0.95)
    assert (mask & line & ~truth).sum() < 0.05 * line.sum()
    assert len(remarks) == 1
    assert "of all but glass is excluded as ink of a pen; if it is tissue, set tissue.ink: keep" in remarks[0]


def test_a_setting_keeps_or_excludes_ink_whatever_it_looks_like():
    pixels, line = draw_pen(draw()[0], GREEN_PEN)
    mask, remarks = segmentation.find_tissue(pixels, 8.0, ink="keep")
    assert mask[line].all()
    assert remarks == ()
    stained, _ = draw(matrix=(119, 160, 217))
    assert segmentation.find_tissue(stained, 8.0)[0].any()
    mask, remarks = segmentation.find_tissue(stained, 8.0, ink="exclude")
    assert not mask.any()
    assert "is excluded as ink" in remarks[0]
