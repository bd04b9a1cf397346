"""Ink is told from a stain of its hue by how much of it there is, its texture and its border."""

import numpy as np
import pytest

from slpd_core.slides.ink import find_ink
from slpd_core.slides.segmentation import measure_color

PURPLE, BLUE = (120, 100, 180), (100, 120, 180)  # hues of 255 and 225 degrees; only the second is one of ink


@pytest.mark.parametrize(("columns", "is_stain"), [(8, False), (60, True)])
def test_a_rare_hue_is_ink_even_if_it_passes_into_tissue(columns, is_stain):
    rng = np.random.default_rng(1)
    pixels = np.full((200, 200, 3), PURPLE, np.uint8)
    pixels[:, :columns] = BLUE
    pixels = (pixels + rng.integers(-8, 9, pixels.shape)).astype(np.uint8)
    hue, saturation = measure_color(pixels, np.empty((0, 3), np.uint8))
    ink = find_ink(pixels, hue, saturation, np.ones(hue.shape, bool))
    assert ink.fraction == pytest.approx(columns / 200, abs=0.05)
    assert ink.is_stain == is_stain
