"""Figures show the values of their arguments."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from slpd_core.report import curves, figures, projection
from slpd_core.report.figures.style import REFERENCE, line_styles, reference_styles
from slpd_core.report.figures.training import _training_panel

BLUE, ORANGE = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)  # of the first and the second run
GRAY = (round(0.45 * 255),) * 3


def pixels(png, color, tolerance=3):
    """Number of pixels of a picture that have a color."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((abs(picture - color) <= tolerance).all(-1).sum())


def size(png):
    return Image.open(io.BytesIO(png)).size


@pytest.mark.parametrize("n", [1, 7, 60])
def test_predictions_are_drawn_of_any_number_of_slides(n):
    rng = np.random.default_rng(n)
    p = rng.dirichlet(np.ones(3), n)
    assert size(figures.plot_predictions("MIL on <$x$>", p, rng.integers(3, size=n), ["a", "b$", "c_d"])) == (1200, 585)


def planted_curves(level, folds=3):
    """ROC curves that are better for higher levels."""
    x = curves.FALSE_POSITIVE_RATES
    return np.stack([np.clip(x + level * x * (1 - x) + fold / 50, 0, 1) for fold in range(folds)])


def test_every_run_keeps_its_color_and_patch_features_are_gray():
    alone = figures.plot_roc({"MIL": {"slpd": planted_curves(1)}}, ["dino", "slpd"])
    assert pixels(alone, ORANGE) > 100
    assert pixels(alone, BLUE) == 0
    both = figures.plot_roc({"MIL": {"patch_tokens": planted_curves(0.5), "dino": planted_curves(1)}}, ["dino", "slpd"])
    assert pixels(both, BLUE) > 100
    assert pixels(both, GRAY) > pixels(alone, GRAY) + 100


def test_what_stands_beside_the_runs_is_told_apart_and_patch_features_are_the_same_everywhere():
    styles = reference_styles(["mean_color", "patch_tokens", *"abcdef"])
    assert len({tuple(style.values()) for style in styles.values()}) == 8
    for names in (["patch_tokens"], ["mean_color", "patch_tokens"], ["mean_color", "patch_tokens", "a"]):
        assert reference_styles(names)["patch_tokens"] == {"color": REFERENCE, "linestyle": "-"}
    assert "-" not in {style["linestyle"] for style in reference_styles(["mean_color", "a"]).values()}


@pytest.mark.parametrize("level", [0.2, 1.0])
def test_the_band_is_about_the_last_line_of_a_panel_whichever_is_best(level):
    band = [tuple(round(255 - 0.18 * (255 - part)) for part in color) for color in (BLUE, ORANGE)]
    drawn = figures.plot_roc({"MIL": {"dino": planted_curves(0.5), "slpd": planted_curves(level)}}, ["dino", "slpd"])
    assert pixels(drawn, band[1]) > 1000
    assert pixels(drawn, band[0]) < 100  # edges of its line
    one_fold = figures.plot_roc(
        {"MIL": {"dino": planted_curves(0.5, 1), "slpd": planted_curves(1, 1)}}, ["dino", "slpd"]
    )
    assert pixels(one_fold, band[1]) < 100


def test_roc_without_a_defined_fold_or_without_rows_says_so():
    undefined = curves.fold_roc_curves([(np.array([[0.3, 0.7]]), np.array([1]))])
    assert np.isnan(undefined).all()
    assert pixels(figures.plot_roc({"MIL": {"slpd": undefined}}, ["slpd"]), BLUE) == 0
    assert size(figures.plot_roc({}, []))[0] > 300


def test_panels_wrap():
    wide, wrapped = (
        size(figures.plot_roc({str(i): {"dino": planted_curves(1)} for i in range(n)}, ["dino"])) for n in (4, 5)
    )
    assert wrapped[0] == wide[0]
    assert wrapped[1] > 1.5 * wide[1]


def history(intra, epochs=4):
    epoch = np.arange(epochs)
    columns = {"epoch": epoch, "loss": 3.0, "loss_self": 3.0 - epoch / epochs, "loss_intra": intra, "loss_inter": intra}
    return pd.DataFrame(
        columns | {"log_out_dim": 4.2, "teacher_entropy": 2.0, "effective_rank": 5.0, "reassigned_fraction": np.nan}
    )


