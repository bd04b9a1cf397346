"""Heat maps colour each region by what the classifier of the slide's own test fold attends to."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slpd_core import artifacts
from slpd_core.drawing import heatmap
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import classifiers, features, folds, heatmaps, networks

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
    expected = np.full((height, width, 3), PAPER, float)
    across, down = width / 500, height / 400
    for (x, y), (*rgb, opacity) in zip(coords, rgba, strict=True):
        cell = expected[round(y * down) : round((y + SIDE) * down), round(x * across) : round((x + SIDE) * across)]
        cell += (np.array(rgb) - cell) * opacity / 255
    np.testing.assert_allclose(picture, expected, atol=1)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_a_contact_sheet_holds_any_number_of_slides(n):
    panels = [(f"slide {'long ' * 30}{number}", "says", Image.new("RGB", (800, 200), PAPER)) for number in range(n)]
    sheet = heatmap.draw_contact_sheet(panels)
    shown = (np.asarray(sheet) == PAPER).all(2).sum()
    assert shown == n * 360 * 90


@pytest.fixture
def cohort(make_slides, plant, tmp_path):
    """Folds, embeddings, regions, thumbnails and ABMIL classifiers of all folds."""
    slides = make_slides(6, slides=(1,))
    planted = plant(slides, 1.0, dim=8)
    parts = folds.make_folds(slides, 1, n_folds=3)
    artifacts.write_table(tmp_path / "folds.parquet", "folds", parts, artifacts.provenance("folds", 1, {}))
    rows = [(slide, SIDE * i, 0, row) for slide, array in planted.items() for i, row in enumerate(array)]
    meta = artifacts.provenance("embed", 1, {}) | {"embed_dim": "8"}
    frame = pd.DataFrame(rows, columns=["slide_id", "x", "y", "embedding"])
    artifacts.write_table(tmp_path / "embed.parquet", "embed", frame, meta)
    for slide, array in planted.items():
        coords = np.stack([np.arange(len(array)) * SIDE, np.zeros(len(array), int)], 1)
        info = artifacts.SlideInfo(slide, artifacts.OK, "", SIDE * len(array), SIDE, 0.5, "sheet", "f")
        regions = artifacts.Regions(info, coords, np.ones(len(array), np.float32), SIDE, SIDE, 0.5)
        artifacts.write_regions(tmp_path / "regions" / f"{slide}.h5", regions, artifacts.provenance("regions", 1, {}))
        (tmp_path / "tissue").mkdir(exist_ok=True)
        artifacts.write_picture(tmp_path / "tissue" / f"{slide}.png", Image.new("RGB", (40 * len(array), 40), PAPER))
    for fold in range(3):  # untrained ones, whose attention differs from region to region and from fold to fold
        network = networks.build_network("abmil", 8, 2, 0.0, fold)
        network.attention.attention_c.weight.data *= 40
        arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        model = classifiers.FittedClassifier("abmil", Classification(("x", "y")), 8, arrays)
        classifiers.write_classifier(tmp_path / f"fold{fold}.safetensors", model, {"bags": "slide"})
    return tmp_path


def draw(cohort, settings, per_label=3):
    heatmaps.run(
        folds_path=cohort / "folds.parquet",
        model_paths=[cohort / f"fold{fold}.safetensors" for fold in range(3)],
        embed_paths=[cohort / "embed.parquet"] * 3,
        tissue_dir=cohort / "tissue",
        regions_dir=cohort / "regions",
        out_path=cohort / "heatmaps.jpg",
        section=settings.heatmaps.model_copy(update={"slides_per_label": per_label}),
        seed=1,
    )
    return np.asarray(Image.open(cohort / "heatmaps.jpg")).astype(float)


def test_a_slide_is_coloured_by_the_classifier_of_the_fold_that_tests_it(cohort, settings):
    picture = draw(cohort, settings, per_label=1)
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


def test_regions_that_are_not_those_of_the_embeddings_are_named(cohort, settings):
    for path in (cohort / "regions").glob("*.h5"):
        regions, _ = artifacts.read_regions(path)
        half = artifacts.Regions(regions.slide, regions.coords[:1], regions.tissue_fraction[:1], SIDE, SIDE, 0.5)
        artifacts.write_regions(path, half, artifacts.provenance("regions", 1, {}))
    with pytest.raises(ValueError, match=r"\.h5: 1 regions, \d embeddings; run snakemake again"):
        draw(cohort, settings)


@pytest.mark.parametrize("name", ["embed.parquet", "fold0.safetensors"])
def test_what_another_cohort_made_is_refused(cohort, settings, name):
    folds_table, meta = artifacts.read_table(cohort / "folds.parquet", "folds")
    artifacts.write_table(cohort / "folds.parquet", "folds", folds_table, meta | {"ledger": "ours"})
    draw(cohort, settings)
    frame, meta = artifacts.read_table(cohort / "embed.parquet", "embed")
    if name == "embed.parquet":
        artifacts.write_table(cohort / name, "embed", frame, meta | {"ledger": "theirs"})
    else:
        classifiers.write_classifier(
            cohort / name, classifiers.read_classifier(cohort / name)[0], {"ledger": "theirs", "bags": "slide"}
        )
    with pytest.raises(ValueError, match=f"{name}: was made from another ledger"):
        draw(cohort, settings)


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
    shuffled = heatmaps.choose_test_slides(table.sample(frac=1, random_state=0), per_label, seed)
    pd.testing.assert_frame_equal(chosen.reset_index(drop=True), shuffled.reset_index(drop=True))


def test_a_slide_of_a_bag_is_shown_with_the_prediction_of_the_bag():
    features = {name: np.full((n, 2), n, np.float32) for name, n in (("a", 2), ("b", 3), ("c", 1))}

    def predict(bag):
        return bag.sum(0), bag[:, 0].astype(float) / bag[:, 0].sum()

    prediction, attention = heatmaps.attend_slide(predict, features.__getitem__, ["a", "b", "c"], "b")
    assert prediction.tolist() == [14, 14]
    assert attention == pytest.approx([1 / 3] * 3)
    alone, attention = heatmaps.attend_slide(predict, features.__getitem__, ["a"], "a")
    assert alone.tolist() == [4, 4]
    assert attention.tolist() == [0.5, 0.5]
