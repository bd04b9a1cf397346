"""Tiles decoded straight from the file are OpenSlide's pixels, to the last bit."""

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slpd_core.slides.bad_slides import SlideError
from slpd_core.slides.jpeg_tiles import JpegTiles
from slpd_core.slides.reader import Slide, write_slide


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A slide of 700 x 530 px of smooth noise, three levels, none a multiple of its tiles."""
    coarse = np.random.default_rng(0).integers(40, 250, (53, 70, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("tiles") / "noisy.tiff"
    write_slide(path, coarse.repeat(10, 0).repeat(10, 1), 0.5)
    return path


def by_openslide(path, level, box):
    """The same box over white; x and y in px of the level."""
    with openslide.OpenSlide(str(path)) as slide:
        down = round(slide.level_downsamples[level])
        rgba = np.asarray(slide.read_region((box[0] * down, box[1] * down), level, box[2:]))
    return np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)


@hypothesis_settings(max_examples=40)
@given(st.integers(-300, 800), st.integers(-300, 800), st.integers(1, 700), st.integers(1, 700), st.integers(1, 2))
def test_any_box_is_what_openslide_gives(noisy, x, y, width, height, threads):
    tiles = JpegTiles(noisy, [(700, 530)])
    found = tiles.read(0, (x, y, width, height), 1, threads)
    tiles.close()
    np.testing.assert_array_equal(found, by_openslide(noisy, 0, (x, y, width, height)))


def test_coarser_levels_are_what_openslide_gives(noisy):
    sizes = openslide.OpenSlide(str(noisy)).level_dimensions
    tiles = JpegTiles(noisy, sizes)
    for level, (width, height) in enumerate(sizes):
        assert tiles.shrinks(level) == (1, 2, 4, 8)
        np.testing.assert_array_equal(
            tiles.read(level, (0, 0, width, height), 1), by_openslide(noisy, level, (0, 0, width, height))
        )
    tiles.close()


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_shrunk_tile_is_the_mean_of_its_pixels(tmp_path, shrink):
    """Of one hue: the shrunk chroma of a subsampled JPEG is what its format leaves of it."""
    light = np.random.default_rng(0).integers(60, 240, (64, 64, 1)).repeat(16, 0).repeat(16, 1)
    write_slide(tmp_path / "s.tiff", (light * (1.0, 0.8, 0.9)).astype(np.uint8), 0.5)
    tiles = JpegTiles(tmp_path / "s.tiff", [(1024, 1024)])
    whole = tiles.read(0, (0, 0, 1024, 1024), 1).astype(float)
    mean = whole.reshape(1024 // shrink, shrink, 1024 // shrink, shrink, 3).mean((1, 3))
    found = tiles.read(0, (0, 0, 1024 // shrink, 1024 // shrink), shrink)
    beyond = tiles.read(0, (1024 // shrink - 3, 0, 8, 8), shrink)
    tiles.close()
    assert np.abs(found - mean).mean() < 2
    np.testing.assert_array_equal(beyond[:, :3], found[:8, -3:])
    assert (beyond[:, 3:] == 255).all()


def test_a_level_of_other_tiles_is_left_to_openslide(noisy, real):
    tiles = JpegTiles(real("tcga-cr-7395-01a-01-ts1.svs"), [(4443, 3567)])
    assert tiles.shrinks(0) == ()
    tiles.close()
    tiles = JpegTiles(noisy, [(700, 530), (10, 10)])
    assert tiles.shrinks(1) == ()
    tiles.close()


@pytest.mark.parametrize(
    ("name", "mpp"), [("cmu-1-small-region.svs", None), ("CMU-1-Small-Region.jpeg.tiff", 0.499)], ids=["svs", "tiff"]
)
def test_real_slides_are_what_openslide_gives(real, name, mpp):
    """RGB tiles with shared tables and without, and the padding beyond the last ones."""
    with Slide(real(name), mpp) as slide:
        found = slide.read((0, 0), (2300, 3000), 0.499)
    np.testing.assert_array_equal(found, by_openslide(real(name), 0, (0, 0, 2300, 3000)))


def tile(colour, size=256):
    """A JPEG stream of one colour."""
    return simplejpeg.encode_jpeg(np.full((size, size, 3), colour, np.uint8), quality=90)


YCBCR = {"dtype": np.uint8, "tile": (256, 256), "compression": "jpeg", "photometric": "ycbcr", "metadata": None}
APERIO = "Aperio Image Library v11\r\n1024x1024 |AppMag = 20|MPP = 0.5"


def test_the_first_page_of_a_size_is_the_level(tmp_path):
    """Another picture of the same size that follows, though of JPEG tiles, is none of the slide's."""
    path = tmp_path / "two.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.full((512, 512, 3), 30, np.uint8), tile=(256, 256), photometric="rgb", metadata=None)
        writer.write(iter([tile((200, 60, 120))] * 4), shape=(512, 512, 3), **YCBCR)
    with Slide(path, 0.5) as slide:
        np.testing.assert_array_equal(slide.read((0, 0), (512, 512), 0.5), by_openslide(path, 0, (0, 0, 512, 512)))


