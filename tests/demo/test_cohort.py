from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.color import rgb2lab

from slpd_core.demo import cohort as demo
from slpd_core.demo.layout import LABELS, create_layout
from slpd_core.demo.picture import apply_stain, draw_slide_pixels, paint_dyes
from slpd_core.evaluation.labels import read_labels
from slpd_core.runtime import generator
from slpd_core.slides.sheet import read_sheet
from slpd_core.wsi.reader import Slide

JUST_NOTICEABLE = 2.3  # distance of two colours in CIELAB
SMALL = demo.DemoCohort(seed=3, patients=1, side_px=768)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with a cohort of one patient, two slides, of each class."""
    out = tmp_path_factory.mktemp("demo")
    demo.run(out=out, cohort=SMALL, processes=2)
    return out


@pytest.fixture(scope="module")
def planes():
    """label -> for six slides their tissue, bool (1024, 1024), and their planes of dye."""
    slides = {}
    for label in LABELS:
        for number in range(6):
            rng = generator(5, label, number)
            layout = create_layout(rng, label, 1024)
            tissue = np.kron(layout.tissue > 0, np.ones((4, 4), bool))
            slides.setdefault(label, []).append((tissue, *paint_dyes(rng, layout)))
    return slides


def colour(picture: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Mean and sd of red, green and blue over the tissue, (6,)."""
    return np.concatenate([picture[tissue].mean(0), picture[tissue].std(0)])


def test_the_sheet_is_a_valid_sheet(drawn):
    sheet = read_sheet(drawn / "slides.csv")
    assert sheet["slide_id"].tolist() == ["glands-01-1", "glands-01-2", "nests-01-1", "nests-01-2"]
    assert sheet["patient_id"].tolist() == ["glands-01", "glands-01", "nests-01", "nests-01"]
    labels = read_labels(drawn / "slides.csv", sheet)
    assert labels["label"].tolist() == ["glands", "glands", "nests", "nests"]
    assert not list(drawn.rglob("*.part"))


def test_a_written_slide_opens_with_its_um_per_px_and_its_pixels(drawn):
    with Slide(drawn / "slides" / "nests-01-2.tiff") as slide:
        pixels = slide.read((0, 0), (768, 768), 0.5)
        assert slide.size == (768, 768)
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        assert slide.mpp_source == "tiff resolution"
    # Whatever else was drawn, and by which process: JPEG is all that lies between.
    expected = draw_slide_pixels(generator(3, "demo", "nests-01-2"), generator(3, "stain", "nests-01-2"), "nests", 768)
    assert np.abs(pixels.astype(int) - expected).mean() < 6


def test_the_default_cohort_is_balanced_and_fills_four_folds():
    rows = demo.list_slides(demo.DemoCohort(seed=1, patients=8, side_px=4608))
    assert len(rows) == len({row.slide_id for row in rows}) == 20
    for label in LABELS:
        own = [row for row in rows if row.label == label]
        assert len(own) == 10
        assert len({row.patient_id for row in own}) == 8


def test_what_is_drawn_is_left_alone_until_a_setting_changes(drawn):
    before = {path: path.stat().st_mtime_ns for path in drawn.glob("slides/*.tiff")}
    assert demo.run(out=drawn, cohort=SMALL, processes=1) == drawn / "slides.csv"
    assert {path: path.stat().st_mtime_ns for path in drawn.glob("slides/*.tiff")} == before
    for change in ({"seed": 4}, {"patients": 2}, {"side_px": 772}, {"version": 0}):
        assert not demo.is_drawn(replace(SMALL, **change), drawn)


def test_a_sheet_of_other_origin_is_kept(tmp_path):
    (tmp_path / "slides.csv").write_text("mine")
    with pytest.raises(ValueError, match="name another folder"):
        demo.run(out=tmp_path, cohort=SMALL, processes=1)
    assert (tmp_path / "slides.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        (demo.DemoCohort(1, 1, 1022), "side of 1022 px: must be a multiple of 4"),
        (demo.DemoCohort(1, 1, 256), "side of 256 px.* 512 or more"),
        (demo.DemoCohort(1, 0, 512), "0 patients"),
    ],
)
def test_settings_that_cannot_be_drawn(tmp_path, cohort, message):
    with pytest.raises(ValueError, match=message):
        demo.run(out=tmp_path, cohort=cohort, processes=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_colour_tells_the_stain_but_not_the_class(planes):
    """Colours are (label, stain, slide, mean or sd of red, green, blue); slides differ in how much shows the class."""
    colours = np.array(
        [
            [[colour(apply_stain(generator(seed), *dyes), tissue) for tissue, *dyes in slides] for seed in range(12)]
            for slides in planes.values()
        ]
    )
    spread, between_classes = colours.std((1, 2)).mean(0), np.abs(np.diff(colours.mean((1, 2)), axis=0)[0])
    assert (between_classes < spread).all(), (between_classes, spread)
    assert (between_classes[:3] < spread[:3] / 2).all(), (between_classes, spread)
    assert pdist(rgb2lab(colours.mean((0, 2))[:, :3] / 255)).mean() > 2 * JUST_NOTICEABLE


def test_architecture_tells_the_class(planes):
    """In a nest nuclei fill a window of 48 um; where there are glands, lumens and stroma take their share of it."""
    crowding = {
        label: [
            np.percentile(ndimage.uniform_filter((nuclei > 60).astype(np.float32), 96)[tissue], 99)
            for tissue, nuclei, _ in slides
        ]
        for label, slides in planes.items()
    }
    assert max(crowding["glands"]) < 0.9 * min(crowding["nests"])
