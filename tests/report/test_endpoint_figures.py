"""Figures of endpoints and of external cohorts show the values of their arguments, and their texts do not collide."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from slpd_core.endpoints.survival import kaplan_meier, logrank_test, split_at_median
from slpd_core.report import curves, figures
from slpd_core.report.figures import survival
from slpd_core.report.figures.style import PALETTE
from tests.fixtures.endpoints import plant_hazards

# Freireich et al. (Blood 1963): weeks of remission under placebo and 6-MP, as in every textbook
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
DRUG = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
TIME = np.array(DRUG + PLACEBO, float)
EVENT = np.array([True] * 9 + [False] * 12 + [True] * 21)
HIGH = np.repeat([False, True], 21)
NONE = np.zeros(42, bool)
LONG = ["well differentiated adenocarcinoma", "moderately differentiated", "poorly differentiated", "in situ", "x", "y"]
GRADES = [f"grade_group_{i}" for i in range(1, 7)]


@pytest.fixture
def draw(monkeypatch):
    """Plot, and return the figure behind the PNG."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: saved.append(figure) or save(figure, *args, **kw)
    )

    def draw(plot, *args, **options):
        assert plot(*args, **options)[:4] == b"\x89PNG"
        return saved[-1]

    return draw


def texts(figure):
    """The texts that a reader sees."""
    figure.draw_without_rendering()
    hidden = set()
    for axis in (side for axes in figure.axes for side in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        hidden |= set() if axis.axes.axison else {axis.label}
        for tick in axis.get_major_ticks():
            if not axis.axes.axison or not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def assert_legible(figure):
    """No text is cut off by the picture, and none lies over another."""
    shown = texts(figure)
    boxes = [text.get_window_extent() for text in shown]
    for text, box in zip(shown, boxes, strict=True):
        assert min(box.x0, box.y0, figure.bbox.width - box.x1, figure.bbox.height - box.y1) >= -1, text
    upright = [box for text, box in zip(shown, boxes, strict=True) if text.get_rotation() in (0, 90)]
    assert not [(a, b) for i, a in enumerate(upright) for b in upright[:i] if a.overlaps(b)]


def values_at(line, times):
    """Values of a drawn line of steps just after some times."""
    x, y = line.get_data()
    return y[np.searchsorted(x, times, side="right") - 1]


def test_the_drawn_steps_are_the_kaplan_meier_curves_with_their_groups(draw):
    axis, table = draw(figures.plot_kaplan_meier, {"6-MP": (TIME, EVENT, HIGH)}).axes
    lines = {line.get_color(): line for line in axis.lines if line.get_drawstyle() == "steps-post"}
    at = np.arange(0, 36, 0.5)
    for color, member in zip(PALETTE, (~HIGH, HIGH), strict=False):
        curve = kaplan_meier(TIME[member], EVENT[member])
        np.testing.assert_array_equal(
            values_at(lines[color], at[at <= curve.time[-1]]), curve.at(at[at <= curve.time[-1]])
        )
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["low risk: n = 21, events = 9", "high risk: n = 21, events = 21"]
    assert axis.get_legend().get_title().get_text() == "log-rank p < 0.001"
    ticks = [tick for tick in axis.get_xticks() if 0 <= tick <= 35]
    assert ticks == [0, 10, 20, 30]
    assert [text.get_text() for text in table.texts] == [
        *("low risk", "21", "15", "8", "4"),
        *("high risk", "21", "8", "2", "0"),
    ]


def test_every_time_of_censoring_has_a_tick_on_its_curve(draw):
    axis = draw(figures.plot_kaplan_meier, {"6-MP": (TIME, EVENT, HIGH)}).axes[0]
    drug, placebo = (line for line in axis.lines if line.get_marker() == "|")
    assert drug.get_xdata().tolist() == sorted({*DRUG[9:]})
    np.testing.assert_array_equal(drug.get_ydata(), kaplan_meier(TIME[:21], EVENT[:21]).at(drug.get_xdata()))
    assert len(placebo.get_xdata()) == 0


@pytest.mark.parametrize("n", [1, 2, 40])
def test_the_band_holds_the_curve_up_to_its_end(n):
    rng = np.random.default_rng(n)
    curve = kaplan_meier(rng.exponential(5, n), np.ones(n, bool))
    axis = Figure().subplots()
    survival._draw_curve(axis, curve, "all", "k")
    x, y = axis.collections[0].get_paths()[0].vertices.T
    assert x.max() == curve.time[-1]
    assert np.isfinite(y).all()
    assert 0 <= y.min() <= y.max() <= 1
    for time, value in zip(curve.time[:-1], curve.survival[:-1], strict=True):
        assert y[np.isclose(x, time)].min() <= value <= y[np.isclose(x, time)].max()


def test_p_is_that_of_the_logrank_test_and_never_a_number_where_it_is_undefined(draw):
    rng = np.random.default_rng(1)
    time, event = plant_hazards(1, np.zeros(60))
    high = rng.random(60) < 0.5
    p = logrank_test(time, event, high)[1]
    assert p > 0.001
    panels = {"p": (time, event, high), "no event": (TIME, NONE, HIGH), "one group": (TIME, EVENT, NONE)}
    drawn = [axis.get_legend() for axis in draw(figures.plot_kaplan_meier, panels).axes if axis.get_legend()]
    titles = [legend.get_title().get_text() for legend in drawn]
    assert titles == [f"log-rank p = {p:.3f}", *["log-rank test: not defined"] * 2]


def cohort(n, ties=False, scale=1.0):
    """Times, events and groups of n cases whose risk is planted."""
    risk = np.random.default_rng(n).normal(size=n)
    time, event = plant_hazards(n, risk)
    return scale * (np.ceil(3 * time) if ties else time), event, split_at_median(risk)


@pytest.mark.parametrize(
    "panels",
    [
        {},
        {"ABMIL on region embeddings of slpd, whose patch encoder is DINO (stage one)": cohort(5)},
        {f"features_{i}, classifier {i}": cohort(500, scale=365.25) for i in range(5)},
        {"no case": cohort(0), "one case": cohort(1), "ties": cohort(60, ties=True), "days": cohort(40, scale=1e4)},
        {"no event": (TIME, NONE, HIGH), "all at 0": (0 * TIME, EVENT, HIGH), "one group empty": (TIME, EVENT, NONE)},
    ],
    ids=["none", "5 slides", "500 slides", "degenerate", "undefined"],
)
def test_kaplan_meier_is_legible(draw, panels):
    assert_legible(draw(figures.plot_kaplan_meier, panels, time_label="overall survival (months)"))


TIMES = np.linspace(1, 30, 25)


def aucs(level, folds=3):
    """Time-dependent AUC of a few folds, about a level."""
    return np.clip(level + np.random.default_rng(folds).normal(size=(folds, len(TIMES))) / 20, 0, 1)


def test_a_line_of_aucs_is_the_mean_over_the_folds_where_it_is_defined(draw):
    slpd = aucs(0.8)
    slpd[0, :5] = np.nan
    slpd[:, 7] = np.nan
    axis = draw(figures.plot_dynamic_auc, {"MIL": {"dino": aucs(0.6), "slpd": slpd}}, ["dino", "slpd"], TIMES).axes[0]
    chance, *lines = axis.lines
    assert chance.get_ydata() == [0.5, 0.5]
    assert [line.get_label() for line in lines] == ["dino", "slpd"]
    assert [line.get_color() for line in lines] == [*PALETTE[:2]]
    np.testing.assert_allclose(lines[0].get_ydata(), aucs(0.6).mean(0))
    kept = np.delete(np.arange(len(TIMES)), 7)
    np.testing.assert_array_equal(lines[1].get_xdata(), TIMES[kept])
    np.testing.assert_allclose(lines[1].get_ydata(), [np.mean(fold[~np.isnan(fold)]) for fold in slpd[:, kept].T])


@pytest.mark.parametrize(
    ("panels", "times"),
    [
        ({}, TIMES),
        ({"MIL": {"slpd": np.full((5, len(TIMES)), np.nan)}}, TIMES),
        ({"MIL": {"slpd": np.empty((5, 0))}}, TIMES[:0]),
        ({"MIL": {"slpd": aucs(0.7)[:, :1]}}, TIMES[:1]),
        (
            {f"classifier {i}": {"dino": aucs(0.3), "slpd": aucs(0.1, 1), "patch_tokens": aucs(0.9)} for i in range(6)},
            TIMES,
        ),
    ],
    ids=["none", "undefined", "no event", "one time", "many"],
)
def test_dynamic_auc_is_legible_and_nothing_lies_beyond_the_axes(draw, panels, times):
    figure = draw(figures.plot_dynamic_auc, panels, ["dino", "slpd"], times, time_label="time (months)")
    assert_legible(figure)
    for axis in figure.axes:
        heights = np.concatenate([[0.5], *(np.ravel(line.get_ydata()) for line in axis.lines)])
        assert not axis.axison or axis.get_ylim()[0] < heights.min() <= heights.max() < axis.get_ylim()[1]


def regression(n, scale=1.0):
    """Targets, and predictions that know something of them."""
    rng = np.random.default_rng(n)
    targets = scale * rng.gamma(2, 3, n)
    return targets / 2 + scale * rng.normal(size=n), targets


def test_regression_shows_every_case_its_scores_and_its_calibration(draw):
    predictions, targets = regression(60)
    left, right = draw(figures.plot_regression, "slpd, ABMIL", predictions, targets, target_label="TMB").axes
    np.testing.assert_array_equal(left.collections[0].get_offsets(), np.column_stack([targets, predictions]))
    residual = ((targets - predictions) ** 2).sum() / ((targets - targets.mean()) ** 2).sum()
    rho = pd.Series(targets).corr(pd.Series(predictions), method="spearman")
    mae = abs(targets - predictions).mean()
    assert left.get_title() == f"R² {1 - residual:.2f}, MAE {mae:.2f}, Spearman {rho:.2f}".replace("-", "−")
    assert (left.get_xlabel(), left.get_ylabel()) == ("TMB", "predicted TMB")
    for axis in (left, right):
        assert axis.get_xlim() == axis.get_ylim()
        np.testing.assert_array_equal(*axis.lines[0].get_data())  # the line of equality
    predicted, mean, _ = curves.calibrate_regression(targets, predictions)
    np.testing.assert_array_equal(right.lines[1].get_data(), [predicted, mean])


@pytest.mark.parametrize(
    "cases",
    [
        *(regression(n) for n in (0, 1, 2, 5, 500)),
        regression(40, scale=1e6),
        tuple(3e6 + values for values in regression(40, scale=2e4)),
        regression(40, scale=1e-6),
        (np.ones(9), np.arange(9.0)),
        (np.arange(9.0), np.ones(9)),
        (np.zeros(3), np.zeros(3)),
    ],
    ids=["0", "1", "2", "5", "500", "large", "offset", "small", "one prediction", "one target", "nothing but 0"],
)
@pytest.mark.parametrize("label", ["target", "lymphocytes per square millimeter of tumor tissue (CD8+, by hand)"])
def test_regression_is_legible_and_its_scores_are_never_nan(draw, cases, label):
    figure = draw(figures.plot_regression, "slpd, ABMIL", *cases, target_label=label)
    assert_legible(figure)
    assert "nan" not in figure.axes[0].get_title()
    for points in figure.axes[0].collections:
        (low, high), offsets = figure.axes[0].get_xlim(), points.get_offsets()
        assert low < offsets.min() <= offsets.max() < high


def classes_of(n, C, level=1.5):
    """Probabilities, and labels that they know something of."""
    rng = np.random.default_rng([n, C])
    labels = rng.integers(C, size=n)
    odds = np.exp(rng.normal(size=(n, C)) + level * np.eye(C)[labels])
    return odds / odds.sum(1, keepdims=True), labels


def test_decision_curves_stand_beside_treating_all_and_none(draw):
    probabilities, labels = classes_of(200, 2)
    lines = {"slpd": probabilities, "dino": probabilities[::-1]}
    (axis,) = draw(figures.plot_decision, lines, labels, ["wild type", "mutant"]).axes
    assert axis.get_title() == "mutant"
    drawn = {line.get_label(): line.get_ydata() for line in axis.lines}
    t = curves.THRESHOLDS
    np.testing.assert_allclose(drawn["treat all"], labels.mean() - (1 - labels.mean()) * t / (1 - t), atol=1e-12)
    assert drawn["treat none"] == [0, 0]
    np.testing.assert_array_equal(drawn["slpd"], curves.net_benefit(probabilities[:, 1], labels == 1, t))
    assert axis.get_ylim()[1] > max(drawn["slpd"].max(), labels.mean())


@pytest.mark.parametrize("C", [2, 3, 6])
@pytest.mark.parametrize("n", [0, 1, 5, 500])
def test_decision_curves_have_a_panel_per_class_and_are_legible(draw, C, n):
    probabilities, labels = classes_of(n, C)
    lines = {f"features {i}, classifier with a long name": probabilities for i in range(8)}
    figure = draw(figures.plot_decision, lines, labels, [f"adenocarcinoma of {name}" for name in GRADES[:C]])
    assert_legible(figure)
    titles = [axis.get_title().split()[-1] for axis in figure.axes if axis.axison]
    assert titles == ([] if n == 0 else GRADES[1:2] if C == 2 else GRADES[:C])


@pytest.mark.parametrize("C", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("names", [LONG, GRADES, ["LUAD", "LUSC", "KIRC", "KIRP", "KICH", "BRCA"]], ids=lambda n: n[0])
def test_confusion_is_legible_whatever_the_names_and_shows_the_counts(draw, C, names):
    probabilities, labels = classes_of(500, C)
    figure = draw(figures.plot_predictions, "slpd, ABMIL", probabilities, labels, names[:C], cases="external slides")
    assert_legible(figure)
    left = figure.axes[0]
    assert left.get_title() == "external slides"
    assert [label.get_text().replace("\n", " ") for label in left.get_xticklabels()] == names[:C]
    counts = {(text.get_position()[::-1]): int(text.get_text().split("\n")[0]) for text in left.texts}
    expected = pd.crosstab(labels, probabilities.argmax(1)).stack()
    assert {cell: count for cell, count in counts.items() if count} == expected[expected > 0].to_dict()


def test_many_classes_have_room(draw):
    probabilities, labels = classes_of(500, 10)
    figure = draw(figures.plot_predictions, "ten", probabilities, labels, [*"abcdefghij"])
    assert_legible(figure)


def plane(column):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=60), "y": rng.normal(size=60), "slide_id": "a", "by os": column})


