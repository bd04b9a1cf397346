"""Every classifier learns every kind of endpoint where it is planted, and nothing where it is not."""

import numpy as np
import pandas as pd
import pytest

from slpd_core import config
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.kinds import Survival, make_endpoint
from slpd_core.evaluation import classifiers, evaluate, folds, task_heads
from tests.fixtures.endpoints import plant_hazards

CLASSIFIERS = config.CLASSIFIERS
GRADES = ("G1", "G2", "G3")
RECIPE = {"epochs": 20, "lr": 3e-3, "cox_batch_size": 20, "linear_l2": 1.0}
RECIPES = {"vit_wsi": {"epochs": 8, "lr": 5e-4}, ("mil", "survival"): {"epochs": 60}}
CHANCE = {"ordinal": 0.0, "regression": 0.0, "survival": 0.5}


def plant(kind: str, n: int = 90, *, signal: float = 2.0, seed: int = 0, slides: int = 1):
    """Plant an endpoint: a hidden number of each patient moves its features and decides the truth."""
    rng = np.random.default_rng(seed)
    hidden, direction = rng.normal(size=n), np.eye(8)[0]
    endpoint = make_endpoint(kind, GRADES if kind == "ordinal" else ())
    if kind == "ordinal":
        truth = pd.DataFrame({"label": np.array(GRADES)[np.searchsorted([-0.5, 0.5], hidden)]})
    elif kind == "regression":
        truth = pd.DataFrame({"value": 50 + 10 * hidden})
    else:
        time, event = plant_hazards(seed, 2 * hidden)
        truth = pd.DataFrame({"time": time, "event": event})
    truth["label"] = endpoint.group(truth)
    patients = truth.assign(patient_id=[f"p{i:03d}" for i in range(n)], hidden=hidden)
    table = patients.loc[patients.index.repeat(slides)].reset_index(drop=True)
    table["slide_id"] = [f"{patient}-{i % slides}" for i, patient in enumerate(table["patient_id"])]
    features = {
        slide: (rng.normal(size=(rng.integers(3, 6), 8)) + signal * value * direction).astype(np.float32)
        for slide, value in zip(table["slide_id"], table["hidden"], strict=True)
    }
    return endpoint, table, features


def predict(endpoint: Endpoint, table: pd.DataFrame, features, classifier: str, *, bags: str = "slide", **options):
    """Predict the test slides of the first of three folds."""
    parts = folds.add_truth(folds.make_folds(table, 1, endpoint, n_folds=3), table, endpoint)
    fold = evaluate.select_fold(parts, 0, endpoint, bags)
    recipe = RECIPE | RECIPES.get(classifier, {}) | RECIPES.get((classifier, endpoint.kind), {}) | options
    return evaluate.predict_fold(fold, features.__getitem__, classifier, 1, **recipe)


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_what_is_planted_is_learnt(classifier, kind):
    endpoint, table, features = plant(kind)
    _, predictions = predict(endpoint, table, features, classifier)
    score = endpoint.score(predictions)[endpoint.main_score]
    assert score > {"ordinal": 0.6, "regression": 0.6, "survival": 0.75}[kind]
    assert [*predictions.columns] == ["fold", "slide_id", "patient_id", *endpoint.columns, *endpoint.prediction_columns]


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_shuffled_targets_are_chance(classifier, kind):
    endpoint, table, features = plant(kind, n=150)
    columns = [*endpoint.columns]
    table[columns] = table[columns].sample(frac=1, random_state=3).to_numpy()
    table = table.infer_objects()
    scores = endpoint.score(predict(endpoint, table, features, classifier, epochs=2)[1])
    # Of 50 test cases three standard errors of the C-index are about .15, of kappa .4; R² is below that of the mean.
    assert scores[endpoint.main_score] < {"ordinal": 0.4, "regression": 0.1, "survival": 0.68}[kind]


