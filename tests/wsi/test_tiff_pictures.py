"""Of the pictures in a TIFF the slide is chosen by rule and said, or the file is refused by name with the remedy."""

import struct

import numpy as np
import pytest
import tifffile

from slpd_core.wsi.errors import SlideError
from slpd_core.wsi.reader import Slide

RGB = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None}
GRAY = RGB | {"photometric": "minisblack"}
HALF_UM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
SLIDE, OVERVIEW = (200, 60, 120), (20, 200, 40)


def picture(color, width=256, height=192):
    """One color, a little darker to the right and below, so that a place is known by its value."""
    y, x = np.mgrid[:height, :width]
    return (np.array(color) - (x / width * 16 + y / height * 4)[..., None]).round().astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    """Write pages, each (pixels, options of tifffile); gives the path."""

    def save(*pages, name="s.tif", **options):
        with tifffile.TiffWriter(tmp_path / name, **options) as file:
            for pixels, how in pages:
                file.write(pixels, **HALF_UM | how)
        return tmp_path / name

    return save


def ome(axes="YXS", **sizes):
    return {"metadata": {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, **sizes}}


def check_reads(path, pixels, remark, mpp=None, source="tiff resolution"):
    """The whole of level 0 is `pixels`, at 0.5 um/px; the choice is said in one remark, or in none."""
    with Slide(path, mpp) as slide:
        assert (slide.size, slide.mpp, slide.mpp_source) == (pixels.shape[1::-1], 0.5, source)
        np.testing.assert_array_equal(slide.read((0, 0), slide.size, 0.5), pixels)
        assert len(slide.remarks) == bool(remark)
        assert remark in "".join(slide.remarks)


def test_a_picture_of_its_own_needs_no_word(write):
    check_reads(write((picture(SLIDE), RGB)), picture(SLIDE), "")


def test_a_label_behind_the_slide_needs_no_word(write):
    check_reads(write((picture(SLIDE), RGB), (picture(OVERVIEW, 24, 16), RGB)), picture(SLIDE), "")
    label_first = write((picture(OVERVIEW, 24, 16), RGB), (picture(SLIDE), RGB))
    check_reads(label_first, picture(SLIDE), "(24 x 16, 256 x 192 px) only the largest is read")


@pytest.mark.parametrize("reduced", [0, 1])
def test_an_overview_before_the_slide_is_passed_over(write, reduced):
    overview = picture(OVERVIEW, 64, 64), RGB | {"subfiletype": reduced}
    said = "Of the file's 2 pictures (64 x 64, 256 x 192 px) only the largest is read, 256 x 192 px."
    check_reads(write(overview, (picture(SLIDE), RGB)), picture(SLIDE), said)


@pytest.mark.parametrize(("mpp", "source"), [(None, "ome"), (0.5, "sheet")])
def test_the_scale_is_that_of_the_picture_that_is_read(write, mpp, source):
    """The overview states none, and is never read at the slide's."""
    overview = picture(OVERVIEW, 64, 48), RGB | {"metadata": {"axes": "YXS", "Name": "overview"}}
    slide = picture(SLIDE), RGB | ome() | {"resolution": (72, 72), "resolutionunit": "INCH"}
    path = write(overview, slide, name="s.ome.tif", ome=True)
    check_reads(path, picture(SLIDE), "only the largest is read", mpp, source)


def test_levels_follow_their_own_picture(write):
    """The level of the slide is the page that is said to be a smaller copy and is larger than the overview."""
    level = RGB | {"subfiletype": 1}
    pages = (picture(SLIDE), RGB), (picture(OVERVIEW, 96, 96), RGB), (picture(OVERVIEW, 48, 48), level)
    path = write(*pages, (picture(SLIDE, 128, 96), level))
    with Slide(path) as slide:
        assert np.abs(slide.read((0, 0), (128, 96), 1.0).astype(int) - picture(SLIDE, 128, 96)).max() <= 1
        assert slide._downsamples == [1.0, 2.0]


@pytest.mark.parametrize(
    ("pages", "what"),
    [
        (
            [GRAY, GRAY, GRAY],
            r"3 pictures of 256 x 192 px, colors or channels, .*vips bandjoin .* --interpretation srgb",
        ),
        ([RGB, RGB, RGB], r"3 pictures of 256 x 192 px, planes of focus.*vips tiffload IN OUT.tif.* --page 0"),
        ([GRAY | {"extrasamples": [0, 0], "planarconfig": "contig"}], "marked as gray, .* --interpretation srgb"),
    ],
    ids=["colors", "focus", "marked as gray"],
)
def test_planes_are_refused_by_name(write, pages, what):
    values = [
        picture(SLIDE) if how["photometric"] == "rgb" or len(pages) == 1 else picture(SLIDE)[..., 0] for how in pages
    ]
    with pytest.raises(SlideError, match=rf"s\.tif: .*{what}"):
        Slide(write(*zip(values, pages, strict=True)), 0.5)


@pytest.mark.parametrize("place", [0, 1])
def test_beside_one_in_color_a_mask_of_its_size_is_none_of_the_slides(write, place):
    pages = [(picture(SLIDE), RGB)]
    pages.insert(place, (picture(SLIDE)[..., 0], GRAY))
    check_reads(write(*pages), picture(SLIDE), "Of the file's 2 pictures")


