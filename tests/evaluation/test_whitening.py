"""Whitening: what it does to the slides it is fitted on, that it knows no others, and what it is good for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from slpd_core.endpoints.kinds import Classification, Survival
from slpd_core.evaluation import classifiers, evaluate, folds
from slpd_core.evaluation.whitening import MIN_SHRINKAGE, fit_whitening, split_whitening
from tests.fixtures.endpoints import plant_hazards

X_OR_Y = Classification(("x", "y"))


def draw_means(seed, n, dim):
    """Mean features of slides, correlated and far from 0."""
    rng = np.random.default_rng(seed)
    return 7 + rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim))


@given(st.integers(0, 99), st.integers(3, 40), st.integers(2, 24))
def test_the_training_slides_have_the_unit_covariance_up_to_shrinkage(seed, n, dim):
    """W S W = I, where S = (1 - s) C + s t I: what is whitened of C is the rest."""
    means = draw_means(seed, n, dim)
    whitening = fit_whitening(means)
    whitened = whitening(means)
    fitted = LedoitWolf().fit(means)
    shrinkage, variance = max(fitted.shrinkage_, MIN_SHRINKAGE), np.var(means, axis=0).mean()
    rest = shrinkage * variance * whitening.matrix.astype(float) @ whitening.matrix
    np.testing.assert_allclose((1 - shrinkage) * np.cov(whitened.T, bias=True) + rest, np.eye(dim), atol=2e-3)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4 * np.abs(whitened).max())
    np.testing.assert_array_equal(whitening.matrix, whitening.matrix.T)


def test_two_slides_are_enough_and_equal_ones_are_refused():
    assert np.isfinite(fit_whitening(np.eye(2, 6)).matrix).all()
    with pytest.raises(ValueError, match="mean features of 3 training slides are equal: nothing to whiten; add slides"):
        fit_whitening(np.ones((3, 6)))


def plant_offsets(slides, seed, dim=12):
    """Regions whose label lies along one direction, behind an offset of the slide along three others."""
    rng = np.random.default_rng(seed)
    label, *offsets = np.linalg.qr(rng.normal(size=(dim, 4)))[0].T
    features = {}
    for slide in slides.itertuples():
        offset = 5 * rng.normal(size=3) @ np.array(offsets)
        regions = rng.normal(size=(rng.integers(3, 9), dim)) + offset + 2.5 * (slide.label == "y") * label
        features[slide.slide_id] = regions.astype(np.float32)
    return features


def test_an_offset_of_the_slide_hides_the_label_from_the_mean_token_alone(make_slides):
    """Of nearest slides: a classifier that is trained on enough labels can see past the offset by itself."""
    slides = make_slides(40, slides=(1,))
    fold, aucs = evaluate.select_fold(folds.make_folds(slides, 1, n_folds=2), 0), {False: [], True: []}
    for seed in range(3):
        features = plant_offsets(slides, seed)
        for whiten, of_seeds in aucs.items():
            model, table = evaluate.predict_fold(fold, features.__getitem__, "knn", 1, whiten=whiten)
            of_seeds.append(X_OR_Y.score(table)["auc"])
            assert (split_whitening(model.arrays)[0] is not None) == whiten
    assert min(aucs[True]) > 0.95
    assert np.mean(aucs[False]) < 0.8


@pytest.mark.parametrize("classifier", ["logreg", "abmil"])
def test_a_model_knows_nothing_of_the_test_slides(make_slides, plant, classifier):
    slides = make_slides(6)
    features, fold = plant(slides, 0.5), evaluate.select_fold(folds.make_folds(slides, 1, n_folds=3), 0)
    others = features | {slide: 100 - features[slide] ** 2 for slide in fold.test["slide_id"]}
    models = [
        evaluate.predict_fold(fold, read.__getitem__, classifier, 1, whiten=True, epochs=1)[0]
        for read in (features, others)
    ]
    for name, array in models[0].arrays.items():
        np.testing.assert_array_equal(array, models[1].arrays[name])
    means = np.stack([features[slide].mean(0) for slide in fold.train["slide_id"]])
    np.testing.assert_array_equal(split_whitening(models[0].arrays)[0].matrix, fit_whitening(means).matrix)


@pytest.mark.parametrize("classifier", ["knn", "logreg", "mil", "abmil", "dsmil", "vit_wsi"])
def test_a_model_that_is_read_whitens_the_features_of_new_slides(make_slides, plant, tmp_path, classifier):
    slides = make_slides(6)
    features, fold = plant(slides, 0.5), evaluate.select_fold(folds.make_folds(slides, 1, n_folds=3), 0)
    model, table = evaluate.predict_fold(fold, features.__getitem__, classifier, 1, whiten=True, epochs=1)
    classifiers.write_classifier(tmp_path / "m.safetensors", model, {"fingerprint": "f"})
    predict = classifiers.build_predictor(classifiers.read_classifier(tmp_path / "m.safetensors")[0])
    for row in table.itertuples():
        assert predict(features[row.slide_id])[0][1] == pytest.approx(row.p_y, abs=1e-6)


def test_a_risk_is_on_the_scale_of_whitened_training_slides(make_slides, plant):
    slides = make_slides(12, slides=(1,))
    time, event = plant_hazards(0, np.random.default_rng(0).normal(size=len(slides)))
    features, slides = plant(slides, 0.5), slides.assign(time=time, event=event)
    parts = folds.add_truth(folds.make_folds(slides, 1, Survival(), n_folds=2), slides, Survival())
    fold = evaluate.select_fold(parts, 0, Survival())
    model, _ = evaluate.predict_fold(fold, features.__getitem__, "logreg", 1, whiten=True)
    risks = [classifiers.build_predictor(model)(features[slide])[0][0] for slide in fold.train["slide_id"]]
    assert np.median(risks) == pytest.approx(0, abs=1e-6)
    assert np.std(risks) == pytest.approx(1)
