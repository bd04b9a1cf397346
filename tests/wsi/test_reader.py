"""Slides are read at the asked um/px, and what is wrong with a slide is said."""

from dataclasses import replace

import numpy as np
import openslide
import pytest
import pyvips
import simplejpeg
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely import box

from slpd_core import artifacts
from slpd_core.slides.regions import select_regions
from slpd_core.wsi import identity, reader
from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.mpp import describe_contradiction, downsample_factor, is_plausible, resolve_mpp
from slpd_core.wsi.read_plan import ReadPlan, plan_read, resample
from slpd_core.wsi.reader import Slide
from slpd_core.wsi.region_reader import iter_region_pixels
from slpd_core.wsi.writer import write_slide

RED, BLUE = (220, 30, 40), (40, 40, 200)


def close(pixels, colour, tolerance=6):
    return (np.abs(pixels.astype(int) - colour) <= tolerance).all()


@pytest.mark.parametrize(
    ("downsamples", "shrinks", "scale", "expected"),
    [
        ((1.0, 4.0), ((), ()), 1.0, ReadPlan(0, 1, (400, 800, 100, 80), (100, 80))),
        ((1.0, 4.0), ((), ()), 2.0, ReadPlan(0, 1, (400, 800, 200, 160), (100, 80))),
        ((1.0, 4.0), ((1, 2, 4), (1, 2)), 2.0, ReadPlan(0, 2, (200, 400, 100, 80), (100, 80))),
        ((1.0, 2.0, 4.0), ((1, 2, 4), (1, 2), (1,)), 2.0, ReadPlan(1, 1, (200, 400, 100, 80), (100, 80))),
        ((1.0, 4.0), ((1, 2), (1, 2)), 16.0, ReadPlan(1, 2, (50, 100, 200, 160), (100, 80))),
        ((1.0, 4.0), ((1, 2), ()), 4.0, ReadPlan(1, 1, (100, 200, 100, 80), (100, 80))),
        ((1.0,), ((1, 2, 4, 8),), 1.98, ReadPlan(0, 2, (200, 400, 99, 79.2), (100, 80))),
        ((1.0,), ((1, 2, 4, 8),), 1.9, ReadPlan(0, 1, (400, 800, 190, 152), (100, 80))),
        ((1.0,), ((1,),), 0.99, ReadPlan(0, 1, (400, 800, 99, 79.2), (100, 80))),
    ],
)
def test_the_plan_takes_the_coarsest_way_that_is_fine_enough(downsamples, shrinks, scale, expected):
    plan = plan_read(downsamples, shrinks, scale, (400, 800), (100, 80))
    assert (plan.level, plan.jpeg_scale, plan.out_px) == (expected.level, expected.jpeg_scale, expected.out_px)
    assert plan.box == pytest.approx(expected.box)


@given(st.floats(1.0, 60.0), st.lists(st.floats(1.5, 4.0), max_size=6), st.sampled_from([(), (1, 2, 4, 8)]))
def test_a_plan_never_enlarges(scale, steps, shrinks):
    downsamples = tuple(np.cumprod([1.0, *steps]))
    plan = plan_read(downsamples, [shrinks] * len(downsamples), scale, (0, 0), (1000, 1000))
    assert plan.box[2] >= 0.98 * plan.out_px[0]


def test_finer_than_the_slide_is_refused(planted):
    with pytest.raises(ValueError, match=r"finer than the slide"):
        plan_read((1.0,), ((),), 0.5, (0, 0), (10, 10))
    with (
        Slide(planted((300, 200), {})) as slide,
        pytest.raises(ValueError, match=r"cannot be read at 0\.25 um/px; ask for"),
    ):
        slide.read((0, 0), (10, 10), 0.25)


@pytest.mark.parametrize("slide_mpp", [*np.linspace(0.5, 0.5204, 24), 0.5101, 0.5102])
def test_what_is_little_finer_than_the_slide_is_refused_or_read_but_never_neither(tmp_path, slide_mpp):
    write_slide(tmp_path / "s.tiff", np.full((64, 64, 3), 200, np.uint8), 0.5)
    with Slide(tmp_path / "s.tiff", slide_mpp) as slide:
        if slide_mpp < 0.51:
            assert slide.read((0, 0), (32, 32), 0.5).shape == (32, 32, 3)
        elif slide_mpp > 0.5103:
            with pytest.raises(ValueError, match="cannot be read at"):
                slide.read((0, 0), (32, 32), 0.5)