@pytest.mark.parametrize(
    ("axis", "said"), [("SizeZ", "3 channels, 5 planes of focus"), ("SizeT", "3 channels, 5 times")]
)
def test_planes_that_lie_in_other_files_are_refused_by_name(write, axis, said):
    """An OME-TIFF of several files: each holds one plane, its XML tells of all."""
    text = f'<OME><Image><Pixels SizeX="256" SizeY="192" SizeC="3" {axis}="5"><Channel/></Pixels></Image></OME>'
    with pytest.raises(SlideError, match=rf"s\.tif: an OME-TIFF of {said}, each a picture of its own"):
        Slide(write((picture(SLIDE), RGB | {"description": text})), 0.5)


def test_an_svs_of_several_planes_of_focus_is_refused(write):
    how = RGB | {"compression": "jpeg", "description": "Aperio Image Library v11\r\n256x192 |AppMag = 20|MPP = 0.5"}
    with pytest.raises(SlideError, match=r"s\.svs: several pictures of 256 x 192 px, planes of focus"):
        Slide(write((picture(SLIDE), how), (picture(SLIDE), how), name="s.svs"))


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_rotated_slide_is_refused(write, orientation):
    how = RGB | {"extratags": [(274, "H", 1, orientation, True)]}
    with pytest.raises(SlideError, match=rf"s\.tif: .*orientation {orientation}\); convert it: vips autorot"):
        Slide(write((picture(SLIDE), how)), 0.5)


def test_an_upright_slide_is_not(write):
    check_reads(write((picture(SLIDE), RGB | {"extratags": [(274, "H", 1, 1, True)]})), picture(SLIDE), "")


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_padded_levels_show_the_place_they_were_drawn_for(write, compression):
    """Each level filled up with black to whole tiles; what is read of the coarser ones is level 0, shrunk."""
    how = {**RGB, "compression": compression, "compressionargs": {"level": 95 if compression == "jpeg" else 6}}
    whole = picture((250, 120, 200), 704, 576)
    levels = [whole, whole.reshape(288, 2, 352, 2, 3).mean((1, 3)), whole.reshape(144, 4, 176, 4, 3).mean((1, 3))]
    pages = []
    for number, level in enumerate(levels):
        filled = np.zeros((*(-(-side // 64) * 64 for side in level.shape[:2]), 3), np.uint8)
        filled[: level.shape[0], : level.shape[1]] = level.round()
        pages.append((filled, how | {"subfiletype": int(number > 0)}))
    with Slide(write(*pages)) as slide:
        for factor, level in ((2, levels[1]), (4, levels[2])):
            corner = slide.read((704 - 64 * factor, 576 - 64 * factor), (64, 64), 0.5 * factor).astype(int)
            assert np.abs(corner - level[-64:, -64:])[:-8, :-8].max() <= 3  # a JPEG's blocks mix with the black
            assert (slide.read((0, 576), (64, 64), 0.5 * factor) == 255).all()
        assert "padded to whole tiles" in "".join(slide.remarks)


def test_padded_levels_that_openslide_reads_are_placed_too(write):
    """An SVS of Deflate tiles; by the mean of both ratios, as OpenSlide places them, the corner lies 100 px off."""
    how = RGB | {"compression": "zlib", "description": "Aperio Image Library v11\r\n704x576 |AppMag = 20|MPP = 0.5"}
    whole = picture((250, 120, 200), 704, 576)
    filled = np.zeros((320, 384, 3), np.uint8)
    filled[:288, :352] = whole.reshape(288, 2, 352, 2, 3).mean((1, 3)).round()
    with Slide(write((whole, how), (filled, how), name="s.svs")) as slide:
        corner = slide.read((704 - 128, 576 - 128), (64, 96), 1.0).astype(int)
        assert slide._downsamples == [1.0, 2.0]
    assert np.abs(corner[:63, :63] - filled[224:287, 288:351]).max() <= 2
    assert (corner[65:] == 255).all()


def test_padded_levels_of_a_dicom_slide_are_placed(real, tmp_path):
    """A second level of 3 x 2 whole tiles for the 576 x 350 px that are half of the first."""
    content = real("multiframe_camelyon_challenge_image.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content)
    at = content.index(struct.pack("<HH", 8, 0x18) + b"UI") + 8
    name = content[at : at + content[at - 2]].rstrip(b"\0")
    level = content.replace(name, name[:-1] + (b"1" if name[-1:] != b"1" else b"2"))
    for tag, kind, value in (((0x48, 6), b"UL", struct.pack("<I", 768)), ((0x48, 7), b"UL", struct.pack("<I", 512))):
        at = level.index(struct.pack("<HH", *tag) + kind) + 8
        level = level[:at] + value + level[at + len(value) :]
    at = level.index(struct.pack("<HH", 0x28, 8) + b"IS") + 8
    (tmp_path / "b.dcm").write_bytes(level[:at] + b"6 " + level[at + 2 :])
    with Slide(tmp_path / "a.dcm", 0.5) as slide:
        assert (slide.size, slide._downsamples) == ((1152, 700), [1.0, 2.0])
        assert "padded to whole tiles" in "".join(slide.remarks)
