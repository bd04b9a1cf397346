"""A mask of tissue keeps what is as large as the settings say, and nothing that is black."""

import numpy as np
import pytest

from slpd_core.slides.segmentation import clean_mask, find_tissue

ALL = {"min_island_um2": 0.0, "min_hole_um2": 0.0}


def test_saturated_black_is_no_tissue():
    """As the edge of a scanner's field, or a thick marker."""
    pixels = np.full((100, 200, 3), 244, np.uint8)
    pixels[20:80, 20:80], pixels[20:80, 120:180] = (38, 8, 30), (90, 40, 80)
    mask = find_tissue(pixels, 8.0)[0]
    assert not mask[25:75, 25:75].any()
    assert mask[25:75, 125:175].all()


@pytest.mark.parametrize(("gap_px", "is_closed"), [(24, True), (48, False)])
def test_gaps_up_to_the_width_are_closed(gap_px, is_closed):
    mask = np.ones((200, 300), bool)
    mask[:, 100 : 100 + gap_px] = False
    cleaned = clean_mask(mask, 2.0, smoothing_um=0.0, closing_um=64.0, **ALL)
    assert cleaned[50:150, 100 : 100 + gap_px].all() == is_closed
    assert cleaned[50:150, 110 : 90 + gap_px].any() == is_closed


@pytest.mark.parametrize(("width_px", "is_kept"), [(2, False), (3, True)])
def test_lines_thinner_than_the_smoothing_are_removed(width_px, is_kept):
    """As the edge of a coverslip, however long it is."""
    mask = np.zeros((40, 1000), bool)
    mask[20 : 20 + width_px] = True
    cleaned = clean_mask(mask, 8.0, smoothing_um=24.0, closing_um=0.0)
    assert cleaned[20 : 20 + width_px].any() == is_kept
