"""Captions: the scale bar is as long as it says, and nothing of the picture or of the words is cut."""

import io

import numpy as np
import pytest
from PIL import Image

from slpd_core import artifacts
from slpd_core.drawing import caption
from slpd_core.drawing.html import THUMBNAIL_PX, inline_thumbnails

RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("max_um", "length"), [(999.0, 500.0), (1000.0, 1000.0), (4999.0, 2000.0), (7e4, 5e4), (0.3, 0.2), (1.0, 1.0)]
)
def test_a_scale_bar_is_round_and_fits(max_um, length):
    assert caption.choose_scale_bar(max_um) == pytest.approx(length)


@pytest.mark.parametrize(
    ("um", "text"), [(0.5, "0.5 um"), (500, "500 um"), (1000, "1 mm"), (2048, "2.05 mm"), (10000, "1 cm")]
)
def test_lengths_are_written_shortest(um, text):
    assert caption.format_um(um) == text


@pytest.mark.parametrize("width", [5, 200, 1000])
@pytest.mark.parametrize("um_per_px", [0.25, 8.0, 37.0])
def test_the_bar_measures_what_it_says(width, um_per_px):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, width, 3), np.uint8))
    captioned = caption.add_caption(picture, "", um_per_px, [])
    pixels = np.asarray(captioned)
    np.testing.assert_array_equal(pixels[:40, :width], np.asarray(picture))
    below = (pixels[40:] != 255).any(2)
    bar_um = caption.choose_scale_bar(um_per_px * width * caption.BAR_SHARE)
    left = below[:, caption.MARGIN_PX : caption.MARGIN_PX + max(1, round(bar_um / um_per_px))]
    assert left.all(1).any()  # one line is drawn along all of it
    assert captioned.height == 40 + caption.caption_height(captioned)


@pytest.mark.parametrize("width", [10, 330, 1000])
def test_no_word_of_a_legend_is_cut(width):
    picture = Image.new("RGB", (width, 20), "white")
    legend = [(RED, f"color {i} of a legend") for i in range(9)]
    pixels = np.asarray(caption.add_caption(picture, "a long title " * 9, 8.0, legend))[20:]
    edges = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
    assert (edges == 255).all()
    assert (pixels == RED).all(2).sum() >= 9 * 4 * caption.MARK_PX


def test_a_thumbnail_leaves_the_caption_out(tmp_path):
    picture = Image.new("RGB", (400, 200), RED)
    captioned = caption.add_caption(picture, "slide", 8.0, [])
    artifacts.write_picture(tmp_path / "a.png", captioned, **caption.png_text(captioned))
    artifacts.write_picture(tmp_path / "b.png", picture, **caption.png_text(picture))
    uris = inline_thumbnails(tmp_path, ["a", "b"], 10**6)
    assert uris["a"] == uris["b"] != ""
    with Image.open(io.BytesIO(artifacts.read_picture(tmp_path / "a.png"))) as file:
        assert caption.caption_height(file) == captioned.height - 200
    assert THUMBNAIL_PX < 400
