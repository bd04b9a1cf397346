"""Heat maps colour each region by what the classifier of the slide's own test fold attends to."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from slpd_core import artifacts
from slpd_core.drawing import heatmap
from slpd_core.drawing.text import FONT_PX, wrap_text
from slpd_core.evaluation import classifiers, features, heatmaps

SIDE = 100  # level-0 px of a region
PAPER = (240, 220, 230)


@pytest.mark.parametrize(
    ("times", "rgb"),
    [(1, (247, 247, 247)), (0.5, (146, 197, 222)), (2, (244, 165, 130)), (0, (33, 102, 172)), (50, (178, 24, 43))],
)
def test_the_average_is_white_less_blue_more_red(times, rgb):
    assert tuple(heatmap.attention_colors(np.array([times]))[0, :3]) == rgb


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=20))
def test_what_is_further_from_the_average_is_more_opaque(times):
    opacity = heatmap.attention_colors(np.array(times))[:, 3].astype(int)
    order = np.argsort(np.abs(np.log2(times)))
    assert (np.diff(opacity[order]) >= 0).all()


@pytest.mark.parametrize(("width", "height"), [(50, 40), (50, 80), (125, 40)])
def test_each_region_has_its_colour_and_the_rest_stays(width, height):
    """Also where a thumbnail is not as wide for its height as its slide of 500 x 400 px."""
    thumbnail = Image.new("RGB", (width, height), PAPER)
    coords = np.array([[0, 0], [200, 100], [440, 350]])  # the last hangs over both edges
    attention = np.array([0.8, 0.1, 0.1])
    picture = np.asarray(heatmap.draw_heatmap(thumbnail, (500, 400), coords, SIDE, attention)).astype(float)
    rgba = heatmap.attention_colors(attention * 3).astype(float)
    expected, outlined = np.full((height, width, 3), PAPER, float), np.zeros((height, width), bool)
    across, down = width / 500, height / 400
    for (x, y), (*rgb, opacity) in zip(coords, rgba, strict=True):
        top, bottom, left, right = (
            round(edge) for edge in (y * down, (y + SIDE) * down, x * across, (x + SIDE) * across)
        )
        cell = expected[top:bottom, left:right]
        cell += (np.array(rgb) - cell) * opacity / 255
        outlined[top:bottom, left:right] = True
        outlined[top + 1 : bottom - 1, left + 1 : right - 1] = False
    np.testing.assert_allclose(picture[~outlined], expected[~outlined], atol=1)
    assert (picture[outlined].sum(1) < expected[outlined].sum(1) - 60).all()


@pytest.mark.parametrize(
    ("attention", "phrase"),
    [([1.0], ""), ([0.5, 0.5], "all regions count alike"), ([0.51, 0.49], "all regions count alike"), ([0.6, 0.4], "")],
)
def test_attention_that_tells_nothing_apart_is_said_to(attention, phrase):
    assert heatmap.describe_evenness(np.array(attention)) == phrase


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=80), st.integers(40, 200))
def test_text_is_wrapped_and_nothing_of_it_is_lost(words, width):
    lines = wrap_text(words, width)
    assert "".join("".join(lines).split()) == "".join(words.split())
    font = ImageFont.load_default(size=FONT_PX)
    assert all(font.getlength(line) <= width or len(line) == 1 for line in lines)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_a_contact_sheet_holds_any_number_of_slides(n):
    panels = [(f"slide {'long ' * 30}{number}", "says", Image.new("RGB", (800, 200), PAPER)) for number in range(n)]
    sheet = heatmap.draw_contact_sheet(panels)
    shown = (np.asarray(sheet) == PAPER).all(2).sum()
    assert shown == n * 360 * 90


def draw(cohort, attend, settings, per_label=3, **named):
    attend(cohort)
    heatmaps.run(
        folds_path=cohort / "folds.parquet",
        attention_path=cohort / "attention.parquet",
        prediction_paths=[cohort / f"fold{fold}.parquet" for fold in range(3)],
        tissue_dir=cohort / "tissue",
        regions_dir=cohort / "regions",
        out_path=cohort / "heatmaps.jpg",
        section=settings.heatmaps.model_copy(update={"slides_per_label": per_label}),
        seed=1,
        **named,
    )
    return np.asarray(Image.open(cohort / "heatmaps.jpg")).astype(float)


def test_a_slide_is_coloured_by_the_classifier_of_the_fold_that_tests_it(cohort, attend, settings):
    picture = draw(cohort, attend, settings, per_label=1)
    table, _ = artifacts.read_table(cohort / "folds.parquet", "folds")
    chosen = heatmaps.choose_test_slides(table, 1, 1).sort_values("label")
    read, _ = features.region_features(cohort / "embed.parquet")
    top = heatmap.GAP_PX + 2 * 24
    for column, (slide, fold) in enumerate(zip(chosen["slide_id"], chosen["fold"], strict=True)):
        attention = {}
        for number in range(3):
            model, _ = classifiers.read_classifier(cohort / f"fold{number}.safetensors")
            attention[number] = classifiers.build_predictor(model)(read(slide))[1]
        own = heatmap.attention_colors(attention[fold] * len(attention[fold])).astype(float)
        left = heatmap.GAP_PX + column * (heatmap.TILE_PX + heatmap.GAP_PX)
        middles = picture[top + 20, left + 20 + 40 * np.arange(len(own))]
        expected = PAPER + (own[:, :3] - PAPER) * own[:, 3:] / 255
        np.testing.assert_allclose(middles, expected, atol=6)  # JPEG
        others = [heatmap.attention_colors(attention[n] * len(own))[:, :3] for n in range(3) if n != fold]
        assert all(np.abs(other - own[:, :3]).max() > 12 for other in others)  # another fold's would be seen


def test_slides_are_titled_by_the_names_to_be_shown(cohort, attend, settings, monkeypatch):
    titles, draw_sheet = [], heatmap.draw_contact_sheet
    monkeypatch.setattr(
        heatmap,
        "draw_contact_sheet",
        lambda panels: titles.append([panel[0] for panel in panels]) or draw_sheet(panels),
    )
    draw(cohort, attend, settings, per_label=1)
    numbers = {name: f"slide-{i}" for i, name in enumerate(titles[0])}
    assert artifacts.read_picture_meta(cohort / "heatmaps.jpg") == {}
    draw(cohort, attend, settings, per_label=1, shown_names=numbers)
    assert titles[1] == ["slide-0", "slide-1"]
    assert artifacts.read_picture_meta(cohort / "heatmaps.jpg") == artifacts.NUMBERED


def test_regions_that_are_not_those_of_the_embeddings_are_named(cohort, attend, settings):
    for path in (cohort / "regions").glob("*.h5"):
        regions, _ = artifacts.read_regions(path)
        half = artifacts.Regions(regions.slide, regions.coords[:1], regions.tissue_fraction[:1], SIDE, SIDE, 0.5)
        artifacts.write_regions(path, half, artifacts.provenance("regions", 1, {}))
    with pytest.raises(ValueError, match=r"\.h5: 1 regions, \d embeddings; run snakemake again"):
        draw(cohort, attend, settings)


def test_attention_of_another_cohort_is_refused(cohort, attend, settings, monkeypatch):
    draw(cohort, attend, settings)
    frame, meta = artifacts.read_table(cohort / "attention.parquet", "attention")
    artifacts.write_table(cohort / "attention.parquet", "attention", frame, meta | {"ledger": "theirs"})
    folds_table, meta = artifacts.read_table(cohort / "folds.parquet", "folds")
    artifacts.write_table(cohort / "folds.parquet", "folds", folds_table, meta | {"ledger": "ours"})
    with pytest.raises(ValueError, match=r"attention.parquet: was made from another ledger"):
        draw(cohort, lambda _: None, settings)


@given(per_label=st.integers(1, 5), seed=st.integers(0, 9), repeats=st.integers(1, 2))
def test_the_slides_shown_are_tested_ones_of_each_label_in_any_order(per_label, seed, repeats):
    rows = [
        (fold, f"{label}{n}", f"{label}{n}", label, "test" if n % 2 == fold % 2 else "train")
        for fold in range(2 * repeats)
        for label in "xy"
        for n in range(4)
    ]
    table = pd.DataFrame(rows, columns=[*artifacts.TABLES["folds"]])
    chosen = heatmaps.choose_test_slides(table, per_label, seed)
    assert chosen["label"].value_counts().to_dict() == dict.fromkeys("xy", min(per_label, 4))
    assert (chosen["part"] == "test").all()
    assert not chosen["slide_id"].duplicated().any()
    first = table[table["part"] == "test"].groupby("slide_id")["fold"].min()
    assert chosen["fold"].tolist() == first[chosen["slide_id"]].tolist()
    shuffled = heatmaps.choose_test_slides(table.sample(frac=1, random_state=0), per_label, seed)
    pd.testing.assert_frame_equal(chosen.reset_index(drop=True), shuffled.reset_index(drop=True))
