"""Cox regression equals scikit-survival's, its likelihood a slow definition, and planted hazards are recovered."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slpd_core.endpoints import concordance, cox, survival
from tests.fixtures.endpoints import draw_survival, plant_hazards

SEEDS, SIZES, TIES = st.integers(0, 9999), st.integers(2, 30), st.sampled_from(cox.TIES)


def slow_likelihood(risk, time, event, ties):
    """Log partial likelihood, time by time, as Efron and Breslow write it."""
    total = 0.0
    for t in np.unique(time[event]):
        dead = np.flatnonzero(event & (time == t))
        at_risk = sum(math.exp(r) for r in risk[time >= t])
        tied = sum(math.exp(r) for r in risk[dead])
        for before, i in enumerate(dead):
            taken = before / len(dead) * tied if ties == "efron" else 0
            total += risk[i] - math.log(at_risk - taken)
    return total


@given(SEEDS, SIZES, TIES)
def test_the_likelihood_is_its_definition(seed, n, ties):
    time, event, risk = draw_survival(seed, n)
    slow = slow_likelihood(risk, time, event, ties)
    assert cox.log_partial_likelihood(risk, time, event, ties=ties) == pytest.approx(slow)


@given(SEEDS, SIZES)
def test_without_ties_both_rules_agree_and_efron_is_the_default(seed, n):
    time, event, risk = draw_survival(seed, n, ties=False)
    efron, breslow = (cox.log_partial_likelihood(risk, time, event, ties=ties) for ties in cox.TIES)
    assert efron == pytest.approx(breslow)
    time = np.round(time)
    assert cox.log_partial_likelihood(risk, time, event) == cox.log_partial_likelihood(risk, time, event, ties="efron")


def test_efron_is_closer_to_the_exact_likelihood_of_ties():
    """The exact one is the mean over the orders in which tied cases may have died."""
    time, event = np.array([1.0, 1.0, 1.0, 2.0, 3.0]), np.array([1, 1, 1, 0, 0], bool)
    risk = np.array([0.5, -0.4, 0.1, 0.3, 0.0])
    orders = [time - 0.1 * np.array([*order, 0, 0]) for order in itertools.permutations(range(3))]
    exact = math.log(sum(math.exp(slow_likelihood(risk, order, event, "breslow")) for order in orders) / 6)
    efron, breslow = (cox.log_partial_likelihood(risk, time, event, ties=ties) for ties in cox.TIES)
    assert abs(efron - exact) < 0.1 * abs(breslow - exact)


@given(SEEDS, SIZES)
def test_the_likelihood_is_the_same_whatever_is_added_to_all_risks(seed, n):
    time, event, risk = draw_survival(seed, n)
    plain = cox.log_partial_likelihood(risk, time, event)
    assert cox.log_partial_likelihood(risk + 5000, time, event) == pytest.approx(plain)


def test_tied_events_take_from_one_another_by_default():
    time, event = np.array([1.0, 2.0, 1.0, 1.0]), np.array([1, 1, 0, 1])
    efron = [[1, 1, 1, 1], [0, 1, 0, 0], [0.5, 1, 1, 0.5]]
    np.testing.assert_array_equal(cox.risk_set_weights(time, event), efron)
    breslow = [[1, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(cox.risk_set_weights(time, event, ties="breslow"), breslow)
    features = np.array([[0.0], [1.0], [3.0], [2.0]])
    assert cox.fit_cox(features, time, event)["coef"] == cox.fit_cox(features, time, event, ties="efron")["coef"]


def test_the_likelihood_is_0_without_an_event():
    assert cox.log_partial_likelihood(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.zeros(2, bool)) == 0
    assert cox.log_partial_likelihood(np.empty(0), np.empty(0), np.empty(0, bool)) == 0


def test_ties_are_resolved_by_a_known_rule():
    with pytest.raises(ValueError, match="ties: 'exact'; one of efron, breslow"):
        cox.risk_set_weights(np.ones(2), np.ones(2), ties="exact")


@settings(max_examples=25)
@given(SEEDS, st.integers(20, 60), TIES, st.sampled_from([0.3, 2.0, 50.0]))
def test_the_fit_is_that_of_scikit_survival(sksurv, seed, n, ties, l2):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, -2]
    time, event, _ = draw_survival(seed, n)
    model = cox.fit_cox(features, time, event, l2=l2, ties=ties)
    x = (features - features.mean(0)) / features.std(0)
    oracle = sksurv.linear_model.CoxPHSurvivalAnalysis(alpha=l2, ties=ties)
    oracle.fit(x, sksurv.util.Surv.from_arrays(event, time))
    np.testing.assert_allclose(model["coef"], oracle.coef_, atol=1e-5)
    np.testing.assert_allclose(cox.predict_cox(model, features), oracle.predict(x), atol=1e-4)


@settings(max_examples=20)
@given(SEEDS, st.integers(20, 60))
def test_survival_of_a_risk_is_that_of_scikit_survival(sksurv, seed, n):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3))
    time, event, _ = draw_survival(seed, n)
    oracle = sksurv.linear_model.CoxPHSurvivalAnalysis(alpha=1.0).fit(
        features, sksurv.util.Surv.from_arrays(event, time)
    )
    risk = features @ oracle.coef_
    at = np.unique(time)
    predicted = cox.predict_survival(risk, *cox.breslow_hazard(risk, time, event), at)
    np.testing.assert_allclose(predicted, oracle.predict_survival_function(features, return_array=True), atol=1e-9)


@given(SEEDS, SIZES)
def test_the_baseline_of_equal_risks_is_nelson_and_aalens(sksurv, seed, n):
    time, event, _ = draw_survival(seed, n)
    times, hazard = cox.breslow_hazard(np.zeros(n), time, event)
    expected = dict(zip(*sksurv.nonparametric.nelson_aalen_estimator(event, time), strict=True))
    np.testing.assert_allclose(hazard, [expected[t] for t in times])


def test_survival_starts_at_1_and_steps_at_the_event():
    times, hazard = np.array([2.0, 5.0]), np.array([0.1, 0.4])
    predicted = cox.predict_survival(np.log([1.0, 2.0]), times, hazard, np.array([0.0, 1.9, 2.0, 9.0]))
    np.testing.assert_allclose(predicted, np.exp(-np.outer([1, 2], [0, 0, 0.1, 0.4])))


def test_planted_hazards_are_recovered():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 5))
    coef = np.array([1.0, -0.7, 0.0, 0.4, 0.0])
    time, event = plant_hazards(1, features @ coef)
    for rounded in (time, np.ceil(time * 20)):  # in Efron's way ties hardly matter
        model = cox.fit_cox(features, rounded, event, l2=1e-3)
        np.testing.assert_allclose(model["coef"] / model["scale"], coef, atol=0.08)
    risk = cox.predict_cox(model, features)
    times, hazard = cox.breslow_hazard(features @ coef, time, event)
    assert hazard[np.searchsorted(times, 1.0)] == pytest.approx(1.0, rel=0.08)  # the planted baseline is t
    assert concordance.concordance_index(time, event, risk) > 0.75
    assert survival.logrank_test(time, event, survival.split_at_median(risk))[1] < 1e-20


def test_shuffled_survival_is_at_chance_on_new_cases():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(800, 20))
    time, event = plant_hazards(1, features[:, 0])
    cs = {}
    for name, order in (("true", np.arange(400)), ("shuffled", rng.permutation(400))):
        model = cox.fit_cox(features[:400], time[order], event[order])
        cs[name] = concordance.concordance_index(time[400:], event[400:], cox.predict_cox(model, features[400:]))
    assert cs["true"] > 0.65
    assert cs["shuffled"] == pytest.approx(0.5, abs=0.07)


def test_the_fit_holds_where_features_outnumber_cases_and_tell_all():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 100))
    time, event = np.argsort(np.argsort(-features[:, 0])) + 1.0, np.ones(30, bool)
    model = cox.fit_cox(features, time, event, l2=1e-2)
    assert np.isfinite(model["coef"]).all()
    assert concordance.concordance_index(time, event, cox.predict_cox(model, features)) == 1


@pytest.mark.parametrize("event", [[0, 0, 0, 0], [0, 1, 0, 0]], ids=["no event", "one event"])
def test_few_events_have_a_fit(event):
    features = np.array([[0.0, 7.0], [3.0, 7.0], [1.0, 7.0], [0.0, 7.0]])  # the second tells nothing
    model = cox.fit_cox(features, np.array([1.0, 2.0, 3.0, 4.0]), np.array(event))
    assert model["coef"][1] == 0
    assert (model["coef"][0] > 0) == any(event)
    assert np.isfinite(cox.predict_cox(model, features)).all()


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="features must be finite and l2 above 0, not 2"):
        cox.fit_cox(np.array([[1.0], [np.nan], [2.0]]), np.arange(3.0), np.ones(3), l2=2)