def test_training_draws_a_line_a_run_and_leaves_out_what_no_run_has():
    one = figures.plot_training({"dino": history(0.0)})
    two = figures.plot_training({"dino": history(0.0), "slpd": history(2.0)})
    assert pixels(one, BLUE) > 100
    assert pixels(one, ORANGE) == 0
    assert pixels(two, ORANGE) > 100
    assert size(two)[1] > 1.5 * size(one)[1]  # three panels in a row; L_intra and L_inter begin a second


@pytest.mark.parametrize(
    ("column", "beside_uniform"),
    [
        ("entropy_intra", True),
        ("entropy_inter", True),
        ("reassigned_fraction", False),
        ("min_cluster_size", False),
        ("slides_without_prototypes_fraction", False),
        ("same_patient_fraction", False),
    ],
)
def test_what_is_watched_has_a_panel_where_a_run_has_a_finite_value(column, beside_uniform):
    plain = history(0.0)  # three panels, one row
    infinite = plain.assign(**{column: [np.nan, np.inf, -np.inf, np.nan]})
    lacking = figures.plot_training({"dino": plain, "slpd": infinite})
    having = figures.plot_training({"dino": plain, "slpd": plain.assign(**{column: [np.nan, 0.0, 1.0, np.inf]})})
    assert size(lacking) == size(figures.plot_training({"dino": plain, "slpd": plain}))
    assert size(having)[1] > 1.5 * size(lacking)[1]
    alone = {"slpd": plain[["epoch", "log_out_dim"]].assign(**{column: [np.nan, 0.0, 1.0, np.inf]})}
    drawn = figures.plot_training(alone)
    assert pixels(drawn, BLUE) > 100
    assert (pixels(drawn, GRAY) > 200) == beside_uniform


def test_one_legend_names_every_run():
    same = history(2.0)
    hidden = {"dino": same, "slpd": same}  # dino's lines lie beneath, its color is left in the legend
    columns = ["epoch", "log_out_dim", "loss_self"]
    one_panel = figures.plot_training({run: frame[columns] for run, frame in hidden.items()})
    assert pixels(one_panel, BLUE) > 50
    assert pixels(figures.plot_training(hidden), BLUE) == pytest.approx(pixels(one_panel, BLUE), rel=0.3)


def test_training_does_with_the_columns_there_are():
    frame = history(2.0)[["epoch", "loss", "loss_self", "loss_intra", "loss_inter", "log_out_dim"]]
    assert pixels(figures.plot_training({"slpd": frame}), BLUE) > 100
    assert size(figures.plot_training({"slpd": frame.iloc[:0]}))[0] > 300


def two_clouds(n=20, dim=8):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(n, dim)), rng.normal(size=(n, dim)) + 30]).astype(np.float32)


def test_the_projection_keeps_groups_apart_and_is_the_same_twice():
    plane = projection.fit_tsne(two_clouds(), 30, seed=1)
    a, b = plane[:20], plane[20:]
    within = max(np.linalg.norm(group - group.mean(0), axis=1).max() for group in (a, b))
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 2 * within
    np.testing.assert_array_equal(plane, projection.fit_tsne(two_clouds(), 30, seed=1))


@pytest.mark.parametrize(("n", "drawn"), [(0, 0), (1, 0), (4, 0), (5, 5), (6, 6)])
def test_fewer_than_five_regions_are_not_projected(n, drawn):
    plane = projection.fit_tsne(np.random.default_rng(0).normal(size=(n, 8)), 30, seed=1)
    assert plane.shape == (drawn, 2)
    assert np.isfinite(plane).all()


def test_a_collapsed_run_is_not_projected():
    assert len(projection.fit_tsne(np.ones((50, 8)), 30, seed=1)) == 0


def plane_of(points, labels="xy"):
    names = [labels[i % 2] for i in range(len(points))]
    return pd.DataFrame({"x": points[:, 0], "y": points[:, 1], "slide_id": names, "by label": names})


def test_tsne_shows_labels_or_says_that_there_is_nothing():
    drawn = figures.plot_tsne({"slpd": plane_of(two_clouds(dim=2))})
    empty = figures.plot_tsne({"slpd": plane_of(np.empty((0, 2)))})
    assert min(pixels(drawn, color, 60) for color in (BLUE, ORANGE)) > 100
    assert max(pixels(empty, color, 60) for color in (BLUE, ORANGE)) == 0


