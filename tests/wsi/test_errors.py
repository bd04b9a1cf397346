"""A file that is not read says whether it is broken or of another kind, and what is to be done."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from slpd_core.wsi.errors import SlideError, explain_refusal
from slpd_core.wsi.reader import Slide


@pytest.mark.parametrize(
    ("vendor", "said", "command"),
    [
        ("aperio", "Unsupported TIFF compression: 34712", "vips tiffsave"),
        ("ventana", 'Bad direction attribute "LEFT"', "bfconvert"),
        ("leica", "Slides with dissimilar main images are not supported", "bfconvert"),
        ("leica", "Inconsistent main image resolutions", "bfconvert"),
        ("zeiss", 'Unrecognized subblock dimension "V"', "bfconvert"),
        ("zeiss", "JPEG XR compression is not supported", "bfconvert"),
        ("dicom", "Attribute TotalPixelMatrixFocalPlanes value 3 != 1", "bfconvert"),
        ("dicom", "Unsupported transfer syntax 1.2.840.10008.1.2.4.80", "bfconvert"),
    ],
)
def test_what_is_not_supported_is_to_be_converted(tmp_path, vendor, said, command):
    """These are what OpenSlide 4.0 says of files that are whole."""
    reason = str(explain_refusal(tmp_path / "s", vendor, ValueError(said)))
    assert f"s: OpenSlide does not read this kind of {vendor} ({said}); convert it: {command}" in reason
    assert "again" not in reason


@pytest.mark.parametrize("said", ["Can't read dircount", "Bad offset", "Unexpected image size", "Can't open JPEG 0"])
def test_what_is_broken_is_to_be_copied_again(tmp_path, said):
    reason = str(explain_refusal(tmp_path / "s", "hamamatsu", ValueError(said)))
    assert reason.endswith(f"s: broken slide ({said}); copy it again or remove it from the sheet")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("s.jpg", "a JPEG picture"), ("s.png", "a PNG picture"), ("s.tif", "a TIFF whose pixels do not lie")],
)
def test_a_picture_that_is_no_slide_is_to_be_converted(tmp_path, name, kind):
    """A TIFF of strips, as any program saves it."""
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / name)
    with pytest.raises(
        SlideError, match=rf"{name}: not a whole slide, but {kind}.*; convert it: vips tiffsave IN OUT\.tif"
    ):
        Slide(tmp_path / name, 0.5)


def test_pixels_that_neither_way_decodes_are_to_be_converted(tmp_path):
    """JPEG 2000 in gray."""
    how = {"tile": (64, 64), "photometric": "minisblack", "compression": "jpeg2000", "metadata": None}
    tifffile.imwrite(tmp_path / "s.tif", np.full((128, 128), 200, np.uint8), **how)
    with pytest.raises(
        SlideError, match=r"s\.tif: OpenSlide does not read this kind of generic-tiff .*; convert it: vips"
    ):
        Slide(tmp_path / "s.tif", 0.5)


LEFT = """<EncodeInfo Ver="2"><SlideInfo><iScan Magnification="40" ScanRes="0.25"/></SlideInfo><SlideStitchInfo>
<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="1" NumCols="2" Width="256" Height="256" Pos-X="0" Pos-Y="0">
<TileJointInfo FlagJoined="1" Confidence="100" Direction="LEFT" OverlapX="0" OverlapY="0" Tile1="1" Tile2="2"/>
</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>"""


def test_a_ventana_slide_of_joints_to_the_left_is_to_be_converted(tmp_path):
    """One of the kinds that OpenSlide knows and does not read, as OpenSlide says it."""
    pixels, how = np.full((256, 512, 3), 200, np.uint8), {"photometric": "rgb", "metadata": None}
    said = {"description": "level=0 mag=40 quality=90", "extratags": [(700, "B", len(LEFT), LEFT.encode(), True)]}
    with tifffile.TiffWriter(tmp_path / "s.bif", bigtiff=True) as file:
        label = b'<Metadata><iScan Magnification="40" ScanRes="0.25"/></Metadata>'
        file.write(pixels[:64, :64], description="Label_Image", extratags=[(700, "B", len(label), label, True)], **how)
        file.write(pixels, tile=(256, 256), compression="jpeg", **said, **how)
    with pytest.raises(SlideError, match=r'kind of ventana \(Bad direction attribute "LEFT"\); convert it: bfconvert'):
        Slide(tmp_path / "s.bif")
