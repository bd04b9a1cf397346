"""Results of few training slides: intervals and differences as SciPy's, a line per features and number of slides."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from slpd_core.endpoints.kinds import Classification
from slpd_core.report import few_shot_results

X_OR_Y = Classification(("x", "y"))


def plant_scores(level, seed, n_folds=5, draws=3, shots=(1, 2)):
    """A `few_shot` table whose scores vary about a level that grows with the number of slides."""
    rng = np.random.default_rng(seed)
    keys = pd.MultiIndex.from_product(
        [range(n_folds), range(draws), shots, ["simple_shot", "logreg"]],
        names=["fold", "repeat", "shots", "classifier"],
    )
    table = keys.to_frame(index=False)
    for score in X_OR_Y.scores:
        table[score] = level + 0.05 * table["shots"] + rng.normal(0, 0.03, len(table))
    return table


def list_tests(n_folds, repeats=1):
    """A `folds` table whose slides each partition tests once."""
    rows = [(repeat * n_folds + i, f"s{i}", "test") for repeat in range(repeats) for i in range(n_folds)]
    rows += [(fold, f"s{(fold + 1) % n_folds}", "train") for fold in range(n_folds * repeats)]
    return pd.DataFrame(rows, columns=["fold", "slide_id", "part"])


def test_the_interval_is_students_and_that_of_repeated_partitions_counts_each_slide_once():
    values = pd.Series([0.6, 0.7, 0.8, np.nan, 0.65])
    mean, low, high = few_shot_results.student_interval(values, 1.0, 0.0, 1.0)
    expected = stats.ttest_1samp(values.dropna(), 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high], [values.mean(), *expected])
    mean, low, high = few_shot_results.student_interval(values, 2.0, 0.0, 1.0)
    half = stats.t.ppf(0.975, 1) * values.std() / np.sqrt(2)
    np.testing.assert_allclose([mean, low, high], [values.mean(), max(values.mean() - half, 0), 1])
    for one in (values[:1], pd.Series([0.9, 0.9]), values[3:4]):
        assert np.isnan(few_shot_results.student_interval(one, 1.0, 0.0, 1.0)[1:]).all()


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_slide_is_tested_by_each_partition(repeats):
    assert few_shot_results.count_tests(list_tests(4, repeats)) == repeats


def test_scores_are_means_over_draws_then_folds_and_differences_are_paired_by_fold():
    tables = {"mean_token": plant_scores(0.6, 1), "slpd": plant_scores(0.7, 2)}
    lost = (tables["slpd"]["fold"] == 0) & (tables["slpd"]["repeat"] > 0) & (tables["slpd"]["shots"] == 1)
    tables["slpd"] = tables["slpd"][~lost]  # a fold counts as much as any, whatever its draws
    summary = few_shot_results.summarize_few_shot(tables, "mean_token", X_OR_Y, list_tests(5))
    assert summary["features"].tolist() == ["mean_token"] * 4 + ["slpd"] * 4
    of = summary.set_index(["features", "classifier", "shots"]).loc[("slpd", "logreg", 1)]
    folds = {}
    for features, table in tables.items():
        rows = table[(table["classifier"] == "logreg") & (table["shots"] == 1)]
        folds[features] = np.array([rows.loc[rows["fold"] == fold, "auc"].mean() for fold in range(5)])
    assert of["folds"] == 5
    assert of["auc_mean"] == pytest.approx(folds["slpd"].mean())
    paired = stats.ttest_rel(folds["slpd"], folds["mean_token"])
    assert of["auc_difference"] == pytest.approx((folds["slpd"] - folds["mean_token"]).mean())
    ends = of[["auc_difference_low", "auc_difference_high"]].to_numpy(float)
    np.testing.assert_allclose(ends, [*paired.confidence_interval(0.95)])
    assert summary.loc[summary["features"] == "mean_token", "auc_difference"].isna().all()


def test_the_tables_have_a_column_a_number_of_slides_and_a_dash_where_there_is_no_score():
    tables = {"mean_token": plant_scores(0.5, 1), "slpd": plant_scores(0.6, 2, shots=(1,))}
    summary = few_shot_results.summarize_few_shot(tables, "mean_token", X_OR_Y, list_tests(5))
    names = summary.assign(level="region", pretraining=summary["features"])
    scores, differences = few_shot_results.format_few_shot(names, "mean_token", X_OR_Y)
    assert scores.columns == ["1 per class", "2 per class"]
    assert [heads for heads, _ in scores.lines] == [
        ("region", features, classifier) for features in tables for classifier in ("SimpleShot", "LR (mean)")
    ]
    assert scores.lines[2][1][1] == "–"
    assert [heads[1] for heads, _ in differences.lines] == ["slpd", "slpd"]
    assert differences.lines[0][1][0].startswith("+.1")
    assert few_shot_results.format_few_shot(names[:0], "mean_token", X_OR_Y) == []
