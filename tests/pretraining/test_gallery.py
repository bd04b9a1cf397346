"""The gallery shows under each prototype what its regions show, and comes out whatever is missing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from slpd_core import artifacts, config
from slpd_core.drawing import text as drawing
from slpd_core.drawing.gallery import CELL_COLORS, CELL_PX, FRAME_PX, GAP_PX, LINE_PX, MARGIN_PX, TILE_PX
from slpd_core.pretraining import gallery, gallery_layout
from slpd_core.wsi.region_reader import iter_region_pixels
from slpd_core.wsi.writer import write_slide

SIDE = 128  # level-0 px of a region
RED, BLUE, GREEN, GREY = (200, 60, 60), (60, 60, 200), (60, 170, 60), (180, 186, 194)
STRIP_PX = LINE_PX + CELL_PX[1] + GAP_PX


@pytest.fixture
def make(tmp_path):
    """Run the stage on slides whose regions are painted one colour each; gives the picture, rows x columns x 3.

    slides: id -> the colours of its regions, embedded as they are. assignment, neighbors (N, K) and matches (N, K, M):
    as in prototypes.h5; names: the slides it names, where not those.
    """

    def make(slides, assignment, M=2, neighbors=None, matches=None, names=None, missing=()):
        rows = []
        for slide, colours in slides.items():
            pixels = np.repeat(np.repeat(np.array([colours], np.uint8), SIDE, 0), SIDE, 1).reshape(SIDE, -1, 3)
            coords = np.stack([np.arange(len(colours)) * SIDE, np.zeros(len(colours), int)], axis=1)
            info = artifacts.SlideInfo(slide, artifacts.OK, "", SIDE * len(colours), SIDE, 0.5, "sheet", "")
            kept = artifacts.Regions(info, coords, np.ones(len(colours), np.float32), SIDE, SIDE, 0.5)
            artifacts.write_regions(tmp_path / "regions" / f"{slide}.h5", kept, artifacts.provenance("regions", 1, {}))
            if colours and slide not in missing:
                write_slide(tmp_path / f"{slide}.tiff", pixels, 0.5)
            rows += [(slide, *corner, np.float32(colour)) for corner, colour in zip(coords, colours, strict=True)]
        embed = pd.DataFrame(rows, columns=["slide_id", "x", "y", "embedding"]).astype({"x": int, "y": int})
        artifacts.write_table(tmp_path / "embed.parquet", "embed", embed, {"embed_dim": "3"})
        N = len(names or slides)
        none = np.full((N, 1), -1), np.full((N, 1, M), -1)
        arrays = {
            "slides": np.array(names or [*slides]),
            "prototypes": np.zeros((N, M, 7), np.float32),  # of a space that is not the embeddings'
            "neighbors": none[0] if neighbors is None else np.array(neighbors),
            "matches": none[1] if matches is None else np.array(matches),
            "region_slide": embed["slide_id"].to_numpy(str),
            "coords": embed[["x", "y"]].to_numpy(),
            "assignment": np.array(assignment, np.int16),
        }
        artifacts.write_arrays(tmp_path / "prototypes.h5", arrays, {}, artifacts.provenance("pretrain", 1, {}))
        gallery.run(
            slide_paths={slide: tmp_path / f"{slide}.tiff" for slide in slides},
            embed_path=tmp_path / "embed.parquet",
            prototypes_path=tmp_path / "prototypes.h5",
            regions_dir=tmp_path / "regions",
            out_path=tmp_path / "gallery.png",
            section=config.GalleryConfig(n_slides=6),
            read_regions=iter_region_pixels,
        )
        with Image.open(tmp_path / "gallery.png") as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    return make


def tile(picture, strip, column, place):
    """The colour in a corner of a tile, all strips before it having tiles and a title."""
    x = MARGIN_PX + column * (CELL_PX[0] + GAP_PX) + FRAME_PX + place * (TILE_PX + FRAME_PX) + 8
    return picture[MARGIN_PX + strip * STRIP_PX + LINE_PX * 2 + FRAME_PX + 8, x]


def frame(picture, strip, column):
    """The colour of a cell's frame."""
    x = MARGIN_PX + column * (CELL_PX[0] + GAP_PX) + FRAME_PX // 2
    return picture[MARGIN_PX + strip * STRIP_PX + LINE_PX * 2 + TILE_PX // 2, x]


def near(found, colour):
    return np.abs(found - np.array(colour)).max() < 12


def rgb(text):
    return [int(text[at : at + 2], 16) for at in (1, 3, 5)]


def test_a_prototype_shows_its_own_regions_and_those_of_its_match(make):
    slides = {"a": [RED, BLUE, BLUE, RED, BLUE], "b": [BLUE, RED, RED]}
    picture = make(slides, [1, 0, 0, 1, 0, 1, 0, 0], neighbors=[[1], [0]], matches=[[[1, 0]], [[1, 0]]])
    # Strips: a, its nearest b, b, its nearest a; the largest prototype of a slide first, its match below it.
    for strip, (first, second) in enumerate([(BLUE, RED), (BLUE, RED), (RED, BLUE), (RED, BLUE)]):
        assert near(tile(picture, strip, 0, 0), first), strip
        assert near(tile(picture, strip, 1, 0), second), strip
        assert all(near(frame(picture, strip, column), rgb(CELL_COLORS[column])) for column in (0, 1))
    assert near(tile(picture, 0, 0, 2), BLUE)
    assert near(tile(picture, 0, 1, 1), RED)
    assert near(tile(picture, 0, 1, 2), (255, 255, 255))  # a prototype of two regions


def test_the_most_central_regions_are_shown_first(make):
    shades = [(60, 60, blue) for blue in (120, 160, 200, 240, 255)]
    picture = make({"a": [*shades, RED, RED, RED]}, [0] * 5 + [1] * 3)
    shown = [tile(picture, 0, 0, place) for place in range(3)]
    assert [round(colour[2] / 10) for colour in shown] == [20, 16, 24]  # their mean is 195


def test_a_slide_that_cannot_be_read_is_grey_and_the_others_are_not(make):
    slides = {"a": [RED, BLUE], "b": [BLUE, RED]}
    picture = make(slides, [0, 1, 0, 1], neighbors=[[1], [0]], matches=[[[1, 0]], [[1, 0]]], missing=["b"])
    assert near(tile(picture, 0, 0, 0), RED)
    assert near(tile(picture, 1, 0, 0), GREY)
    assert near(tile(picture, 2, 0, 0), GREY)
    assert near(tile(picture, 3, 1, 0), RED)


def test_one_slide_has_no_neighbour(make):
    picture = make({"a": [RED, BLUE, RED]}, [0, 1, 0])
    assert near(tile(picture, 0, 0, 0), RED)
    assert near(tile(picture, 0, 1, 0), BLUE)
    assert len(picture) == 2 * MARGIN_PX + STRIP_PX + LINE_PX + GAP_PX


def test_slides_without_regions_or_prototypes_are_passed_over(make):
    slides = {"none": [], "few": [GREEN], "a": [RED, BLUE], "b": [BLUE, RED]}
    neighbors, matches = [[-1], [-1], [3], [2]], [[[-1, -1]], [[-1, -1]], [[1, 0]], [[1, 0]]]
    picture = make(slides, [-1, 0, 1, 0, 1], neighbors=neighbors, matches=matches)
    assert len(picture) == 2 * MARGIN_PX + 4 * STRIP_PX
    assert not (np.abs(picture - np.array(GREEN)).max(2) < 12).any()


@pytest.mark.parametrize("slides", [{"a": [RED], "b": [BLUE]}, {"a": []}], ids=["small slides", "no region"])
def test_without_prototypes_the_picture_says_so(make, slides):
    regions = sum(map(len, slides.values()))
    picture = make(slides, [-1] * regions)
    assert len(picture) == 2 * MARGIN_PX + LINE_PX + GAP_PX
    assert (picture < 100).any()


def test_a_run_that_clusters_the_cohort_as_one_shows_its_largest_prototypes(make):
    slides = {"a": [RED, BLUE, RED], "b": [BLUE, RED, GREEN]}
    picture = make(slides, [4, 1, 4, 1, 4, 0], M=5, names=[""])
    assert [near(tile(picture, 0, column, 0), colour) for column, colour in enumerate((RED, BLUE, GREEN))] == [True] * 3
    assert len(picture) == 2 * MARGIN_PX + STRIP_PX
    colours = [(10 * number, 100, 200) for number in range(15)]
    picture = make({"a": colours}, range(15), M=16, names=[""])
    assert near(tile(picture, 0, 3, 0), colours[3])
    assert len(picture) == 2 * MARGIN_PX + 3 * STRIP_PX - 2 * LINE_PX


def test_prototypes_of_other_regions_are_refused(make, tmp_path):
    make({"a": [RED, BLUE]}, [0, 1])
    embed, _ = artifacts.read_table(tmp_path / "embed.parquet", "embed")
    with pytest.raises(ValueError, match=r"prototypes\.h5: not the regions of the embeddings; run snakemake"):
        gallery.load_gallery(embed[::-1], tmp_path / "prototypes.h5")


def test_slides_are_titled_by_the_names_to_be_shown(make, tmp_path):
    make({"a": [RED, BLUE], "b": [RED]}, [0, 1, 0])
    embed, _ = artifacts.read_table(tmp_path / "embed.parquet", "embed")
    loaded, _ = gallery.load_gallery(embed, tmp_path / "prototypes.h5", {"a": "slide-2", "b": "slide-1"})
    assert loaded.titles == ["slide-2, 2 regions", "slide-1, 1 region"]


def test_the_same_artifacts_give_the_same_picture(make, tmp_path):
    files = []
    for _ in range(2):
        make({"a": [RED, BLUE, GREEN], "b": [BLUE, RED]}, [0, 1, 1, 0, 1])
        files.append((tmp_path / "gallery.png").read_bytes())
    assert files[0] == files[1]


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 8))
def test_the_slides_shown_are_few_and_evenly_spaced_among_those_with_prototypes(clustered, count):
    N = len(clustered)
    assignment = np.where(clustered, 0, -1)
    rest = np.zeros((N, 2), np.float32), np.arange(N), assignment, np.full(N, -1), np.full((N, 1), -1)
    strips = gallery_layout.plan_slides(gallery_layout.PrototypeGallery([f"s{n}" for n in range(N)], *rest), count)
    shown = [int(strip.title[1:]) for strip in strips if strip.cells]
    candidates = np.flatnonzero(clustered).tolist()
    assert shown == gallery_layout.evenly_spaced(candidates, count)
    assert [strip.title for strip in strips if strip.main and not strip.cells] == (
        [] if candidates else ["No slide has prototypes: all have too few regions to cluster."]
    )


@given(st.lists(st.integers(), max_size=30), st.integers(1, 40))
def test_what_is_spread_begins_with_the_first_and_ends_with_the_last(items, count):
    places = gallery_layout.evenly_spaced(range(len(items)), count)
    assert places == sorted(set(places))
    assert len(places) == min(count, len(items))
    if count > 1 and items:
        assert (places[0], places[-1]) == (0, len(items) - 1)
        gaps = np.diff(places)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 9))
def test_central_regions_are_members_in_the_order_of_their_distance(members, D, seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(50, D))
    own = rng.permutation(50)[:members]
    found = gallery_layout.central_regions(embeddings, own)
    assert len(found) == min(3, members)
    assert set(found) <= set(own.tolist())
    if found:
        distance = {row: np.linalg.norm(embeddings[row] - embeddings[own].mean(0)) for row in own.tolist()}
        assert [distance[row] for row in found] == sorted(distance.values())[:3]


@given(st.text(max_size=80), st.integers(30, 200))
def test_a_line_stays_within_its_width(text, width):
    picture = Image.new("L", (400, LINE_PX), 255)
    drawing.draw_text(ImageDraw.Draw(picture), (2, 0), text, "black", width)
    assert (np.asarray(picture)[:, width + 8 :] == 255).all()
