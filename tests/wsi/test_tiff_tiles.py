"""Tiles decoded straight from the file are OpenSlide's pixels, to the last bit."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import cv2
import imagecodecs
import numpy as np
import openslide
import pytest
import pyvips
import simplejpeg
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.tiff_levels import find_levels
from slpd_core.wsi.tiff_tiles import TiffTiles
from slpd_core.wsi.tile_codecs import check_jpeg_2000
from slpd_core.wsi.writer import write_slide


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A slide of 700 x 530 px of smooth noise, three levels, none a multiple of its tiles."""
    coarse = np.random.default_rng(0).integers(40, 250, (53, 70, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("tiles") / "noisy.tiff"
    write_slide(path, coarse.repeat(10, 0).repeat(10, 1), 0.5)
    return path


def open_tiles(path, sizes):
    """The JPEG tiles of the levels of a file that have these sizes."""
    found = find_levels(path, sizes)
    return TiffTiles(path, {number: level for number, level in enumerate(found) if level})


def by_openslide(path, level, box):
    """The same box over white; x and y in px of the level."""
    with openslide.OpenSlide(str(path)) as slide:
        down = round(slide.level_downsamples[level])
        rgba = np.asarray(slide.read_region((box[0] * down, box[1] * down), level, box[2:]))
    return np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)


@hypothesis_settings(max_examples=40)
@given(st.integers(-300, 800), st.integers(-300, 800), st.integers(1, 700), st.integers(1, 700), st.integers(1, 2))
def test_any_box_is_what_openslide_gives(noisy, x, y, width, height, threads):
    tiles = open_tiles(noisy, [(700, 530)])
    found = tiles.read(0, (x, y, width, height), 1, threads)
    tiles.close()
    np.testing.assert_array_equal(found, by_openslide(noisy, 0, (x, y, width, height)))


def test_coarser_levels_are_what_openslide_gives(noisy):
    sizes = openslide.OpenSlide(str(noisy)).level_dimensions
    tiles = open_tiles(noisy, sizes)
    for level, (width, height) in enumerate(sizes):
        assert tiles.jpeg_scales(level) == (1, 2, 4, 8)
        np.testing.assert_array_equal(
            tiles.read(level, (0, 0, width, height), 1), by_openslide(noisy, level, (0, 0, width, height))
        )
    tiles.close()


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_shrunk_tile_is_the_mean_of_its_pixels(tmp_path, shrink):
    """Of one hue: the shrunk chroma of a subsampled JPEG is what its format leaves of it."""
    light = np.random.default_rng(0).integers(60, 240, (64, 64, 1)).repeat(16, 0).repeat(16, 1)
    write_slide(tmp_path / "s.tiff", (light * (1.0, 0.8, 0.9)).astype(np.uint8), 0.5)
    tiles = open_tiles(tmp_path / "s.tiff", [(1024, 1024)])
    whole = tiles.read(0, (0, 0, 1024, 1024), 1).astype(float)
    mean = whole.reshape(1024 // shrink, shrink, 1024 // shrink, shrink, 3).mean((1, 3))
    found = tiles.read(0, (0, 0, 1024 // shrink, 1024 // shrink), shrink)
    beyond = tiles.read(0, (1024 // shrink - 3, 0, 8, 8), shrink)
    tiles.close()
    assert np.abs(found - mean).mean() < 2
    np.testing.assert_array_equal(beyond[:, :3], found[:8, -3:])
    assert (beyond[:, 3:] == 255).all()


def test_a_size_without_a_level_is_left_to_openslide(noisy):
    tiles = open_tiles(noisy, [(700, 530), (10, 10)])
    assert tiles.jpeg_scales(1) == ()
    tiles.close()


@pytest.mark.parametrize(
    ("name", "mpp"), [("cmu-1-small-region.svs", None), ("CMU-1-Small-Region.jpeg.tiff", 0.499)], ids=["svs", "tiff"]
)
def test_real_slides_are_what_openslide_gives(real, name, mpp):
    """RGB tiles with shared tables and without, and the padding beyond the last ones."""
    with Slide(real(name), mpp) as slide:
        found = slide.read((0, 0), (2300, 3000), 0.499)
    np.testing.assert_array_equal(found, by_openslide(real(name), 0, (0, 0, 2300, 3000)))


@pytest.mark.parametrize(("level", "size"), [(0, (4443, 3567)), (1, (2221, 1783))])
def test_jpeg_2000_tiles_of_aperio_are_what_openslide_gives(real, level, size):
    path = real("tcga-cr-7395-01a-01-ts1.svs")
    tiles = open_tiles(path, [(4443, 3567), (2221, 1783)])
    assert tiles.jpeg_scales(level) == (1,)
    box = (size[0] - 600, size[1] - 500, 620, 530)
    found = tiles.read(level, box, 1)
    tiles.close()
    with openslide.OpenSlide(str(path)) as slide:
        rgba = np.asarray(slide.read_region((0, 0), level, size))
    np.testing.assert_array_equal(found[:500, :600], rgba[-500:, -600:, :3])
    assert (found[500:] == 255).all()
    assert (found[:, 600:] == 255).all()


def tile(colour, size=256):
    """A JPEG stream of one colour."""
    return simplejpeg.encode_jpeg(np.full((size, size, 3), colour, np.uint8), quality=90)


YCBCR = {"dtype": np.uint8, "tile": (256, 256), "compression": "jpeg", "photometric": "ycbcr", "metadata": None}
APERIO = "Aperio Image Library v11\r\n1024x1024 |AppMag = 20|MPP = 0.5"


def test_the_first_page_of_a_size_is_the_level(tmp_path):
    """Of an SVS; another picture of the same size that follows, though of JPEG tiles, is none of the slide's."""
    path, plain = tmp_path / "two.svs", YCBCR | {"compression": None, "photometric": "rgb"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.full((1024, 1024, 3), 30, np.uint8), description=APERIO, **plain)
        writer.write(np.full((512, 512, 3), 30, np.uint8), description=APERIO, **plain)
        writer.write(iter([tile((200, 60, 120))] * 4), shape=(512, 512, 3), **YCBCR)
    assert find_levels(path, [(1024, 1024), (512, 512)]) == [None, None]


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


LAYOUTS = [(side, subsampling) for side in (240, 256, 512) for subsampling in ((2, 2), (1, 1))]


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def layout(request, tmp_path_factory):
    """A slide of 1101 x 905 px of smooth noise in tiles of a layout, and its pixels as tifffile decodes them."""
    side, subsampling = request.param
    path = tmp_path_factory.mktemp("layouts") / "s.tiff"
    pixels = np.random.default_rng(0).integers(20, 250, (182, 222, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    how = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": subsampling, "metadata": None}
    tifffile.imwrite(path, pixels[:905, :1101], tile=(side, side), compressionargs={"level": 80}, **how)
    return path, tifffile.imread(path)


BOXES = st.tuples(*[st.integers(-300, 1200)] * 2, *[st.integers(1, 900)] * 2)


@hypothesis_settings(max_examples=15, deadline=None)
@given(BOXES, st.integers(1, 3))
def test_any_box_of_any_layout_is_what_openslide_and_tifffile_give(layout, box, threads):
    path, decoded = layout
    tiles = open_tiles(path, [(1101, 905)])
    found = tiles.read(0, box, 1, threads)
    tiles.close()
    np.testing.assert_array_equal(found, by_openslide(path, 0, box))
    np.testing.assert_array_equal(found, on_white(decoded, box))


def on_white(pixels, box):
    """A box of a picture that lies on white."""
    white = np.full((4000, 4000, 3), 255, np.uint8)
    white[1000 : 1000 + pixels.shape[0], 1000 : 1000 + pixels.shape[1]] = pixels
    x, y = box[0] + 1000, box[1] + 1000
    return white[y : y + box[3], x : x + box[2]]


@hypothesis_settings(max_examples=15, deadline=None)
@given(BOXES, st.integers(1, 3))
def test_half_the_scale_is_the_rounded_mean_of_four_pixels(layout, box, threads):
    """From any corner, within a tile's cells or across them; beyond the slide, of white."""
    path, decoded = layout
    x, y, width, height = box
    with Slide(path, 0.25, threads=threads) as slide:
        found = slide.read((x, y), (width, height), 0.5)
    whole = on_white(decoded, (x, y, 2 * width, 2 * height))
    mean = (whole.reshape(height, 2, width, 2, 3).sum((1, 3), dtype=np.uint16) + 2) // 4
    np.testing.assert_array_equal(found, mean)
    np.testing.assert_array_equal(found, cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("factor", [4, 5, 8])
@pytest.mark.parametrize("corner", [(0, 0), (-40, 40), (7, 3)])
def test_a_whole_factor_is_the_area_mean(layout, factor, corner):
    path, decoded = layout
    size = (1101 // factor + 9, 905 // factor + 9)
    with Slide(path, 0.1) as slide:
        found = slide.read(corner, size, 0.1 * factor)
    whole = on_white(decoded, (*corner, *(factor * side for side in size)))
    np.testing.assert_array_equal(found, cv2.resize(whole, size, interpolation=cv2.INTER_AREA))


def test_half_the_scale_of_plain_tiles_is_white_beyond_the_slide(tmp_path):
    """Of a width and height that are odd: the outermost cells hold px of the slide and white ones."""
    pixels = np.random.default_rng(0).integers(0, 255, (131, 147, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(64, 64), photometric="rgb", metadata=None)
    with Slide(tmp_path / "s.tif", 0.25) as slide:
        found = slide.read((0, 0), (80, 70), 0.5)
    whole = on_white(pixels, (0, 0, 160, 140)).reshape(70, 2, 80, 2, 3)
    np.testing.assert_array_equal(found, (whole.sum((1, 3), dtype=np.uint16) + 2) // 4)


def test_a_slide_is_read_from_several_threads_at_once(layout):
    path, _ = layout
    corners = [(x, y) for y in range(-100, 900, 190) for x in range(-100, 1000, 210)]
    with Slide(path, 0.25) as slide, ThreadPoolExecutor(8) as pool:
        for mpp in (0.25, 0.5):
            together = list(pool.map(lambda corner, mpp=mpp: slide.read(corner, (300, 280), mpp), corners))
            for corner, pixels in zip(corners, together, strict=True):
                np.testing.assert_array_equal(pixels, slide.read(corner, (300, 280), mpp))


def test_a_broken_tile_names_the_slide_and_the_place(noisy, tmp_path):
    whole = bytearray(noisy.read_bytes())
    tiles = open_tiles(noisy, [(700, 530)])
    start = int(tiles._levels[0].offsets[1, 2])
    tiles.close()
    whole[start + 300 : start + 400] = b"\xff" * 100
    (tmp_path / "broken.tiff").write_bytes(whole)
    tiles = open_tiles(tmp_path / "broken.tiff", [(700, 530)])
    with pytest.raises(SlideError, match=r"broken\.tiff: broken tile of level 0 at x=512, y=256 .*copy it again"):
        tiles.read(0, (0, 0, 700, 530), 1)
    tiles.read(0, (0, 0, 500, 530), 1)
    tiles.close()


def test_a_file_that_ends_early_is_named(noisy, tmp_path):
    tiles = open_tiles(noisy, [(700, 530)])
    last = int(tiles._levels[0].offsets.max())
    with (tmp_path / "torn.tiff").open("wb") as file:
        file.write(noisy.read_bytes())
    with (tmp_path / "torn.tiff").open("rb+") as file:
        torn = open_tiles(tmp_path / "torn.tiff", [(700, 530)])
        file.truncate(last + 10)
    with pytest.raises(SlideError, match=r"torn\.tiff: broken tile .*10 of its \d+ bytes are there"):
        torn.read(0, (0, 0, 700, 530), 1)
    torn.close()
    tiles.close()


@pytest.mark.parametrize(("quality", "photometric"), [(85, 6), (95, 2)], ids=["YCbCr", "RGB"])
def test_the_color_space_of_jpeg_tiles_is_the_one_the_directory_states(tmp_path, quality, photometric):
    """Tiles of either, which do not say it themselves, keep the color that was drawn."""
    image = pyvips.Image.new_from_array(np.full((128, 128, 3), (200, 60, 120), np.uint8)).copy(interpretation="srgb")
    image.tiffsave(str(tmp_path / "s.tif"), tile=True, compression="jpeg", Q=quality)  # RGB from Q 90 on
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        assert file.pages.first.photometric == photometric
    with Slide(tmp_path / "s.tif", 0.5) as slide:
        assert np.abs(slide.read((0, 0), (128, 128), 0.5).astype(int) - (200, 60, 120)).max() <= 3


LOSSLESS = [(None, {}, False), ("packbits", {}, False), ("jpeg2000", {"level": 0}, False)]
LOSSLESS += [("webp", {"lossless": True}, False), ("jpegxl", {"lossless": True}, False)]
LOSSLESS += [(name, {}, differences) for name in ("lzw", "zlib", "zstd") for differences in (False, True)]


@pytest.mark.parametrize(("compression", "arguments", "predictor"), LOSSLESS)
@pytest.mark.parametrize("samples", [3, 4])
def test_tiles_of_any_compression_are_what_was_written(tmp_path, compression, arguments, samples, predictor):
    """Smooth noise, over white where it is transparent."""
    pixels = np.random.default_rng(0).integers(0, 255, (30, 35, 4), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    pixels[:75, :, 3], pixels[75:, 90:, 3] = 255, 0
    how = {"tile": (64, 48), "photometric": "rgb", "compression": compression, "compressionargs": arguments}
    alpha = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        file.write(pixels[..., :samples], metadata=None, predictor=predictor, **how, **alpha)
    opacity = pixels[..., 3:] / 255 if samples == 4 else 1
    expected = pixels[..., :3] * opacity + 255 * (1 - opacity)
    with Slide(tmp_path / "s.tif", 0.5) as slide:
        shown = slide.read((-10, -10), (200, 180), 0.5)
    assert np.abs(shown[10:160, 10:185] - expected).max() <= 0.51
    assert (shown[:10] == 255).all()
    assert (shown[160:] == 255).all()


def test_what_opacity_multiplied_is_not_multiplied_again(tmp_path):
    """Half of red over white, stored as half of red."""
    pixels = np.full((64, 64, 4), (100, 0, 0, 128), np.uint8)
    how = {"tile": (64, 64), "photometric": "rgb", "extrasamples": ["assocalpha"], "metadata": None}
    tifffile.imwrite(tmp_path / "s.tif", pixels, **how)
    with Slide(tmp_path / "s.tif", 0.5) as slide:
        assert (slide.read((0, 0), (64, 64), 0.5) == (227, 127, 127)).all()


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "jpeg2000", "webp", "jpegxl"])
def test_a_torn_tile_of_any_compression_is_named(tmp_path, compression):
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression=compression, metadata=None)
    with tifffile.TiffFile(path) as file:
        counts, length = file.pages.first.tags["TileByteCounts"], file.pages.first.databytecounts[0]
    content = bytearray(path.read_bytes())
    at = counts.valueoffset
    content[at : at + counts.valuebytecount] = (length // 3).to_bytes(counts.valuebytecount, "little")
    path.write_bytes(content)
    with Slide(path, 0.5) as slide, pytest.raises(SlideError, match=r"s\.tif: broken tile of level 0 at x=0, y=0 \("):
        slide.read((0, 0), (128, 128), 0.5)


@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.sampled_from([-1, 0, 0, 0, 1])] * 2))
def test_a_jpeg_2000_of_another_size_than_its_tile_is_refused(size_px, change):
    data = imagecodecs.jpeg2k_encode(np.zeros((size_px[1], size_px[0], 3), np.uint8))
    expected = size_px[0] + change[0], size_px[1] + change[1]
    with nullcontext() if expected == size_px else pytest.raises(ValueError, match=rf"{size_px[0]} x {size_px[1]} px"):
        check_jpeg_2000(data, expected)
