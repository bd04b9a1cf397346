"""The last line of a run: what it names, and its words on chance."""

import math

import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.artifacts.schema import TABLES
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.workflow.outcomes import describe_outcomes, describe_score

LABEL = make_endpoint("classification", ["x", "y"])


@pytest.mark.parametrize(
    ("score", "numbers", "text"),
    [
        ("auc", (0.353, 0.131, 0.62), "AUC .35 [.13, .62] (no better than chance)"),
        ("auc", (0.9, 0.51, 1.0), "AUC .90 [.51, 1.00] (better than chance)"),
        ("c_index", (0.2, 0.1, 0.49), "C-index .20 [.10, .49] (worse than chance)"),
        ("r2", (-0.02, -1.5, 0.1), "R² −.02 [−1.50, .10] (no better than chance)"),
        ("accuracy", (0.9, 0.8, 0.95), "Accuracy .90 [.80, .95]"),
        ("auc", (0.9, math.nan, math.nan), "AUC .90"),
        ("mae", (0.25, 0.125, 12), "MAE 0.25 [0.12, 12.00]"),
    ],
)
def test_a_score_with_its_interval_and_chance(score, numbers, text):
    assert describe_score(score, *numbers) == text


@pytest.fixture
def paths(tmp_path):
    """A cohort with a ledger of three slides of which two are used, a table, and a predicted cohort without labels."""
    paths = CohortPaths(tmp_path)
    slides = {"slide_id": ["a", "b", "c"], "status": ["ok", "ok", "empty"]}
    ledger = pd.DataFrame(dict.fromkeys(TABLES["ledger"], 0) | slides)
    rows = pd.DataFrame({"row": ["mean_color/knn", "slpd/vit_wsi"], "patch_encoder": "p", "splits": "s"})
    scores = pd.DataFrame({"auc_mean": [0.95, 0.5], "auc_low": [0.9, 0.4], "auc_high": [0.99, 0.6]})
    for path, name, table in (
        (paths.ledger(), "ledger", ledger),
        (paths.external_ledger("rome"), "ledger", ledger),
        (paths.result_table("label", "parquet"), "results", pd.concat([rows, scores], axis=1)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_table(path, name, table, {})
    paths.external_predictions("rome", "label").parent.mkdir(parents=True)
    paths.external_predictions("rome", "label").touch()
    return paths


def describe(rules, paths, endpoints=None, **arguments):
    return [*describe_outcomes(rules, paths, endpoints or {"label": LABEL}, ["rome"], **arguments)]


def test_the_reference_row_is_named_and_not_the_best(paths):
    report = f"Report: {paths.page()} · 2 of 3 slides used"
    assert describe({"slide_index"}, paths) == [f"Slides: {paths.slide_index()} · 2 of 3 slides used"]
    assert describe({"report", "slide_index"}, paths) == [
        f"{report} · slpd/vit_wsi AUC .50 [.40, .60] (no better than chance)"
    ]
    named = describe({"report"}, paths, reference="mean_color/knn")
    assert named == [f"{report} · mean_color/knn AUC .95 [.90, .99] (better than chance)"]
    several = describe({"report"}, paths, {"label": LABEL, "waiting": LABEL})
    assert several == [f"{report} · label: slpd/vit_wsi AUC .50 [.40, .60] (no better than chance)"]


def test_predictions_are_named_as_the_report_is(paths):
    predictions = paths.external_predictions("rome", "label")
    assert describe({"predict_external"}, paths) == [f"Predictions: {predictions} · 2 of 3 slides used"]
    (shown,) = describe({"predict_external", "predict_index"}, paths)
    assert shown == f"Predictions: {paths.external_page('rome')} · 2 of 3 slides used"
    table = paths.external_table("rome", "label", "parquet")
    row = {"row": ["slpd/vit_wsi"], "folds": 2, "slides": 2, "patients": 2, "auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    artifacts.write_table(table, "external_results", pd.DataFrame(row), {})
    assert describe({"predict_external"}, paths)[0].endswith(" · slpd/vit_wsi AUC .70 [.60, .80] (better than chance)")


def test_a_run_of_other_targets_says_nothing_and_a_broken_table_does_not_stop_it(paths):
    assert describe({"tissue", "ledger"}, paths) == []
    paths.ledger().write_bytes(b"torn")
    paths.result_table("label", "parquet").unlink()
    assert describe({"report"}, paths) == [f"Report: {paths.page()}"]
