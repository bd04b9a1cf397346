"""One fold of one row: learns what is planted, nothing where nothing is, and says what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slpd_core import store
from slpd_core.evaluation import evaluate, folds, metrics

ROOT = Path(__file__).parents[2]
CLASSIFIERS = ("knn", "mil", "dsmil", "vit_wsi")


def predicted(slides, features, settings, classifier, epochs=20, fold=0):
    section = settings.folds.model_copy(update={"n_folds": 3, "val_fraction": 0.1})
    training = settings.evaluate.training.model_copy(update={"epochs": epochs})
    parts = folds.make_folds(slides, section, 1)
    return evaluate.predict_fold(parts, fold, features.__getitem__, classifier, training, 1)


@pytest.mark.parametrize("labels", [("x", "y"), ("x", "y", "z")], ids=["two", "three"])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_planted_classes_are_learnt(make_slides, plant, settings, classifier, labels):
    slides = make_slides(9, labels)
    table, classes = predicted(slides, plant(slides, 1.5), settings, classifier)
    assert classes == list(labels)
    assert metrics.fold_scores(table, classes)["auc"][0] > 0.95
    np.testing.assert_allclose(table[[f"p_{label}" for label in labels]].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_labels_without_signal_are_chance(make_slides, plant, settings, classifier):
    slides = make_slides(30, slides=(1,))
    features = plant(slides, 0.0)
    aucs = [
        metrics.fold_scores(*predicted(slides, features, settings, classifier, epochs=3, fold=fold))["auc"][0]
        for fold in range(3)
    ]
    assert 0.25 < np.mean(aucs) < 0.75  # 0.5 by design; its standard error over 3 x 20 slides is 0.075


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_same_fold_twice_is_the_same_to_the_bit(make_slides, plant, settings, classifier):
    slides = make_slides(6)
    one, other = (predicted(slides, plant(slides, 0.5), settings, classifier, epochs=2)[0] for _ in range(2))
    pd.testing.assert_frame_equal(one, other)


def test_knn_is_the_vote_of_the_nearest_means(make_slides, plant, settings):
    slides = make_slides(8, slides=(1,))
    features = plant(slides, 0.3)
    table, _ = predicted(slides, features, settings, "knn")
    parts = folds.make_folds(slides, settings.folds.model_copy(update={"n_folds": 3, "val_fraction": 0.1}), 1)
    train = parts[(parts["fold"] == 0) & (parts["part"] == "train")]
    for row in table.itertuples():
        distance = [
            np.linalg.norm(features[row.slide_id].mean(0) - features[other].mean(0)) for other in train["slide_id"]
        ]
        nearest = train["label"].to_numpy()[np.argsort(distance)[:5]]
        assert row.p_y == pytest.approx((nearest == "y").mean())


def test_slides_are_drawn_as_often_from_a_rare_class():
    labels = np.array([0] * 90 + [1] * 10)
    drawn = evaluate.sample_slides(labels.repeat(50), np.random.default_rng(0))
    assert len(drawn) == 5000
    assert (labels.repeat(50)[drawn] == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_features_that_are_not_finite_name_the_slide(make_slides, plant, settings):
    slides = make_slides(6)
    features = plant(slides, 1.0)
    for slide in features.values():
        slide[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"slide x\d\d-\d: features that are not finite"):
        predicted(slides, features, settings, "knn")


def test_a_training_part_of_one_label_is_refused(settings):
    rows = [(0, "a", "p", "x", "train"), (0, "b", "q", "x", "train"), (0, "c", "r", "y", "test")]
    parts = pd.DataFrame(rows, columns=[*store.TABLES["folds"]])
    with pytest.raises(ValueError, match=r"fold 0: its training slides show one label only \(x\)"):
        evaluate.predict_fold(parts, 0, {}.__getitem__, "knn", settings.evaluate.training, 1)


@pytest.fixture
def artifacts(make_slides, plant, settings, tmp_path):
    """Folds, tokens and embeddings on disk that carry the same planted features."""
    slides = make_slides(6)
    features = plant(slides, 1.5, dim=8)
    parts = folds.make_folds(slides, settings.folds.model_copy(update={"n_folds": 3}), 1)
    store.write_table(tmp_path / "folds.parquet", "folds", parts, store.provenance("folds", 1, {}))
    rows = [(slide, 0, 0, row) for slide, array in features.items() for row in array]
    frame = pd.DataFrame(rows, columns=["slide_id", "x", "y", "embedding"])
    meta = store.provenance("embed", 1, {}) | {"embed_dim": "8"}
    store.write_table(tmp_path / "slpd.parquet", "embed", frame, meta)
    for slide, array in features.items():
        info = store.SlideInfo(slide, store.OK, "", 9, 9, 0.5, "sheet", "f")
        regions = store.Regions(info, np.zeros((len(array), 2)), np.ones(len(array)), 4, 4, 0.5)
        with store.writing_tokens(
            tmp_path / "tokens" / f"{slide}.h5", regions, 2, 8, store.provenance("tokens", 1, {})
        ) as t:
            t[:] = np.repeat(array[:, None], 4, axis=1)
    return tmp_path


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("features", ["patch", "slpd"])
def test_the_stage_writes_its_predictions(artifacts, settings, features, classifier):
    evaluate.run(
        folds_path=artifacts / "folds.parquet",
        fold=1,
        features=features,
        classifier=classifier,
        embed_path=None if features == "patch" else artifacts / "slpd.parquet",
        tokens_dir=artifacts / "tokens",
        out_path=artifacts / "out.parquet",
        section=settings.evaluate.training.model_copy(update={"lr": 2e-3}),
        seed=1,
    )
    table, meta = store.read_table(artifacts / "out.parquet", "evaluate")
    assert (meta["features"], meta["classifier"], json.loads(meta["classes"])) == (features, classifier, ["x", "y"])
    assert (table["fold"] == 1).all()
    assert metrics.fold_scores(table, ["x", "y"])["accuracy"][0] > 0.9


def test_patch_features_are_all_tokens_of_a_slide(artifacts, monkeypatch):
    read, _ = evaluate.patch_features(artifacts / "tokens", ["x00-0"])
    whole, _ = store.read_tokens(artifacts / "tokens" / "x00-0.h5")
    np.testing.assert_array_equal(read("x00-0"), whole.tokens.reshape(-1, 8).astype(np.float32))
    monkeypatch.setattr(evaluate, "CACHE_BYTES", 0)
    np.testing.assert_array_equal(evaluate.patch_features(artifacts / "tokens", ["x00-0"])[0]("x00-0"), read("x00-0"))


def test_nearest_neighbours_need_no_torch():
    code = "import sys; from slpd_core.evaluation import evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