@pytest.mark.parametrize(
    ("slide_mpp", "mpp", "scale"),
    [(0.499, 0.5, 1.0), (0.25, 0.5, 2.0), (0.2502, 0.5, 2.0), (0.2525, 0.5, 0.5 / 0.2525), (0.504, 0.5, 0.5 / 0.504)],
)
def test_a_scale_is_whole_where_the_scanner_means_it(slide_mpp, mpp, scale):
    assert downsample_factor(slide_mpp, mpp) == scale


@pytest.mark.parametrize("slide_mpp", [0.5, 0.499, 0.25, 0.2525, 0.504, 0.1725])
def test_what_is_read_of_a_region_is_what_the_grid_lays(slide_mpp):
    """The side that `regions` steps by and the side that `read` covers are the same level-0 px."""
    side = 40_000
    slide = artifacts.SlideInfo("s", artifacts.OK, "", side, side, slide_mpp, "sheet", "")
    laid = select_regions(artifacts.Tissue(slide, (box(0, 0, side, side),)))
    plan = plan_read((1.0, 4.0), ((), ()), downsample_factor(slide_mpp, 0.5), (0, 0), (laid.size_px, laid.size_px))
    assert plan.box[2] == pytest.approx(laid.size_level0_px, abs=1)


def area_mean(pixels, out_px):
    """Exact mean over fractional px, one axis after the other, by differences of the running sum."""
    for axis, count in ((0, out_px[1]), (1, out_px[0])):
        total = np.concatenate([np.zeros_like(pixels.take([0], axis), float), pixels.cumsum(axis, dtype=float)], axis)
        edges = np.linspace(0, pixels.shape[axis], count + 1)
        low = np.minimum(edges.astype(int), pixels.shape[axis] - 1)
        share = np.expand_dims(edges - low, tuple(number for number in range(3) if number != axis))
        sums = total.take(low, axis) * (1 - share) + total.take(low + 1, axis) * share
        pixels = np.diff(sums, axis=axis) * count / pixels.shape[axis]
    return pixels


@pytest.mark.parametrize("out_px", [(60, 40), (61, 53), (97, 33), (119, 79), (120, 80)])
def test_coarser_is_the_area_mean(out_px):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)
    found = resample(pixels, (0, 0, 120, 80), out_px)
    assert np.abs(found - area_mean(pixels, out_px)).max() <= 1


@pytest.mark.parametrize(
    ("box", "out_px"),
    [((10.5, 20.25, 80, 60), (100, 75)), ((10, 20, 99.2, 74.4), (100, 75)), ((0, 0, 119, 99), (120, 100))],
)
def test_finer_keeps_things_where_they_are(box, out_px):
    """A smooth picture read through a box of fractions: the values at the places the box says."""
    y, x = np.mgrid[:100, :120] * 2.0
    pixels = np.stack([x, y, x / 2 + y / 2], axis=2)
    found = resample(pixels.astype(np.uint8), box, out_px).astype(float)
    rows, columns = np.mgrid[: out_px[1], : out_px[0]] + 0.5
    assert found.shape == (out_px[1], out_px[0], 3)
    assert np.abs(found[..., 0] - 2 * (box[0] + columns * box[2] / out_px[0] - 0.5)).max() < 1.1
    assert np.abs(found[..., 1] - 2 * (box[1] + rows * box[3] / out_px[1] - 0.5)).max() < 1.1


