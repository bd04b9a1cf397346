"""Verdicts: each check on both sides of its threshold, by planted values; what they rest on, against plain counting."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from slpd_core import artifacts
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.report import cohort_verdicts as cohort
from slpd_core.report import overview, task_verdicts, verdicts
from tests.report.planted_endpoints import FOLLOW_UP, VALUES
from tests.report.test_report import ROWS, write_without_figures

CHANCE = [
    ((0.8, 0.501, 0.9), "pass"),
    ((0.8, 0.5, 0.9), "warn"),
    ((0.501, 0.3, 0.7), "warn"),
    ((0.5, 0.3, 0.7), "fail"),
    ((0.352, 0.2, 0.49), "fail"),
    ((np.nan, np.nan, np.nan), "fail"),
]


@pytest.mark.parametrize(("numbers", "level"), CHANCE)
def test_a_score_passes_if_its_interval_is_above_chance(numbers, level):
    verdict = task_verdicts.judge_score("MIL", "AUC", *numbers, chance=0.5)
    assert verdict.level == level
    assert bool(verdict.remedy) == (level != "pass")
    assert ("exchanged" in verdict.remedy) == (numbers[2] < 0.5)


CONSTANT = [
    ((0, 4, []), "pass"),
    ((2, 4, []), "pass"),
    ((3, 4, []), "warn"),
    ((4, 4, []), "fail"),
    ((0, 4, ["X"]), "warn"),
]


@pytest.mark.parametrize(("counts", "level"), CONSTANT)
def test_one_label_for_all_is_told(counts, level):
    n_constant, n_folds, others = counts
    assert task_verdicts.judge_constant("MIL", n_constant, n_folds, others=others).level == level


def predictions_of(endpoint, folds):
    """A row of the result table as far as the check reads it: per fold the truths and the predictions."""
    frames = []
    for fold, (truth, predicted) in enumerate(folds):
        columns = dict(zip([*endpoint.targets, *endpoint.prediction_columns], [*truth, *predicted], strict=True))
        frames.append(pd.DataFrame(columns).assign(fold=fold))
    return SimpleNamespace(endpoint=endpoint, cases=pd.concat(frames))


def test_folds_of_one_prediction_are_counted():
    classes = make_endpoint("classification", ["x", "y"])
    same, other = ([0.6, 0.9], [0.4, 0.1]), ([0.6, 0.4], [0.4, 0.6])
    folds = [((["x", "y"],), same), ((["x", "y"],), other), ((["x", "x"],), same)]
    assert task_verdicts.find_constant_folds(predictions_of(classes, folds)) == (1, 2)
    values = [(([1.0, 2.0],), ([3.0, 3.0],)), (([1.0, 2.0],), ([3.0, 3.1],)), (([1.0, 2.0],), ([0.0, 0.0],))]
    assert task_verdicts.find_constant_folds(predictions_of(VALUES, values)) == (2, 3)


COLOR = [
    ((0.8, 0.5, np.nan), "pass"),
    ((0.8, 0.51, 0.01), "warn"),
    ((0.8, 0.51, 0.0), "fail"),
    ((0.8, 0.51, np.nan), "fail"),
]


@pytest.mark.parametrize(("numbers", "level"), COLOR)
def test_color_that_predicts_is_told(numbers, level):
    mean, low, lead_low = numbers
    assert task_verdicts.judge_color("KNN", "AUC", mean, low, chance=0.5, lead_low=lead_low).level == level


FOLDS = [((10, 5), "pass"), ((9, 5), "warn"), ((10, 4), "warn"), ((4, 1), "warn"), ((3, 1), "fail"), ((40, 0), "fail")]
FOLDS += [((10, None), "pass"), ((9, None), "warn")]


@pytest.mark.parametrize(("counts", "level"), FOLDS)
def test_few_test_slides_are_told(counts, level):
    assert task_verdicts.judge_folds(*counts).level == level


def test_test_cases_are_counted():
    test = [
        (0, "s1", "p1", "x"),
        (0, "s2", "p1", "x"),
        (0, "s3", "p2", "y"),
        (1, "s4", "p3", "y"),
        (1, "s5", "p3", "y"),
    ]
    table = pd.DataFrame(test, columns=["fold", "slide_id", "patient_id", "label"]).assign(part="test")
    training = table.assign(part="train", fold=1 - table["fold"])
    folds = pd.concat([table, training])
    classes = make_endpoint("classification", ["x", "y"])
    assert task_verdicts.count_test_cases(folds, classes) == (2, 0)
    assert task_verdicts.count_test_cases(folds, classes, by="patient_id") == (1, 0)
    assert task_verdicts.count_test_cases(folds, VALUES) == (2, None)
    events = folds.assign(event=folds["slide_id"].isin(["s1", "s3", "s4"]))
    assert task_verdicts.count_test_cases(events, FOLLOW_UP, by="patient_id") == (1, 1)


def test_an_untrained_patch_encoder_fails():
    assert cohort.judge_patch_encoder("random").level == "fail"
    assert {cohort.judge_patch_encoder(source).level for source in ("timm", "hipt", "dino", "features")} == {"pass"}
    assert "trained weights" not in cohort.judge_patch_encoder("features").sentence


GOOD = {"log_out_dim": 10.0, "loss_self": 6.0, "teacher_entropy": 5.0, "effective_rank": 12.0}
TRAINING = [
    ({}, "pass"),
    ({"loss_self": 9.49}, "pass"),
    ({"loss_self": 9.5}, "warn"),
    ({"loss_self": 9.8}, "fail"),
    ({"teacher_entropy": 9.79}, "pass"),
    ({"teacher_entropy": 9.8}, "fail"),
    ({"teacher_entropy": 0.21}, "pass"),
    ({"teacher_entropy": 0.2}, "fail"),
    ({"effective_rank": 4.0}, "pass"),
    ({"effective_rank": 3.9}, "warn"),
    ({"effective_rank": 1.5}, "warn"),
    ({"effective_rank": 1.4}, "fail"),
    (dict.fromkeys(GOOD, np.nan), "pass"),
]


@pytest.mark.parametrize(("changed", "level"), TRAINING)
def test_idle_and_collapsed_trainings_are_told(changed, level):
    assert cohort.judge_training("slpd", GOOD | changed).level == level


def test_a_training_without_curves_of_collapse_is_not_judged_by_them():
    assert cohort.judge_training("slpd", {"loss": 3.0}).level == "pass"


@pytest.mark.parametrize(
    ("fraction", "level"), [(0.05, "pass"), (0.06, "warn"), (0.49, "warn"), (0.5, "fail"), (1, "fail")]
)
def test_slpd_without_prototypes_is_told(fraction, level):
    verdict = cohort.judge_prototypes("slpd", fraction)
    assert verdict.level == level
    assert ("DINO rather than of SLPD" in verdict.sentence) == (level == "fail")


UNSEEN = [
    ((0.15, 0.33), "pass"),
    ((0.16, 0.33), "warn"),
    ((0.1, 0.34), "warn"),
    ((0.33, 0.9), "warn"),
    ((0.34, 0.34), "fail"),
]


@pytest.mark.parametrize(("shares", "level"), UNSEEN)
def test_tissue_that_no_region_holds_is_told(shares, level):
    share, of_slide = shares
    verdict = cohort.judge_unseen_tissue({"<s1>": of_slide, "s2": 0.0}, share)
    assert verdict.level == level
    assert ("<s1>" in verdict.sentence) == (of_slide > 1 / 3)
    assert "s2" not in verdict.sentence


def test_tissue_in_no_region_is_what_is_left_of_the_area(tmp_path):
    """Regions of 2000 px at 1 um/px are 4 mm2 each: of 16 mm2, 6 are held; of 7.6 mm2, all."""
    held = {"part": [1.0, 0.5], "all": [1.0, 1.0], "none": [], "lost": [1.0]}
    for name, fractions in held.items():
        slide = artifacts.SlideInfo(name, artifacts.OK, width_px=9000, height_px=9000, mpp=0.5, mpp_source="vendor")
        coords = np.zeros((len(fractions), 2), np.int64)
        regions = artifacts.Regions(slide, coords, np.array(fractions, np.float32), 2000, 4000, 1.0)
        artifacts.write_regions(tmp_path / f"{name}.h5", regions, artifacts.provenance("regions", 1, {}))
    columns = {"slide_id": [*held, "no file"], "tissue_mm2": [16.0, 7.6, 8.0, 4.0, 20.0], "mpp": 0.5}
    ledger = pd.DataFrame(columns | {"status": [*["ok"] * 3, artifacts.QUARANTINED, "ok"]})
    unseen, share = cohort.measure_unseen_tissue(ledger, tmp_path)
    assert unseen == pytest.approx({"part": 10 / 16, "all": 0, "none": 1})
    assert share == pytest.approx(1 - (6 + 7.6) / (16 + 7.6 + 8))
    assert cohort.measure_unseen_tissue(ledger[:0], tmp_path)[0] == {}


def embeddings_of(centers, n_regions=3, seed=0):
    rng = np.random.default_rng(seed)
    names = np.repeat([f"s{i}" for i in range(len(centers))], n_regions)
    vectors = np.repeat(centers, n_regions, axis=0) + 0.1 * rng.normal(size=(len(names), centers.shape[1]))
    return pd.DataFrame({"slide_id": names, "embedding": list(vectors.astype(np.float32))})


def test_a_slide_far_from_all_others_is_told_and_two_kinds_of_slides_are_not():
    centers = np.random.default_rng(1).normal(size=(30, 8))
    centers[15:] += 20  # another tissue, in half of the slides
    assert cohort.judge_odd_slides("slpd", cohort.measure_distances(embeddings_of(centers))).level == "pass"
    centers[[3, 4]] -= 40
    verdict = cohort.judge_odd_slides("slpd", cohort.measure_distances(embeddings_of(centers)))
    assert verdict.level == "warn"
    assert "2 slides are unlike the others: s" in verdict.sentence
    assert "s3 (" in verdict.sentence
    assert "s4 (" in verdict.sentence
    assert cohort.judge_odd_slides("slpd", {"a": 3.0}).level == "pass"
    assert cohort.judge_odd_slides("slpd", {"a": 3.01}).level == "warn"


def test_distances_are_to_the_third_nearest_slide_in_medians():
    centers = np.random.default_rng(2).normal(size=(12, 4))
    table = embeddings_of(centers)
    means = {slide: np.mean(rows.to_list(), axis=0) for slide, rows in table.groupby("slide_id")["embedding"]}
    third = {a: sorted(np.linalg.norm(means[a] - means[b]) for b in means)[3] for a in means}
    expected = {slide: value / np.median([*third.values()]) for slide, value in third.items()}
    assert cohort.measure_distances(table) == pytest.approx(expected, rel=1e-5)
    assert cohort.measure_distances(embeddings_of(centers[:7])) == {}
    assert cohort.measure_distances(embeddings_of(np.zeros((12, 4))).assign(embedding=[np.ones(4)] * 36)) == {}
    assert cohort.measure_distances(table[:0]) == {}


def test_failures_come_first_and_the_table_holds_what_the_page_says(tmp_path, settings):
    weak = ROWS | {("slpd", "vit_wsi"): -3.0}
    folder = write_without_figures(tmp_path, settings, weak, source="random", slide_remarks={})
    table = pd.read_csv(folder / "verdicts.csv", keep_default_na=False)
    assert [*table.columns] == [*overview.VERDICT_COLUMNS]
    judged = table[table["level"] != overview.ANSWER]
    order = [verdicts.VERDICT_LEVELS.index(level) for level in judged["level"]]
    assert order == sorted(order)
    levels = judged.set_index("check")["level"]
    assert levels[["Chance", "Patch encoder"]].tolist() == ["fail", "fail"]
    assert levels["Test slides per fold"] == "pass"
    assert (judged["remedy"] != "").tolist() == (judged["level"] != "pass").tolist()
    page = (folder / "index.html").read_text()
    top = page.partition('<h2 id="cohort">')[0]
    assert top.count('<li class="fail">') == (levels == "fail").sum()
    assert all(sentence in top for sentence in table["sentence"])
    assert page.count('<tr class="weak">') == 2  # slpd, and patches of little signal


@pytest.mark.parametrize("level", verdicts.VERDICT_LEVELS)
def test_a_level_is_a_word_and_a_sign_and_a_color(level, tmp_path, settings, monkeypatch):
    """So that it reads in print, and by those who do not see its color."""
    verdict = verdicts.Verdict(level, "Check", "Found <this>.", "" if level == "pass" else "Do that.")
    monkeypatch.setattr(overview, "make_overview", lambda *_, **__: overview.Overview([("", verdict)], []))
    page = (write_without_figures(tmp_path, settings, ROWS) / "index.html").read_text()
    sign = {"fail": "✕", "warn": "!", "pass": "✓"}[level]
    assert f'<li class="{level}"><span class="level"><span aria-hidden="true">{sign}</span> {level.upper()}' in page
    assert "Found &lt;this&gt;." in page
    assert ("Do that." in page) == (level != "pass")