def test_channels_that_lie_apart_are_left_to_openslide(tmp_path):
    path = tmp_path / "apart.tiff"
    planes = [simplejpeg.encode_jpeg(np.full((256, 256, 1), v, np.uint8), colorspace="GRAY") for v in (200, 60, 120)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([plane for plane in planes for _ in range(4)]),
            shape=(3, 512, 512),
            **YCBCR | {"photometric": "rgb", "planarconfig": "separate"},
        )
    with Slide(path, 0.5) as slide:
        np.testing.assert_array_equal(slide.read((0, 0), (512, 512), 0.5), by_openslide(path, 0, (0, 0, 512, 512)))


def test_a_tile_aperio_leaves_to_the_finer_level_is_drawn_from_it(tmp_path):
    path = tmp_path / "aperio.svs"
    with tifffile.TiffWriter(path) as writer:
        writer.write(iter([tile((200, 60, 120))] * 16), shape=(1024, 1024, 3), description=APERIO, **YCBCR)
        coarser = [tile((10, 10, 250)), b"", tile((200, 60, 120)), tile((200, 60, 120))]
        writer.write(iter(coarser), shape=(512, 512, 3), description=APERIO, **YCBCR)
    with Slide(path) as slide:
        found = slide.read((0, 0), (512, 512), 1.0).astype(int)
    assert np.abs(found[10, 400] - (200, 60, 120)).max() < 4
    assert np.abs(found[10, 100] - (10, 10, 250)).max() < 4


def test_a_broken_tile_names_the_slide_and_the_place(noisy, tmp_path):
    whole = bytearray(noisy.read_bytes())
    tiles = JpegTiles(noisy, [(700, 530)])
    start = int(tiles._levels[0].offsets[1, 2])
    tiles.close()
    whole[start + 300 : start + 400] = b"\xff" * 100
    (tmp_path / "broken.tiff").write_bytes(whole)
    tiles = JpegTiles(tmp_path / "broken.tiff", [(700, 530)])
    with pytest.raises(SlideError, match=r"broken\.tiff: broken tile of level 0 at x=512, y=256 .*copy it again"):
        tiles.read(0, (0, 0, 700, 530), 1)
    tiles.read(0, (0, 0, 500, 530), 1)
    tiles.close()


def test_a_file_that_ends_early_is_named(noisy, tmp_path):
    tiles = JpegTiles(noisy, [(700, 530)])
    last = int(tiles._levels[0].offsets.max())
    with (tmp_path / "torn.tiff").open("wb") as file:
        file.write(noisy.read_bytes())
    with (tmp_path / "torn.tiff").open("rb+") as file:
        torn = JpegTiles(tmp_path / "torn.tiff", [(700, 530)])
        file.truncate(last + 10)
    with pytest.raises(SlideError, match=r"torn\.tiff: broken tile .*10 of its \d+ bytes are there"):
        torn.read(0, (0, 0, 700, 530), 1)
    torn.close()
    tiles.close()