@pytest.mark.parametrize("slide_mpp", [0.5, 0.25])
def test_a_square_is_found_where_it_was_planted(planted, slide_mpp):
    scale = round(0.5 / slide_mpp)
    square = tuple(number * scale for number in (320, 192, 64, 96))
    path = planted((700 * scale, 500 * scale), {square: RED}, mpp=slide_mpp)
    with Slide(path) as slide:
        assert slide.size == (700 * scale, 500 * scale)
        assert slide.mpp == pytest.approx(slide_mpp, rel=1e-3)
        pixels = slide.read((304 * scale, 176 * scale), (96, 128), 0.5)
    assert pixels.shape == (128, 96, 3)
    assert close(pixels[20:108, 20:76], RED, 25)
    assert close(pixels[:12], (244, 244, 244), 25)
    assert close(pixels[:, :12], (244, 244, 244), 25)


@pytest.mark.parametrize("slide_mpp", [0.5, 0.25])
def test_a_slide_of_one_level_is_read(tmp_path, slide_mpp):
    """A square of 100 px at 0.5 um/px, on a slide that is no multiple of its tiles, wherever its pixels come from."""
    scale = round(0.5 / slide_mpp)
    pixels = np.full((530 * scale, 470 * scale, 3), 244, np.uint8)
    pixels[200 * scale : 300 * scale, 100 * scale : 200 * scale] = RED
    image = pyvips.Image.new_from_array(pixels)
    for compression in ("jpeg", "lzw"):
        image.tiffsave(str(tmp_path / f"{compression}.tiff"), tile=True, compression=compression, Q=90)
        with Slide(tmp_path / f"{compression}.tiff", slide_mpp) as slide:
            found = slide.read((0, 0), (512, 544), 0.5)
            thumbnail = slide.thumbnail(4.0)
        assert close(found[206:294, 106:194], RED, 12)
        assert close(found[:190, :470], (244, 244, 244), 12)
        assert (found[530:] == 255).all()
        assert (found[:, 470:] == 255).all()
        assert thumbnail.shape == (-(-530 // 8), -(-470 // 8), 3)
        assert close(thumbnail[27:36, 14:24], RED, 12)


def test_a_tile_that_is_missing_is_an_error_never_white(tmp_path):
    """The byte count of the second tile set to 0; white where the settings say so, and then it is said."""
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    path = tmp_path / "holed.tiff"
    image = pyvips.Image.new_from_array(pixels)
    image.tiffsave(str(path), tile=True, compression="lzw", tile_width=256, tile_height=256)
    with tifffile.TiffFile(path) as file:
        counts = file.pages.first.tags["TileByteCounts"]
    content = bytearray(path.read_bytes())
    size = counts.valuebytecount // counts.count
    content[counts.valueoffset + size : counts.valueoffset + 2 * size] = bytes(size)
    path.write_bytes(content)
    with Slide(path, 0.5) as slide:
        np.testing.assert_array_equal(slide.read((0, 256), (512, 256), 0.5), pixels[256:])
        with pytest.raises(SlideError, match=r"holed\.tiff: missing tile of level 0 at x=256, y=0; .*missing_tiles"):
            slide.read((0, 0), (512, 512), 0.5)
    pixels[:256, 256:] = 255
    with Slide(path, 0.5, missing_tiles="white") as slide:
        np.testing.assert_array_equal(slide.read((0, 0), (512, 512), 0.5), pixels)
        assert slide.remarks == ("1 of the 4 tiles of level 0 are missing and read as white (tissue.missing_tiles).",)


@given(
    st.tuples(*[st.integers(-3, 12)] * 2),
    st.tuples(*[st.integers(1, 12)] * 2),
    st.tuples(st.integers(0, 9), st.integers(0, 7)),
)
def test_a_transparent_pixel_is_missing_unless_it_is_outermost(corner, size, pixel):
    """A level of 10 x 8 px, its outside transparent as OpenSlide returns it, and one of its pixels."""
    level = np.zeros((40, 40), np.uint8)  # its pixel (0, 0) is at (10, 10)
    level[10:18, 10:20] = 255
    level[10 + pixel[1], 10 + pixel[0]] = 0
    rows, columns = (
        slice(10 + first, 10 + first + count) for first, count in zip(corner[::-1], size[::-1], strict=True)
    )
    rgba = Image.merge("RGBA", [Image.fromarray(level[rows, columns])] * 4)
    inside = all(corner[i] <= pixel[i] < corner[i] + size[i] for i in (0, 1))
    outermost = pixel[0] in (0, 9) or pixel[1] in (0, 7)
    assert reader._lacks_tiles(rgba, (*corner, *size), (10, 8)) == (inside and not outermost)


@pytest.mark.parametrize("jpeg_scaled_decoding", [True, False])
def test_finer_levels_are_averaged(tmp_path, jpeg_scaled_decoding):
    checker = np.zeros((512, 512, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 200
    write_slide(tmp_path / "s.tiff", checker, 0.25)
    with Slide(tmp_path / "s.tiff", jpeg_scaled_decoding=jpeg_scaled_decoding) as slide:
        assert close(slide.read((0, 0), (256, 256), 0.5)[8:-8, 8:-8], (100, 100, 100), 12)


def test_without_scaled_decoding_half_the_scale_is_the_mean_of_whole_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(noise)
    image.tiffsave(str(tmp_path / "s.tif"), tile=True, compression="jpeg", Q=75, tile_width=256, tile_height=256)
    read = {}
    for scaled in (True, False):
        with Slide(tmp_path / "s.tif", 0.25, jpeg_scaled_decoding=scaled) as slide:
            read[scaled] = slide.read((0, 0), (128, 128), 0.5).astype(int)
            whole = slide.read((0, 0), (256, 256), 0.25)
    mean = whole.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(read[False] - mean).max() <= 1
    assert np.abs(read[True] - mean).max() > 1


def test_a_thumbnail_is_decoded_smaller_whatever_reads_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(noise)
    image.tiffsave(str(tmp_path / "s.tif"), tile=True, compression="jpeg", Q=75, tile_width=256, tile_height=256)
    shown = []
    for scaled in (False, True):
        with Slide(tmp_path / "s.tif", 0.5, jpeg_scaled_decoding=scaled) as slide:
            shown += [slide.thumbnail(4.0), slide.read((0, 0), (64, 64), 4.0)]
    np.testing.assert_array_equal(shown[0], shown[2])
    np.testing.assert_array_equal(shown[2], shown[3])
    assert (shown[0] != shown[1]).any()


def test_outside_the_slide_is_white(planted):
    path = planted((300, 200), {(0, 0, 300, 200): BLUE})
    with Slide(path) as slide:
        pixels = slide.read((256, 128), (128, 128), 0.5)
    assert close(pixels[:64, :40], BLUE, 20)
    assert (pixels[80:] == 255).all()
    assert (pixels[:, 48:] == 255).all()


def test_level_0_is_what_openslide_gives(planted):
    path = planted((900, 700), {(100, 200, 300, 200): RED, (500, 100, 200, 300): BLUE})
    expected = np.asarray(openslide.OpenSlide(str(path)).read_region((90, 130), 0, (512, 400)).convert("RGB"))
    with Slide(path) as slide:
        np.testing.assert_array_equal(slide.read((90, 130), (512, 400), 0.5), expected)


def test_a_thumbnail_is_the_whole_slide(planted):
    path = planted((2000, 1000), {(1000, 0, 1000, 1000): BLUE})
    with Slide(path) as slide:
        pixels = slide.thumbnail(4.0)
        assert slide.thumbnail(0.1).shape == (1000, 2000, 3)
    assert pixels.shape == (125, 250, 3)
    assert close(pixels[:112, 140:240], BLUE, 10)


OME = """<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeC="3" SizeT="1" SizeX="1400"
 SizeY="1000" SizeZ="1" PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="{y}" PhysicalSizeYUnit="µm">
<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>"""


@pytest.fixture
def write_tiff(tmp_path):
    """Write 1400 x 1000 px, the upper left quarter red and the rest white, with libvips; gives the path."""

    def write(description: str = OME.format(y=0.5), **options):
        pixels = np.full((1000, 1400, 3), 255, np.uint8)
        pixels[:500, :700] = RED
        picture = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
        picture.set_type(pyvips.GValue.gstr_type, "image-description", description)
        path = tmp_path / "s.ome.tiff"
        picture.tiffsave(str(path), tile=True, tile_width=256, tile_height=256, bigtiff=True, **options)
        return path

    return write


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "none"])
@pytest.mark.parametrize("subifd", [True, False])
def test_a_pyramid_of_plain_or_ome_tiff_is_read_at_its_levels(write_tiff, compression, subifd):
    """The coarser levels lie one page after the other or below the first; read though level 0's tiles are gone."""
    path = write_tiff(compression=compression, pyramid=True, subifd=subifd)
    with Slide(path) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "ome")
        assert close(slide.read((640, 440), (128, 128), 0.5)[:52, :52], RED)
    with tifffile.TiffFile(path) as file:
        tiles = list(zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True))
    with path.open("rb+") as file:
        for offset, length in tiles:
            file.seek(offset)
            file.write(bytes(length))
    with Slide(path) as slide:
        pixels = slide.thumbnail(2.0)
        beyond = slide.read((-400, 600), (300, 200), 2.0)
    assert pixels.shape == (250, 350, 3)
    assert close(pixels[:108, :158], RED, 10)
    assert close(pixels[142:], 255, 16)
    assert close(pixels[:, 192:], 255, 16)
    assert close(beyond, 255)


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_broken_tile_of_an_ome_tiff_is_named(write_tiff, compression, number):
    path = write_tiff(compression=compression, pyramid=True, subifd=True)
    with tifffile.TiffFile(path) as file:
        page = [file.pages.first, *file.pages.first.pages][number]
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    with path.open("rb+") as file:
        file.seek(offset + length // 2)
        file.write(b"\xff" * (length // 2))
    with Slide(path) as slide, pytest.raises(SlideError, match=rf"s\.ome\.tiff: broken .* level {number} "):
        slide.read((0, 0), (200, 200), 0.5 * 2**number)


def test_an_ome_tiff_of_separate_channels_is_refused(tmp_path):
    """OpenSlide would give its first channel as a grey slide."""
    planes = np.zeros((3, 512, 512), np.uint8)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "s.ome.tiff", planes, tile=(256, 256), photometric="minisblack", metadata=metadata)
    with pytest.raises(
        SlideError, match=r"s\.ome\.tiff: 3 pictures of 512 x 512 px, colors or channels, .*save it as RGB"
    ):
        Slide(tmp_path / "s.ome.tiff")


@pytest.mark.parametrize(
    ("properties", "sheet_mpp", "expected"),
    [
        ({"openslide.mpp-x": "0.498", "openslide.mpp-y": "0.502"}, None, (0.5, "vendor")),
        ({"openslide.mpp-x": "0.4", "openslide.mpp-y": "0.4"}, 0.25, (0.25, "sheet")),
        (
            {"openslide.mpp-x": "0.4", "openslide.mpp-y": "0.4", "openslide.vendor": "generic-tiff"},
            None,
            (0.4, "tiff resolution"),
        ),
        (
            {"openslide.comment": OME.format(y=0.5), "openslide.mpp-x": "0.4", "openslide.mpp-y": "0.3"},
            None,
            (0.5, "ome"),
        ),
        (
            {"openslide.comment": OME.format(y=0.5).replace('0.5"', '500"').replace("µm", "nm")},
            None,
            (0.5, "ome"),
        ),
        (
            {"openslide.comment": OME.format(y=0.5).replace("µm", "pixel"), "openslide.objective-power": "20"},
            None,
            (0.5, "objective power"),
        ),
        ({"tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, None, (0.5, "tiff resolution")),
        ({"tiff.XResolution": "50800", "tiff.ResolutionUnit": "inch"}, None, (0.5, "tiff resolution")),
        ({"openslide.objective-power": "40"}, None, (0.25, "objective power")),
        ({"openslide.mpp-x": "n/a", "openslide.objective-power": "20"}, None, (0.5, "objective power")),
        (
            {"tiff.XResolution": "72", "tiff.ResolutionUnit": "inch", "openslide.objective-power": "40"},
            None,
            (0.25, "objective power"),
        ),
    ],
)
def test_the_sources_of_an_mpp_in_their_order(properties, sheet_mpp, expected, tmp_path):
    assert resolve_mpp(properties, sheet_mpp, tmp_path) == expected


def test_no_mpp_names_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"s\.svs: no um/px .* column mpp of the sheet"):
        resolve_mpp({"tiff.ResolutionUnit": "inch"}, None, tmp_path / "s.svs")


@pytest.mark.parametrize("mpp", [0.005, 29.0, float("nan"), -0.5])
def test_an_implausible_mpp_is_refused(tmp_path, mpp):
    with pytest.raises(ValueError, match=r"s\.svs: .* is implausible"):
        resolve_mpp({}, mpp, tmp_path / "s.svs")


def test_the_range_of_mpp_holds_its_ends():
    """0.05 and 5 um/px are the finest and the coarsest that are read."""
    assert [is_plausible(mpp) for mpp in (0.05, 5.0)] == [True, True]
    assert [is_plausible(mpp) for mpp in (np.nextafter(0.05, 0), np.nextafter(5.0, 6))] == [False, False]


def test_an_implausible_mpp_of_the_vendor_is_an_error_never_passed_over(tmp_path):
    """Resolution tags may be those of a screen; what a scanner states is believed, or the slide is refused."""
    properties = {"openslide.mpp-x": "29", "openslide.mpp-y": "29", "openslide.objective-power": "40"}
    with pytest.raises(SlideError, match=r"s\.svs: 29 um/px \(vendor\) is implausible"):
        resolve_mpp(properties, None, tmp_path / "s.svs")


@pytest.mark.parametrize(
    ("properties", "sheet_mpp", "said"),
    [
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, 0.25, "0.25 um/px, the slide itself 0.5 (vendor)"),
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, 0.53, "0.53 um/px, the slide itself 0.5 (vendor)"),
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, 0.52, ""),
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, None, ""),
        ({"openslide.comment": OME.format(y=0.5)}, 0.25, "the slide itself 0.5 (ome)"),
        ({"tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, 0.25, "0.5 (tiff resolution)"),
        ({"tiff.XResolution": "72", "tiff.ResolutionUnit": "inch"}, 0.25, ""),
        ({"openslide.objective-power": "20"}, 0.25, ""),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, 0.25, ""),
        ({}, 0.25, ""),
    ],
)
def test_a_sheet_that_contradicts_the_slide_is_named(properties, sheet_mpp, said):
    """By more than 5 %, and where the slide states something that is worth as much."""
    remark = describe_contradiction(properties, sheet_mpp)
    assert said in remark
    assert bool(said) == bool(remark)