def legend_names(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_groups_of_tsne_keep_their_order_and_empty_ones_are_left_out(draw):
    names = ["event by 24.3", "beyond 24.3", "censored before"]
    column = [names[1], names[0], None] * 20
    drawn = draw(figures.plot_tsne, {"slpd": plane(pd.Categorical(column, names))})
    assert legend_names(drawn) == names[:2]
    assert legend_names(draw(figures.plot_tsne, {"slpd": plane(column)})) == sorted(names[:2])
    assert sum(len(points.get_offsets()) for points in drawn.axes[0].collections) == 40


def test_ordered_groups_are_shades_of_one_scale(draw):
    """From light to dark; unordered ones have the colors of all figures."""
    names = [f"q{i} (up to {i}.5)" for i in range(1, 9)]
    column = pd.Categorical([names[i % 8] for i in range(60)], names, ordered=True)
    ordered, unordered = (
        draw(figures.plot_tsne, {"slpd": plane(of)}).axes[0].collections for of in (column, column.as_unordered())
    )
    luminance = [points.get_facecolor()[0, :3] @ [0.21, 0.72, 0.07] for points in ordered]
    assert luminance == sorted(luminance, reverse=True)
    assert math.isclose(unordered[0].get_facecolor()[0, 2], 0xB2 / 255)