def test_the_c_index_nears_that_of_the_planted_risk():
    endpoint, table, features = plant("survival", n=240, signal=3.0)
    _, predictions = predict(endpoint, table, features, "logreg")
    best = endpoint.score(predictions.assign(risk=table.set_index("slide_id")["hidden"][predictions["slide_id"]].array))
    assert endpoint.score(predictions)["c_index"] == pytest.approx(best["c_index"], abs=0.03)
    assert 0.75 < best["c_index"] < 0.95


def test_the_error_of_a_number_nears_that_of_the_noise():
    """The mean of L instances of noise 1 tells a number of scale 10 within 10 / (signal sqrt(L))."""
    endpoint, table, features = plant("regression", n=240, signal=2.0)
    _, predictions = predict(endpoint, table, features, "logreg")
    error = (predictions["prediction"] - predictions["value"]).std()
    noise = np.sqrt(np.mean([100 / 4 / len(array) for array in features.values()]))
    assert error == pytest.approx(noise, rel=0.25)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_risks_are_on_the_scale_of_the_training_cases(classifier):
    endpoint, table, features = plant("survival", n=45)
    parts = folds.add_truth(folds.make_folds(table, 1, endpoint, n_folds=3), table, endpoint)
    fold = evaluate.select_fold(parts, 0, endpoint)
    model, _ = evaluate.predict_fold(fold, features.__getitem__, classifier, 1, epochs=2, cox_batch_size=20)
    predictor = classifiers.build_predictor(model)
    risks = [predictor(features[slide])[0][0] for slide in fold.train["slide_id"]]
    assert np.median(risks) == pytest.approx(0, abs=1e-6)
    assert np.std(risks) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", [*CHANCE, "classification"])
@pytest.mark.parametrize("classifier", ["knn", "logreg", "abmil"])
def test_a_patients_slides_are_one_bag(kind, classifier):
    """Two slides with half of the instances each are predicted as one slide with all of them."""
    endpoint, table, features = plant("survival" if kind == "classification" else kind, n=45, slides=2)
    if kind == "classification":
        table["label"] = np.where(table["hidden"] > 0, "y", "x")
        endpoint = make_endpoint(kind, ("x", "y"))
    _, divided = predict(endpoint, table, features, classifier, bags="patient", epochs=2)
    joined = table[table["slide_id"].str.endswith("-0")]
    whole = {slide: np.concatenate([features[slide], features[f"{slide[:-1]}1"]]) for slide in joined["slide_id"]}
    parts = folds.add_truth(folds.make_folds(table, 1, endpoint, n_folds=3), table, endpoint)
    parts = parts[parts["slide_id"].isin(joined["slide_id"])]
    fold = evaluate.select_fold(parts, 0, endpoint)
    _, expected = evaluate.predict_fold(fold, whole.__getitem__, classifier, 1, **RECIPE | {"epochs": 2})
    columns = endpoint.prediction_columns
    assert len(divided) == 2 * len(expected)
    by_patient = divided.groupby("patient_id")[columns]
    assert (by_patient.nunique() == 1).all(axis=None)
    np.testing.assert_array_equal(by_patient.first(), expected.sort_values("patient_id")[columns])


def test_a_bag_does_not_depend_on_the_truth_and_has_one():
    slides = pd.DataFrame({"slide_id": list("abcd"), "patient_id": ["p", "p", "p", "q"]})
    assert evaluate.name_bags(slides, "patient").tolist() == ["a", "a", "a", "d"]
    assert evaluate.name_bags(slides).tolist() == [*"abcd"]
    parts = slides.assign(label=["x", "y", "x", "x"], fold=0, part="train")
    with pytest.raises(ValueError, match=r"fold 0: evaluate\.bags: patient makes one bag .* those of p differ"):
        evaluate.select_fold(parts, 0, bags="patient")
    evaluate.select_fold(parts, 0)


