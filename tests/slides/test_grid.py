"""The grid: exact squares, each with the tissue in it."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shapely import Point, box

from slpd_core.slides import grid


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 600))
@example(512, 300, 256)  # its squares end just where the slide does
def test_the_padded_grid_covers_the_slide_once_and_the_other_stays_inside(width, height, side):
    padded = grid.grid_coords((width, height), side, "pad")
    dropped = grid.grid_coords((width, height), side, "drop")
    assert len(padded) * side**2 >= width * height
    assert (padded < (width, height)).all()
    assert (dropped + side <= (width, height)).all()
    assert len(dropped) == (width // side) * (height // side)
    assert {tuple(corner) for corner in dropped} <= {tuple(corner) for corner in padded}
    assert [tuple(corner[::-1]) for corner in padded] == sorted(tuple(corner[::-1]) for corner in padded)


def test_fractions_are_exact():
    coords = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])
    polygons = (box(50, 0, 150, 100).difference(box(50, 0, 60, 10)), box(100, 150, 120, 200))
    np.testing.assert_allclose(grid.tissue_fractions(coords, 100, polygons), [0.49, 0.5, 0.0, 0.1], atol=1e-6)


@given(st.floats(50, 350), st.floats(50, 350), st.floats(10, 300))
def test_fractions_add_up_to_the_tissue(x, y, radius):
    disc = Point(x, y).buffer(radius).intersection(box(0, 0, 400, 400))
    coords = grid.grid_coords((400, 400), 64, "pad")
    assert grid.tissue_fractions(coords, 64, (disc,)).sum() * 64**2 == pytest.approx(disc.area, rel=1e-4)


def test_a_square_has_enough_from_the_least_fraction_on_and_never_none():
    fractions = np.array([0, 0.2, 0.25, 1], np.float32)
    assert grid.has_enough_tissue(fractions, 0.25).tolist() == [False, False, True, True]
    assert grid.has_enough_tissue(np.array([0, 1e-6], np.float32), 0.0).tolist() == [False, True]