def test_an_mpp_that_differs_along_x_and_y_is_refused(tmp_path):
    with pytest.raises(SlideError, match=r"s\.svs: 0\.25 um/px along x but 0\.5 along y \(vendor\)"):
        resolve_mpp({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, None, tmp_path / "s.svs")
    with pytest.raises(SlideError, match=r"0\.5 um/px along x but 0\.25 along y \(ome\)"):
        resolve_mpp({"openslide.comment": OME.format(y=0.25)}, None, tmp_path / "s.svs")
    with pytest.raises(SlideError, match=r"0\.5 um/px along x but 0\.51\d* along y"):  # 2 % apart and a little more
        resolve_mpp({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.511"}, None, tmp_path / "s.svs")
    mpp, source = resolve_mpp({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.509"}, None, tmp_path / "s.svs")
    assert (mpp, source) == (pytest.approx(0.5045), "vendor")


def test_what_is_no_slide_is_named(tmp_path):
    (tmp_path / "notes.svs").write_text("no slide")
    with pytest.raises(ValueError, match=r"notes\.svs: not a whole slide"):
        Slide(tmp_path / "notes.svs")
    with pytest.raises(FileNotFoundError, match=r"gone\.svs: no such file"):
        Slide(tmp_path / "gone.svs")


def test_regions_are_read_at_the_mpp_by_which_they_were_laid(planted):
    """The file says 0.5 um/px, the sheet 0.25: at 0.5 the region is twice as wide on the slide."""
    path = planted((512, 512), {(128, 0, 128, 512): RED}, 0.5)
    slide = artifacts.SlideInfo("s", artifacts.OK, "", 512, 512, 0.25, "sheet", identity.slide_fingerprint(path))
    regions = artifacts.Regions(slide, np.zeros((1, 2), np.int64), np.ones(1, np.float32), 128, 256, 0.5)
    (pixels,) = iter_region_pixels(path, regions, raise_slide_error=True)
    assert close(pixels[:, 72:120], RED, 25)
    assert close(pixels[:, :56], (244, 244, 244), 25)


def test_regions_are_read_as_their_tissue_was_with_tiles_missing_or_not(tmp_path):
    path = tmp_path / "s.tif"
    how = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "compression": "jpeg", "shape": (64, 128, 3)}
    tile = simplejpeg.encode_jpeg(np.full((64, 64, 3), RED, np.uint8), quality=95)
    tifffile.imwrite(path, iter([tile, b""]), dtype=np.uint8, **how | {"photometric": "ycbcr"})
    slide = artifacts.SlideInfo("s", artifacts.OK, "", 128, 64, 0.5, "sheet", identity.slide_fingerprint(path))
    regions = artifacts.Regions(slide, np.array([[64, 0]]), np.ones(1, np.float32), 64, 64, 0.5)
    with pytest.raises(SlideError, match=r"missing tile of level 0 at x=64, y=0"):
        list(iter_region_pixels(path, regions, raise_slide_error=True))
    white = replace(regions, slide=replace(slide, missing_tiles="white"))
    assert (next(iter_region_pixels(path, white, raise_slide_error=True)) == 255).all()


@pytest.mark.parametrize("raise_slide_error", [False, True])
def test_regions_of_a_slide_that_was_replaced_are_not_read(planted, raise_slide_error):
    """Not even where what is broken is quarantined: the slide is none of that."""
    path = planted((512, 512), {}, 0.5)
    slide = artifacts.SlideInfo("s", artifacts.OK, "", 512, 512, 0.5, "sheet", identity.slide_fingerprint(path))
    regions = artifacts.Regions(slide, np.zeros((1, 2), np.int64), np.ones(1, np.float32), 256, 256, 0.5)
    assert len(list(iter_region_pixels(path, regions, raise_slide_error=raise_slide_error))) == 1
    planted((512, 512), {(0, 0, 99, 99): RED}, 0.5)
    with pytest.raises(ValueError, match=r"planted\.tiff: replaced since the tissue of s was found") as failed:
        list(iter_region_pixels(path, regions, raise_slide_error=raise_slide_error))
    assert not isinstance(failed.value, SlideError)


def test_a_read_that_would_take_all_memory_is_refused(planted):
    with Slide(planted((300, 200), {})) as slide, pytest.raises(ValueError, match="too many at once"):
        slide.read((0, 0), (1_000_000, 1_000_000), 0.5)


def test_broken_pixels_are_an_error_never_white(real, tmp_path):
    whole = bytearray(real("cmu-1-small-region.svs").read_bytes())
    start = len(whole) // 10
    whole[start : start + 200_000] = bytes(200_000)
    broken = tmp_path / "broken.svs"
    broken.write_bytes(whole)
    with (
        Slide(broken) as slide,
        pytest.raises(ValueError, match=r"broken\.svs: broken tile of level 0 at x=\d+, y=\d+"),
    ):
        slide.read((0, 0), slide.size, slide.mpp)


@pytest.mark.parametrize(
    ("name", "mpp", "expected"),
    [("cmu-1-small-region.svs", None, (0.499, "vendor")), ("tcga-cr-7395-01a-01-ts1.svs", 0.25, (0.25, "sheet"))],
)
def test_real_slides_are_read(real, name, mpp, expected):
    with Slide(real(name), mpp) as slide:
        assert (slide.mpp, slide.mpp_source) == expected
        assert slide.read((0, 0), (256, 256), 0.5).std() > 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tcga-cr-7395-01a-01-ts1.svs", "no um/px"),
        ("CMU-1-Small-Region.jpeg.tiff", r"0\.00499 um/px \(tiff resolution\) is implausible"),
        ("multiframe_camelyon_challenge_image.dcm", r"28\.9685 um/px \(vendor\) is implausible"),
    ],
)
def test_real_slides_with_a_wrong_mpp_say_so(real, name, what):
    with pytest.raises(ValueError, match=what):
        Slide(real(name))