@pytest.mark.parametrize("n", [2, 7, 40, 41])
@pytest.mark.parametrize("batch_size", [2, 16, 100])
def test_an_epoch_of_survival_has_every_bag_once_and_its_events_spread(n, batch_size):
    rng = np.random.default_rng(n)
    targets = np.stack([rng.random(n), np.arange(n) % 4 == 0], axis=1)
    batches = task_heads.SurvivalHead().draw_epoch(targets, rng, batch_size)
    assert sorted(np.concatenate(batches).astype(int).tolist()) == [*range(n)]
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    events = [int(targets[batch, 1].sum()) for batch in batches]
    assert max(events) - min(events) <= 1
    assert min(events) > 0


@pytest.mark.parametrize("kind", ["ordinal", "regression"])
def test_an_epoch_of_others_has_every_bag_once(kind):
    endpoint, table, _ = plant(kind, n=20)
    head = task_heads.build_head(endpoint, endpoint.encode(table))
    batches = head.draw_epoch(endpoint.encode(table), np.random.default_rng(0), 16)
    assert sorted(batches) == [[i] for i in range(20)]
    assert batches != [[i] for i in range(20)]


def test_one_event_in_a_fold_is_named_where_nothing_can_be_learnt_or_scored():
    rows = [(f"s{i}", i + 1.0, i == 3, 0, "train" if i < 8 else "test") for i in range(12)]
    parts = pd.DataFrame(rows, columns=["slide_id", "time", "event", "fold", "part"])
    parts = parts.assign(patient_id=parts["slide_id"], label="event")
    features = {slide: np.random.default_rng(0).normal(size=(3, 4)).astype("f4") for slide in parts["slide_id"]}
    endpoint = Survival()
    for classifier in CLASSIFIERS:
        fold = evaluate.select_fold(parts, 0, endpoint)
        _, table = evaluate.predict_fold(fold, features.__getitem__, classifier, 1, epochs=1)
        assert np.isfinite(table["risk"]).all()
        assert np.isnan(endpoint.score(table)["c_index"])  # no event is tested
    with pytest.raises(ValueError, match=r"fold 0: its training slides have no event; lower folds\.n_folds or add"):
        evaluate.select_fold(parts.assign(event=False), 0, endpoint)


def test_validation_slides_without_an_event_choose_no_epoch():
    endpoint, table, _ = plant("survival", n=30)
    parts = folds.make_folds(table, 1, endpoint, n_folds=3, val_fraction=0.3)
    parts = folds.add_truth(parts, table, endpoint)
    parts.loc[parts["part"] == "val", "event"] = False
    fold = evaluate.select_fold(parts, 0, endpoint)
    with pytest.raises(ValueError, match=r"fold 0: its validation slides have no event, so that they choose no epoch"):
        evaluate.select_validation(fold, "val")


@pytest.mark.parametrize("kind", CHANCE)
def test_validation_chooses_the_epoch_of_each_kind(kind):
    endpoint, table, features = plant(kind, n=60)
    parts = folds.make_folds(table, 1, endpoint, n_folds=3, val_fraction=0.3)
    fold = evaluate.select_fold(folds.add_truth(parts, table, endpoint), 0, endpoint)
    validation = evaluate.select_validation(fold, "val", (1e-5, 3e-3))
    options = {"epochs": 4, "cox_batch_size": 20}
    model, _ = evaluate.predict_fold(fold, features.__getitem__, "abmil", 1, validation=validation, **options)
    assert model.chosen["lr"] == "0.003"


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_classifier_read_again_predicts_the_same(classifier, kind, tmp_path):
    endpoint, table, features = plant(kind, n=30)
    model, predictions = predict(endpoint, table, features, classifier, epochs=1)
    classifiers.write_classifier(tmp_path / "model.safetensors", model, {})
    again, _ = classifiers.read_classifier(tmp_path / "model.safetensors")
    assert again.endpoint == endpoint
    predictor = classifiers.build_predictor(again)
    found = np.array([predictor(features[slide])[0] for slide in predictions["slide_id"]])
    np.testing.assert_array_equal(found, endpoint.predictions(predictions))
