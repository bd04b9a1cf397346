"""Each level of a pyramid is placed where it was drawn, or not read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slpd_core.wsi.levels import clip_size, describe_levels, fit_levels

SIDE = st.integers(700, 150_000)
LARGE = st.integers(2100, 150_000)  # of two tiles, halved or quartered to one, no size can tell
STEP = st.sampled_from([2, 4])
ROUNDINGS = {
    "up": lambda side, factor: math.ceil(side / factor),
    "down": lambda side, factor: side // factor,
    "even": lambda side, factor: side // factor // 2 * 2,
}


def fill(side: int, tile: int) -> int:
    return -(-side // tile) * tile


def in_tiles(sizes, tile):
    return fit_levels(sizes, [(tile, tile)] * len(sizes))


@given(SIDE, SIDE, STEP, st.sampled_from([*ROUNDINGS]), st.integers(240, 1024))
def test_a_rounded_level_is_placed_within_a_px_of_it(width, height, step, rounding, tile):
    """Its farthest px, by the factor that is found and by the one that it was drawn with."""
    planted = [step**power for power in range(9) if min(width, height) // step**power >= 30]
    sizes = [(width, height), *(tuple(ROUNDINGS[rounding](side, f) for side in (width, height)) for f in planted[1:])]
    for found, factor in zip(in_tiles(sizes, tile), planted, strict=True):
        assert found == math.inf or max(width, height) * abs(1 / found - 1 / factor) <= 2
        assert found < math.inf or any(size == (tile, tile) for size in sizes)


@given(SIDE, SIDE, st.floats(2.2, 2.8))
def test_a_factor_that_is_not_whole_is_that_of_the_longer_side(width, height, factor):
    """It tells the factor best: the level's rounding moves its last px by half a px at most."""
    sizes = [(width, height), (round(width / factor), round(height / factor))]
    _, fitted = fit_levels(sizes, [(0, 0)] * 2)
    assert max(width, height) * abs(1 / fitted - 1 / factor) <= 0.5 + 1e-6


@given(LARGE, LARGE, STEP, st.sampled_from([240, 256, 512]), st.booleans())
def test_a_padded_level_is_placed_as_it_was_drawn_or_not_at_all(width, height, step, tile, all_levels):
    planted = [step**power for power in range(9)]
    sizes = [tuple(fill(math.ceil(side / f), tile) for side in (width, height)) for f in planted]
    if not all_levels:
        sizes[0] = width, height
    for found, factor in zip(in_tiles(sizes, tile), planted, strict=True):
        assert found in (factor, math.inf) or max(width, height) * abs(1 / found - 1 / factor) <= 2
        if max(sizes[0]) > 8 * tile * factor and min(sizes[0]) > tile * factor:
            assert found == factor


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(2816, 2304), (1536, 1280), (768, 768), (512, 512)], [1, 2, 4, 8]),
        ([(2304, 2304), (1280, 1280), (768, 768)], [1, 2, 4]),  # both sides at one ratio, and the wrong one
        ([(2560, 2560), (1280, 1280), (768, 768), (512, 512)], [1, 2, 4, 8]),  # the last at a whole ratio, 5
        ([(1024, 1024), (512, 512), (256, 256), (256, 256)], [1, 2, 4, math.inf]),
        ([(4443, 3567), (1000, 1000)], [1, math.inf]),
        ([(1000, 800), (500, 400), (500, 400)], [1, 2, math.inf]),
        ([(1000, 100_000), (125, 12_500), (31, 3125)], [1, 8, 32]),  # the mean of the ratios is 32.13
        ([(90_000, 60_000), (30_000, 20_000)], [1, 3]),
    ],
)
def test_levels_of_known_slides(sizes, expected):
    assert in_tiles(sizes, 256) == expected


def test_what_a_scanner_states_is_believed_where_it_is_not_the_mean_of_the_ratios():
    sizes, tiles = [(1000, 2000), (510, 1100)], [(0, 0), (0, 0)]
    assert fit_levels(sizes, tiles, [1.0, 2.0]) == [1.0, 2.0]
    assert fit_levels(sizes, tiles, [1.0, (1000 / 510 + 2000 / 1100) / 2]) == [1.0, math.inf]


def test_levels_are_named_that_are_padded_or_not_read():
    sizes = [(2816, 2304), (1536, 1280), (700, 200)]
    padded, unread = describe_levels(sizes, [1.0, 2.0, math.inf])
    assert padded == "Levels are padded to whole tiles: level 1 is read as 1/2 of level 0."
    assert unread.startswith("Level 2 (700 x 200 px) is not read")
    assert describe_levels([(2220, 2967), (555, 741)], [1.0, 4.0]) == ()
    assert clip_size(sizes[1], sizes[0], 2.0) == (1408, 1152)
    assert clip_size((555, 741), (2220, 2967), 4.0) == (555, 741)
