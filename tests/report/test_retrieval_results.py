"""Results of retrieval: influences as those of accuracy, which is a mean over cases too; differences paired."""

import numpy as np
import pandas as pd
import pytest

from slpd_core.endpoints.kinds import Classification
from slpd_core.report import retrieval_results, uncertainty

X_OR_Y = Classification(("x", "y"))


def plant_queries(n_patients=12, n_folds=3, hit=0.7, seed=0, numbers=(1,)):
    """A `retrieval` table of patients with one to three slides, each tested in one fold."""
    rng, rows = np.random.default_rng(seed), []
    for number in numbers:
        for patient in range(n_patients):
            for slide in range(1 + patient % 3):
                votes = (rng.random(3) < hit).astype(float)
                cells = (f"s{patient}-{slide}", f"p{patient}", "xy"[patient % 2], hit * rng.random(), *votes)
                rows.append((number, patient % n_folds, *cells))
    columns = ["n_prototypes", "fold", "slide_id", "patient_id", "label", "ap_5", "mv_1", "mv_3", "mv_5"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(("n_patients", "n_folds"), [(12, 3), (4, 3), (5, 5), (6, 1)])
def test_the_influence_on_a_mean_is_that_on_accuracy(n_patients, n_folds):
    """Also where a fold tests one patient only, or there is one fold."""
    queries = plant_queries(n_patients, n_folds)
    right = queries["mv_1"] == (queries["label"] == "y")  # predicts y
    predicted = queries.assign(p_y=right.astype(float), p_x=1.0 - right)
    hits = queries.assign(hit=(predicted["p_y"] > 0.5) == (predicted["label"] == "y")).astype({"hit": float})
    expected = uncertainty.compute_influences(predicted, X_OR_Y, 0.65)["accuracy"]
    found = uncertainty.compute_mean_influence(hits, "hit", 0.65)
    pd.testing.assert_series_equal(found.values, expected.values, check_names=False)
    np.testing.assert_allclose(found.parts, expected.parts[found.parts.columns], atol=1e-12)
    assert (found.n_effective, found.training) == (expected.n_effective, expected.training)
    np.testing.assert_allclose(found.interval(), expected.interval())


def test_queries_without_a_score_do_not_count():
    queries = plant_queries()
    lost = queries["patient_id"].isin(["p0", "p4"])
    found = uncertainty.compute_mean_influence(queries.assign(ap_5=queries["ap_5"].mask(lost)), "ap_5")
    expected = uncertainty.compute_mean_influence(queries[~lost], "ap_5")
    pd.testing.assert_frame_equal(found.parts, expected.parts)
    assert found.interval() == expected.interval()


def test_the_summary_holds_means_over_folds_and_paired_differences():
    tables = {
        "patch_tokens": plant_queries(hit=0.5, seed=1),
        "mean_token": plant_queries(hit=0.6, seed=2, numbers=(1, 4)),
        "slpd": plant_queries(hit=0.9, seed=3, numbers=(1, 4)),
    }
    summary = retrieval_results.summarize_retrieval(tables, "mean_token", X_OR_Y, pd.DataFrame())
    assert summary[["features", "n_prototypes"]].to_numpy().tolist() == [
        *(["patch_tokens", 1], ["mean_token", 1], ["mean_token", 4], ["slpd", 1], ["slpd", 4])
    ]
    of = tables["slpd"].query("n_prototypes == 4")
    line = summary.iloc[4]
    for score in ("ap_5", "mv_1", "mv_3", "mv_5"):
        assert line[f"{score}_mean"] == pytest.approx(of.groupby("fold")[score].mean().mean())
        assert line[f"{score}_low"] < line[f"{score}_mean"] < line[f"{score}_high"]
    assert (line["queries"], line["folds"]) == (len(of), 3)
    gap = line["ap_5_mean"] - summary.loc[2, "ap_5_mean"]
    assert line["ap_5_difference"] == pytest.approx(gap)
    assert line["ap_5_difference_low"] < gap < line["ap_5_difference_high"]
    assert summary.loc[[1, 2], "ap_5_difference"].isna().all()
    (table,) = retrieval_results.format_retrieval(
        summary.assign(level="region", pretraining=summary["features"]), "mean_token", X_OR_Y
    )
    assert [cells[-1] == "reference" for _, cells in table.lines] == [False, True, True, False, False]
    assert [heads[-1] for heads, _ in table.lines] == ["1", "1", "4", "1", "4"]


def test_features_with_other_prototypes_than_the_reference_have_no_difference():
    tables = {"patch_tokens": plant_queries(), "slpd": plant_queries(numbers=(1, 4))}
    summary = retrieval_results.summarize_retrieval(tables, "patch_tokens", X_OR_Y, pd.DataFrame())
    assert summary["ap_5_difference"].isna().tolist() == [True, False, True]
