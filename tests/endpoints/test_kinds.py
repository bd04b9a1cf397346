"""Each kind of endpoint reads its truth from texts, encodes it, and scores predictions as its functions do."""

import math

import numpy as np
import pandas as pd
import pytest

from slpd_core.endpoints import kinds
from slpd_core.endpoints.concordance import concordance_index
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.endpoints.scores import SCORES

CLASSES = {"classification": ("a", "b", "c"), "ordinal": ("a", "b", "c"), "regression": (), "survival": ()}
ENDPOINTS = [kinds.make_endpoint(kind, classes) for kind, classes in CLASSES.items()]


def draw(endpoint: Endpoint, n: int, *, perfect: bool, seed: int = 0) -> pd.DataFrame:
    """Draw the truth of n slides, and predictions that are right, or know nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.permutation(n).astype(float)
    guess = hidden if perfect else rng.permutation(n).astype(float)
    if endpoint.has_classes:
        p = np.eye(3)[(guess * 3 // n).astype(int)]
        truth = pd.DataFrame({"label": np.array(endpoint.classes)[(hidden * 3 // n).astype(int)]})
    else:
        truth = pd.DataFrame({"value": hidden}) if endpoint.kind == "regression" else None
        p = guess[:, None]
    if truth is None:
        truth, p = pd.DataFrame({"time": n - hidden, "event": rng.random(n) < 0.6}), guess[:, None]
    return truth.assign(**dict(zip(endpoint.prediction_columns, p.T, strict=True)))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.kind)
def test_the_truth_scores_best_and_chance_scores_as_chance(endpoint):
    best, chance = (endpoint.score(draw(endpoint, 600, perfect=perfect)) for perfect in (True, False))
    assert set(best) == set(endpoint.scores)
    assert best[endpoint.main_score] == pytest.approx(1)
    expected = {"auc": 0.5, "kappa": 0.0, "r2": -1.0, "c_index": 0.5}[endpoint.main_score]
    assert chance[endpoint.main_score] == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.kind)
def test_every_score_is_within_its_range(endpoint):
    assert endpoint.main_score in endpoint.shown_scores
    assert set(endpoint.shown_scores) <= set(endpoint.scores)
    for seed in range(20):
        for name, value in endpoint.score(draw(endpoint, 9, perfect=False, seed=seed)).items():
            assert math.isnan(value) or SCORES[name].low <= value <= SCORES[name].high


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.kind)
def test_metadata_restores_an_endpoint(endpoint):
    assert kinds.read_endpoint(endpoint.meta) == endpoint
    assert len(endpoint.group(draw(endpoint, 12, perfect=True))) == 12
    assert endpoint.find_training_problem(draw(endpoint, 12, perfect=True)) == ""
    assert set(endpoint.columns) == {"label", *endpoint.targets}


def test_no_slide_has_no_score():
    for endpoint in ENDPOINTS:
        scores = endpoint.score(draw(endpoint, 12, perfect=True).head(0))
        assert all(math.isnan(score) for score in scores.values())


@pytest.mark.parametrize(
    ("texts", "truth"),
    [
        (("12.5", "1"), (12.5, True)),
        (("0", "0.0"), (0.0, False)),
        (("3", "1:DECEASED"), (3.0, True)),
        (("3", "0:LIVING"), (3.0, False)),
        (("3", "0:DiseaseFree"), (3.0, False)),
        (("3", "1:Recurred/Progressed"), (3.0, True)),
        (("1e2", "Dead"), (100.0, True)),
        (("7", "alive"), (7.0, False)),
        (("7", "TRUE"), (7.0, True)),
    ],
)
def test_events_are_read_as_tables_code_them(texts, truth):
    endpoint = kinds.Survival()
    assert tuple(map(endpoint.parse, endpoint.targets, texts)) == truth


@pytest.mark.parametrize(
    ("kind", "target", "text", "message"),
    [
        ("survival", "time", "-1", "is '-1'; a time of follow-up is not negative, correct it"),
        ("survival", "event", "2", "is '2'; code an event as 1 and a censored case as 0"),
        ("survival", "event", "2:OTHER", "is '2:OTHER'; code an event as 1 and a censored case as 0"),
        ("survival", "time", "soon", "is 'soon', not a number; correct it, or leave it empty"),
        ("regression", "value", "1,5", "is '1,5', not a number; write a decimal point"),
        ("regression", "value", "inf", "is 'inf', not a number; correct it, or leave it empty"),
        ("ordinal", "label", "d", "is 'd', none of a, b, c; correct it, or add it to `order`"),
    ],
)
def test_a_text_that_is_no_truth_is_refused(kind, target, text, message):
    with pytest.raises(ValueError, match="is") as error:
        kinds.make_endpoint(kind, CLASSES[kind]).parse(target, text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("kind", "slides", "problem"),
    [
        ("classification", {"label": ["a", "a"]}, "its training slides have one label only (a)"),
        ("classification", {"label": []}, "its training slides have one label only (none)"),
        ("ordinal", {"label": ["c", "c"]}, "its training slides have one label only (c)"),
        ("regression", {"value": [2.0, 2.0]}, "its training slides have one value only (2.0)"),
        ("survival", {"time": [1.0, 2.0], "event": [False, False]}, "its training slides have no event"),
        ("survival", {"time": [1.0, 2.0], "event": [False, True]}, "none of its training slides outlives an event"),
        ("survival", {"time": [1.0, 2.0], "event": [True, False]}, ""),
    ],
)
def test_slides_that_teach_nothing_are_named(kind, slides, problem):
    assert kinds.make_endpoint(kind, CLASSES[kind]).find_training_problem(pd.DataFrame(slides)) == problem


def test_follow_up_of_the_cohort_sets_times_and_censoring():
    endpoint = kinds.Survival()
    cohort = draw(endpoint, 200, perfect=False)
    part = cohort.head(40)
    alone, within = endpoint.score(part), endpoint.score(part, cohort)
    assert alone["c_index"] == within["c_index"] == concordance_index(*part[["time", "event", "risk"]].to_numpy().T)
    assert alone["mean_auc"] != within["mean_auc"]
