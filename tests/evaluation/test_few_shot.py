"""Few-shot: draws are nested and equal for all features; planted classes are told from few slides, others are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from slpd_core import artifacts
from slpd_core.endpoints.kinds import Classification
from slpd_core.evaluation import evaluate, few_shot, folds

X_OR_Y = Classification(("x", "y"))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 99))
def test_a_draw_has_so_many_slides_of_each_class_and_those_of_smaller_draws(labels, seed):
    labels = np.array(labels)
    drawn = few_shot.draw_shots(labels, np.random.default_rng(seed))
    classes, counts = np.unique(labels, return_counts=True)
    assert [*drawn] == [shots for shots in (1, 2, 4, 8, 16) if shots <= counts.min()]
    before = set()
    for shots, rows in drawn.items():
        assert [np.sum(labels[rows] == c) for c in classes] == [shots] * len(classes)
        assert before < {*rows.tolist()}
        assert len({*rows.tolist()}) == len(rows)
        before = {*rows.tolist()}


def test_draws_differ_between_repeats_and_all_slides_are_drawn_equally_often():
    labels = np.array([0, 1] * 10)
    ones = [few_shot.draw_shots(labels, np.random.default_rng(seed))[1] for seed in range(2000)]
    counts = np.bincount(np.concatenate(ones), minlength=20)
    assert abs(counts - 200).max() < 70  # five standard deviations


@pytest.mark.parametrize("C", [2, 3])
def test_simple_shot_names_the_nearest_class_mean(C):
    rng = np.random.default_rng(C)
    labels = np.repeat(np.arange(C), 5)
    train, test = rng.normal(size=(5 * C, 7)) + 3, rng.normal(size=(40, 7)) + 3
    center = train.mean(0)
    unit = [np.array([(row - center) / np.sqrt(((row - center) ** 2).sum()) for row in x]) for x in (train, test)]
    expected = NearestCentroid().fit(unit[0], labels).predict(unit[1])
    predicted = few_shot.predict_simple_shot(train, labels, test, C)
    np.testing.assert_array_equal(predicted.argmax(1), expected)
    np.testing.assert_allclose(predicted.sum(1), 1)
    spread = few_shot.predict_simple_shot(train, 2 * labels, test, 2 * C)  # classes that are not trained on
    np.testing.assert_array_equal(spread[:, ::2], predicted)
    assert not spread[:, 1::2].any()


def test_simple_shot_says_nothing_of_equal_slides():
    np.testing.assert_array_equal(few_shot.predict_simple_shot(np.ones((2, 3)), np.arange(2), np.ones((4, 3)), 2), 0.5)


def scores_of(slides, means, n_folds=2, seed=1):
    """Rows of all folds for planted mean features."""
    parts, rows = folds.make_folds(slides, 1, n_folds=n_folds), []
    for i in range(n_folds):
        fold = evaluate.select_fold(parts, i)
        train, test = (np.stack([means[slide] for slide in part["slide_id"]]) for part in (fold.train, fold.test))
        rows += few_shot.evaluate_fold(fold, train, test, seed=seed)
    return pd.DataFrame(rows)


def plant_means(slides, distance, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        slide.slide_id: rng.normal(size=dim) + distance * (slide.label == "y") / np.sqrt(dim)
        for slide in slides.itertuples()
    }


def test_classes_far_apart_are_told_from_one_slide_each_and_labels_by_chance_never(make_slides, monkeypatch):
    monkeypatch.setattr(few_shot, "N_DRAWS", 1)
    slides = make_slides(34, slides=(1,))
    apart = scores_of(slides, plant_means(slides, 60.0))
    assert (apart[["auc", "accuracy"]] == 1).all(axis=None)
    assert sorted(apart["shots"].unique()) == [1, 2, 4, 8, 16]
    assert (apart.groupby(["fold", "shots", "classifier"]).size() == 1).all()
    chance = pd.concat([scores_of(slides, plant_means(slides, 0.0, seed=seed)) for seed in range(6)])
    means = chance.groupby(["classifier", "shots"])["auc"].mean()
    assert ((means - 0.5).abs() < 0.12).all()  # of 68 slides, six times: the standard error is .03


def test_more_slides_tell_overlapping_classes_better(make_slides, monkeypatch):
    monkeypatch.setattr(few_shot, "N_DRAWS", 4)
    slides = make_slides(60, slides=(1,))
    means = scores_of(slides, plant_means(slides, 2.5, dim=64)).groupby(["classifier", "shots"])["auc"].mean()
    means = means.unstack()
    assert (means[16] > means[4] + 0.05).all()
    assert (means[4] > means[1] + 0.05).all()


def test_a_number_of_slides_that_a_class_lacks_is_left_out_and_told(make_slides, monkeypatch):
    slides = make_slides(12, slides=(1,)).iloc[:19]  # 12 x, 7 y
    parts = folds.make_folds(slides, 1, n_folds=3)
    of_folds = [evaluate.select_fold(parts, i) for i in range(3)]
    monkeypatch.setattr(few_shot, "N_DRAWS", 1)
    trained = [int((fold.train["label"] == "y").sum()) for fold in of_folds]
    assert sorted(trained) == [4, 5, 5]
    assert scores_of(slides, plant_means(slides, 1.0), n_folds=3)["shots"].unique().tolist() == [1, 2, 4]
    assert few_shot.find_left_out(of_folds) == [
        f"{shots} slides per class: left out in 3 of 3 folds (0, 1, 2), where y has as few as 4 training slides."
        for shots in (8, 16)
    ]
    untrained = evaluate.Fold(0, of_folds[0].train.head(8), *[of_folds[0].test] * 2, X_OR_Y)
    assert few_shot.find_rarest(untrained) == ("y", 0)
    assert [*few_shot.evaluate_fold(untrained, np.ones((8, 2)), np.ones((len(untrained.test), 2)), seed=1)] == []


@pytest.fixture
def run(stored, settings, monkeypatch):
    """Run the stage on one kind of features; gives its table and metadata."""
    monkeypatch.setattr(few_shot, "N_DRAWS", 2)

    def run(features, seed=1):
        few_shot.run(
            folds_path=stored / "folds.parquet",
            features=features,
            embed_paths=[stored / "slpd.parquet"] * 3 if features == "slpd" else [],
            tokens_dir=stored / "tokens",
            ledger_path=stored / "ledger.parquet",
            out_path=stored / "few_shot.parquet",
            section=settings.evaluate.few_shot,
            seed=seed,
        )
        return artifacts.read_table(stored / "few_shot.parquet", "few_shot")

    return run


@pytest.mark.parametrize(
    ("features", "level"), [("slpd", "region"), ("mean_color", "color"), ("patch_tokens", "patch")]
)
def test_the_stage_scores_features_of_every_level_by_the_same_draws(run, features, level, monkeypatch):
    drawn = []
    draw = few_shot.draw_shots
    monkeypatch.setattr(few_shot, "draw_shots", lambda *of: drawn.append(draw(*of)) or drawn[-1])
    table, meta = run(features)
    assert (meta["features"], meta["level"], meta["kind"]) == (features, level, "classification")
    assert table.groupby("classifier")["auc"].mean().min() > 0.9
    assert len(table) == 2 * 3 * 2 * 3  # classifiers, folds, draws; 1, 2 and 4 slides
    left_out = [line.partition(":")[0] for line in meta["remarks"].splitlines()]
    assert left_out == ["8 slides per class", "16 slides per class"]
    of_features, drawn[:] = [{n: rows.tolist() for n, rows in one.items()} for one in drawn], []
    run("mean_token")
    assert of_features == [{n: rows.tolist() for n, rows in one.items()} for one in drawn]


def test_whitening_changes_scores_and_equal_runs_are_equal(run):
    table, meta = run("mean_token")
    whitened, of_whitened = run("whitened_mean_token")
    assert meta["fingerprint"] != of_whitened["fingerprint"]
    assert not table.equals(whitened)
    again, _ = run("mean_token")
    pd.testing.assert_frame_equal(table, again)
    assert run("mean_token", seed=2)[1]["fingerprint"] != meta["fingerprint"]
