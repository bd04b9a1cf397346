import numpy as np
import pytest

from slpd_core.demo.layout import LABELS, create_layout, place_glands, place_nests
from slpd_core.demo.shapes import DOWNSAMPLE
from slpd_core.runtime import generator


@pytest.fixture(scope="module")
def layouts():
    return {label: [create_layout(generator(seed, label), label, 2048) for seed in range(4)] for label in LABELS}


def at(level, nuclei):
    """The level at each nucleus."""
    return level[(nuclei.y / DOWNSAMPLE).astype(int), (nuclei.x / DOWNSAMPLE).astype(int)]


@pytest.mark.parametrize("label", LABELS)
def test_nuclei_lie_where_they_belong(layouts, label):
    for layout in layouts[label]:
        cells, _, spindles, lymphocytes = layout.nuclei
        assert all((at(layout.tissue, group) > 0).all() for group in layout.nuclei)
        assert (at(layout.epithelium, cells) > 0).mean() > 0.97
        assert (at(layout.pale, cells) < 0).mean() > 0.95
        for group in (spindles, lymphocytes):
            assert (at(layout.epithelium, group) < 0).all()
            assert (at(layout.pale, group) < 0).all()


def parts(cells):
    """How many px2 of cells and of pale space there are, and how many nuclei."""
    holes = np.pi * (cells.vacuoles[:, 2] ** 2).sum()
    area, pale = (where.sum() * DOWNSAMPLE**2 for where in ((cells.epithelium > 0) & (cells.pale <= 0), cells.pale > 0))
    return np.array([area - holes, pale + holes, len(cells.nuclei.x)])


def test_both_classes_are_made_of_the_same_parts():
    everywhere = np.ones((800, 800), bool)
    glands, nests = (
        sum(parts(place(generator(seed), everywhere)) for seed in range(4)) for place in (place_glands, place_nests)
    )
    np.testing.assert_allclose(glands, nests, rtol=0.05)


@pytest.mark.parametrize("label", LABELS)
def test_the_class_shows_in_part_of_the_tissue_only(layouts, label):
    for layout in layouts[label]:
        tissue = layout.tissue > 0
        assert 0.1 < (tissue & (layout.epithelium > 0)).sum() / tissue.sum() < 0.45


def test_the_smallest_slide_can_be_laid_out():
    for label in LABELS:
        for seed in range(6):
            layout = create_layout(generator(seed), label, 512)
            assert layout.tissue.shape == layout.across.shape == (128, 128)