def test_each_task_has_a_panel_and_the_slides_without_a_label_are_drawn_by_slide_alone():
    plane = plane_of(two_clouds(dim=2))
    one, two = (size(figures.plot_tsne({"slpd": frame})) for frame in (plane, plane.assign(**{"by grade": "1"})))
    assert two == (one[0], pytest.approx(1.5 * one[1], abs=2))
    half = plane.assign(**{"by label": plane["by label"].replace("y", np.nan)})
    labeled, unlabeled = figures.plot_tsne({"slpd": plane}), figures.plot_tsne({"slpd": half})
    assert size(labeled) == size(unlabeled)
    assert pixels(unlabeled, ORANGE, 60) < 0.6 * pixels(labeled, ORANGE, 60)
    without = figures.plot_tsne({"slpd": plane.drop(columns="by label")})
    assert size(without) == (one[0], pytest.approx(one[1] / 2, abs=2))
    assert min(pixels(without, color, 60) for color in (BLUE, ORANGE)) > 50


def test_regions_are_projected_with_the_labels_of_every_task():
    """A task may be called as a column; a slide may lack a label, and one that is not chosen is not projected."""
    slides = np.repeat(["a", "b", "c", "d"], 10)
    embed = pd.DataFrame({"slide_id": slides, "x": 0, "y": 0, "embedding": [*two_clouds()]})
    labels = {"x": {"a": "1", "b": "2", "d": "2"}, "slide_id": {"a": "low", "c": "high"}}
    plane = projection.project_regions(embed, ["c", "b", "a"], labels, 5.0, seed=1)
    assert plane["slide_id"].tolist() == [*slides[:30]]
    assert plane["by x"].fillna("none").tolist() == ["1"] * 10 + ["2"] * 10 + ["none"] * 10
    assert plane["by slide_id"].fillna("none").tolist() == ["low"] * 10 + ["none"] * 10 + ["high"] * 10
    expected = projection.fit_tsne(two_clouds()[:30], 5.0, seed=1)
    np.testing.assert_array_equal(plane[["x", "y"]], expected)
    assert len(projection.project_regions(embed, [], labels, seed=1)) == 0
    grade = pd.Series(pd.Categorical(["low", "high"], ["low", "high"], ordered=True), index=["a", "b"])
    by_grade = projection.project_regions(embed, ["c", "b", "a"], {"grade": grade}, 5.0, seed=1)["by grade"]
    assert by_grade.cat.categories.tolist() == ["low", "high"]
    assert by_grade.cat.codes.tolist() == [0] * 10 + [1] * 10 + [-1] * 10


def test_runs_stand_side_by_side_and_wrap():
    """Each has two panels; panels without a run are blank."""
    one, *sizes = [
        size(figures.plot_tsne({run: plane_of(two_clouds(dim=2)) for run in "abcdefg"[:n]})) for n in (1, 2, 3, 4)
    ]
    assert sizes == [(2 * one[0], one[1]), (3 * one[0], one[1]), (3 * one[0], 2 * one[1])]
    four = figures.plot_tsne({run: plane_of(two_clouds(dim=2)) for run in "abcd"})
    over = np.asarray(Image.open(io.BytesIO(four)).convert("L"))[one[1] + 20 :, 3 * one[0] // 2 :]
    assert (over == 255).all()


def test_a_label_is_text_whatever_it_holds():
    label = r"$\frac{1$"
    assert size(figures.plot_tsne({"slpd": plane_of(two_clouds(dim=2), [label, "<b>"])}))[0] > 300


def test_a_dozen_runs_are_told_apart():
    styles = line_styles([str(i) for i in range(12)])
    assert len({tuple(style.values()) for style in styles.values()}) == 12


def test_a_figure_is_the_same_twice():
    histories = {"dino": history(0.0), "slpd": history(2.0)}
    assert figures.plot_training(histories) == figures.plot_training(histories)
    one, other = (figures.plot_roc({"MIL": {"slpd": planted_curves(1)}}, ["slpd"]) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(("koleo", "floor_is_zero"), [([1.6, 0.5], True), ([0.3, -0.4], False)])
def test_a_curve_below_zero_is_not_cut_off(koleo, floor_is_zero):
    axis = Figure().subplots()
    frame = pd.DataFrame({"epoch": [0, 1], "koleo": koleo, "log_out_dim": 5.0})
    _training_panel(axis, "koleo", {"dino": frame}, ["dino"])
    assert axis.get_ylim()[0] <= min(koleo)
    assert (axis.get_ylim()[0] == 0) == floor_is_zero
