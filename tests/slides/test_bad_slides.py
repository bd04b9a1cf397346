"""A file that is not read says whether it is broken or of another kind, and what is to be done."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from slpd_core.slides.bad_slides import SlideError, explain_refusal
from slpd_core.slides.reader import Slide


@pytest.mark.parametrize(
    ("vendor", "said", "command"),
    [
        ("aperio", "Unsupported TIFF compression: 34712", "vips tiffsave"),
        ("ventana", 'Bad direction attribute "LEFT"', "bfconvert"),
        ("leica", "Slides with dissimilar main images are not supported", "bfconvert"),
        ("leica", "Inconsistent main image resolutions", "bfconvert"),
        ("zeiss", 'Unrecognized subblock dimension "V"', "bfconvert"),
        ("zeiss", "JPEG XR compression is not supported", "bfconvert"),
        ("dicom", "Unsupported transfer syntax 1.2.840.10008.1.2.4.80", "bfconvert"),
    ],
)
def test_what_is_not_supported_is_to_be_converted(tmp_path, vendor, said, command):
    """These are what OpenSlide 4.0 says of files that are whole."""
    reason = str(explain_refusal(tmp_path / "s", vendor, ValueError(said)))
    assert f"s: OpenSlide does not read this kind of {vendor} ({said}); convert it: {command}" in reason
    assert "again" not in reason


@pytest.mark.parametrize("said", ["Can't read dircount", "Bad offset", "Couldn't read 16 bytes", "Can't open JPEG 0"])
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
