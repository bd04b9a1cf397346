"""A damaged slide ends in a SlideError or in pixels; damage that its JPEG streams let one know of is never silent."""

from collections import Counter
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import pyvips

from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import downsample_factor
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.tiff_levels import Level, find_levels

SEED = 20
COUNTS = {"cut": 40, "flip in a tile": 60, "zeros in tiles": 40, "flip in a directory": 40, "zeros in a directory": 20}
SIZE = (2220, 2967)
REGION_PX = 1024
# Of the file: the header, and the directories that lie behind the tiles or strips of their pictures.
DIRECTORIES = ((0, 16), (1_275_950, 1_278_105), (1_474_362, 1_475_813), (1_850_194, 1_850_954), (1_938_212, 1_938_955))
Span = tuple[int, int]  # of bytes: the first, and the one after the last


@pytest.fixture(scope="module")
def svs(real):
    return real("cmu-1-small-region.svs")


@pytest.fixture(scope="module")
def level(svs):
    """Where level 0's tiles lie."""
    return find_levels(svs, [SIZE])[0]


def damage(kind: str, whole: bytes, places: np.ndarray, rng: np.random.Generator) -> tuple[bytes, Span]:
    """Damage a file at one of the `places`, byte numbers; gives it with the span that is damaged."""
    at = int(rng.choice(places))
    if kind == "cut":
        return whole[:at], (at, len(whole))
    if kind.startswith("flip"):
        return whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :], (at, at + 1)
    length = min(round(2 ** rng.uniform(2, 14 if "tiles" in kind else 6)), len(whole) - at)
    return whole[:at] + bytes(length) + whole[at + length :], (at, at + length)


def damages(whole: bytes, level: Level):
    """(kind, content, span) of as many damaged files of each kind as COUNTS says."""
    everywhere = np.arange(len(whole))
    tiles = np.arange(level.offsets.min(), (level.offsets + level.lengths).max())
    directories = np.concatenate([np.arange(*span) for span in DIRECTORIES])
    for kind, count in COUNTS.items():
        places = tiles if "tile" in kind else directories if "directory" in kind else everywhere
        for number in range(count):
            yield kind, *damage(kind, whole, places, np.random.default_rng([SEED, len(kind), number]))


def read_all(path: Path) -> np.ndarray:
    """The thumbnail, then level 0 in regions as far as the whole slide reaches: uint8 (rows, columns, 3)."""
    out = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    with Slide(path) as slide:
        scale = downsample_factor(slide.mpp, max(8.0, slide.mpp))
        width, height = (ceil(side / scale) for side in slide.size)
        assert slide.thumbnail(8.0).shape == (height, width, 3)
        for y, x in product(range(0, SIZE[1], REGION_PX), range(0, SIZE[0], REGION_PX)):
            pixels = slide.read((x, y), (REGION_PX, REGION_PX), slide.mpp)
            assert pixels.shape == (REGION_PX, REGION_PX, 3)
            into = out[y : y + REGION_PX, x : x + REGION_PX]
            into[:] = pixels[: into.shape[0], : into.shape[1]]
    return out


def hit_tiles(level: Level, span: Span) -> list[tuple[int, int]]:
    """(row, column) of the tiles that a span of bytes touches."""
    hit = (level.offsets < span[1]) & (level.offsets + level.lengths > span[0])
    return [(int(row), int(column)) for row, column in np.argwhere(hit)]


def passes_in_silence(content: bytes, level: Level, tile: tuple[int, int]) -> bool:
    """Whether libvips, an independent reader, decodes a tile without a warning."""
    stream = level.prefix + content[level.offsets[tile] + 2 :][: level.lengths[tile] - 2]
    try:
        pyvips.Image.jpegload_buffer(stream, fail_on="warning").copy_memory()
    except pyvips.Error:
        return False
    return True


def check_silent(whole: bytes, content: bytes, span: Span, level: Level, differs: np.ndarray) -> None:
    """Of pixels that differ, bool (rows, columns), without an error: nothing in the file could have told.

    Either an independent decoder has no complaint about the tile that was hit and the others are as they were, or
    the tables that all tiles share were hit, of which any values are valid.
    """
    tables = whole.index(level.prefix[18:])
    if tables <= span[0] < tables + len(level.prefix):
        return
    hit = hit_tiles(level, span)
    assert hit
    assert all(passes_in_silence(content, level, tile) for tile in hit)
    width, height = level.tile_px
    for row, column in hit:
        differs[row * height : (row + 1) * height, column * width : (column + 1) * width] = False
    assert not differs.any()


def test_no_damage_crashes_hangs_or_passes_unnoticed(svs, level, tmp_path):
    whole, path, ended = svs.read_bytes(), tmp_path / "damaged.svs", Counter()
    expected = read_all(svs)
    for kind, content, span in damages(whole, level):
        path.write_bytes(content)
        message, differs = "", np.zeros(SIZE[::-1], bool)
        try:
            differs = (read_all(path) != expected).any(2)
        except SlideError as error:
            message = str(error)
        assert not message or message.startswith(f"{path}: ")
        ended[kind, "error" if message else "differs" if differs.any() else "same"] += 1
        if differs.any():
            check_silent(whole, content, span, level, differs)
    assert ended.total() == sum(COUNTS.values()) == 200
    assert ended["cut", "error"] == COUNTS["cut"]
    assert ended["zeros in tiles", "error"] >= 0.95 * COUNTS["zeros in tiles"]
    assert ended["flip in a tile", "error"] >= 0.25 * COUNTS["flip in a tile"]
    # Most of the directories' bytes bear on no pixel: those slides are read as ever.
    assert ended["flip in a directory", "same"] >= 0.5 * COUNTS["flip in a directory"]
    assert ended["flip in a directory", "error"] >= 0.1 * COUNTS["flip in a directory"]


@pytest.mark.parametrize("byte", [b"\xe5", b"\x00"])
def test_a_description_that_is_no_text_is_none_of_the_pixels_business(svs, tmp_path, byte):
    """The name of a property that is not UTF-8 cannot be looked up, and need not be."""
    whole = svs.read_bytes()
    path = tmp_path / "damaged.svs"
    path.write_bytes(whole.replace(b"|Filename", b"|Fil" + byte + b"name"))
    assert path.read_bytes() != whole
    np.testing.assert_array_equal(read_all(path), read_all(svs))


def test_a_width_that_the_tiles_do_not_fit_is_an_error(svs, level, tmp_path):
    """Otherwise each row of tiles would begin among those of another: a picture, and the wrong one."""
    whole = svs.read_bytes()
    at = whole.index((2220).to_bytes(4, "little"), int(level.offsets.max()))
    path = tmp_path / "damaged.svs"
    path.write_bytes(whole[:at] + (2732).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(SlideError, match=r"damaged\.svs: broken directory, 130 tiles listed for 12 x 13 of them"):
        read_all(path)
