"""Losses of the endpoints equal their definitions, and networks learn planted endpoints by them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from slpd_core.endpoints import concordance, cox, ordinal
from slpd_core.evaluation import losses, networks
from tests.fixtures.endpoints import draw_survival, plant_hazards

SEEDS, SIZES = st.integers(0, 9999), st.integers(2, 30)


@given(SEEDS, SIZES, st.sampled_from(cox.TIES))
def test_coxs_loss_is_minus_the_likelihood_per_event(seed, n, ties):
    time, event, risk = draw_survival(seed, n)
    loss = losses.cox_loss(torch.tensor(risk), torch.tensor(time), torch.tensor(event), ties=ties)
    assert loss.item() == pytest.approx(-cox.log_partial_likelihood(risk, time, event, ties=ties) / event.sum())


@settings(max_examples=15)
@given(SEEDS, st.integers(2, 12))
def test_the_gradient_of_coxs_loss_is_numerically_right(seed, n):
    time, event, risk = draw_survival(seed, n)
    tensors = torch.tensor(time), torch.tensor(event)
    assert torch.autograd.gradcheck(lambda r: losses.cox_loss(r, *tensors), torch.tensor(risk, requires_grad=True))


def test_coxs_loss_bears_extreme_risks_and_batches_without_an_event():
    time, event = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, True, False])
    risks = torch.tensor([-500.0, 800.0, 0.0], requires_grad=True)
    loss = losses.cox_loss(risks, time, event)
    loss.backward()
    assert loss.item() == pytest.approx(650)
    assert torch.isfinite(risks.grad).all()
    risks.grad = None
    loss = losses.cox_loss(risks, time, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert risks.grad.tolist() == [0, 0, 0]


def test_coxs_loss_takes_events_as_0_and_1():
    risks, time = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([2.0, 1.0, 3.0])
    as_numbers = losses.cox_loss(risks, time, torch.tensor([1, 0, 1]))
    assert as_numbers.dtype == torch.float32
    assert as_numbers == losses.cox_loss(risks, time, torch.tensor([True, False, True]))


def test_targets_are_compared_on_their_own_scale():
    outputs, targets = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([10.0, 14.0, 10.0])
    errors = np.array([0.0, -1.0, 5.0])
    squared = losses.standardized_loss(outputs, targets, mean=10, scale=2)
    assert squared.item() == pytest.approx((errors**2).mean())
    huber = losses.standardized_loss(outputs, targets, mean=10, scale=2, delta=2)
    assert huber.item() == pytest.approx((0 + 0.5 + 2 * (5 - 1)) / 3)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_thresholds_start_with_equal_classes(n_classes):
    thresholds = losses.OrderedThresholds(n_classes)()
    assert thresholds.shape == (n_classes - 1,)
    p = losses.ordinal_log_probabilities(torch.zeros(2), thresholds).exp()
    torch.testing.assert_close(p, torch.full((2, n_classes), 1 / n_classes))


@given(SEEDS, st.integers(2, 6))
def test_thresholds_ascend_whatever_is_learned(seed, n_classes):
    thresholds = losses.OrderedThresholds(n_classes)
    generator = torch.Generator().manual_seed(seed)
    for parameter in thresholds.parameters():
        parameter.data = 3 * torch.randn(parameter.shape, generator=generator)
    assert (thresholds().diff() > 0).all()


@given(SEEDS, st.integers(1, 5))
def test_class_probabilities_are_differences_of_sigmoids_and_sum_to_1(seed, n_thresholds):
    rng = np.random.default_rng(seed)
    thresholds, scores = np.sort(rng.normal(0, 3, n_thresholds)), rng.normal(0, 3, 4)
    p = losses.ordinal_log_probabilities(torch.tensor(scores), torch.tensor(thresholds)).exp().numpy()
    cumulative = expit(thresholds - scores[:, None])
    expected = np.diff(cumulative, axis=1, prepend=0.0, append=1.0)
    np.testing.assert_allclose(p, expected, atol=1e-9)
    np.testing.assert_allclose(p.sum(1), 1)


def test_the_ordinal_loss_is_the_mean_log_likelihood_and_bears_extreme_scores():
    thresholds = torch.tensor([-1.0, 1.0])
    scores, ranks = torch.tensor([0.3, -90.0], requires_grad=True), torch.tensor([1, 2])
    loss = losses.ordinal_loss(scores, thresholds, ranks)
    middle = math.log(expit(0.7) - expit(-1.3))
    assert loss.item() == pytest.approx((-middle + 91) / 2, rel=1e-5)
    loss.backward()
    assert torch.isfinite(scores.grad).all()


def train(network, bags, loss, *, extra=(), steps=60):
    """Outputs after training on all bags at once."""
    optimizer = torch.optim.Adam([*network.parameters(), *extra], lr=5e-3)
    for _ in range(steps):
        outputs = torch.stack([network(bag) for bag in bags])[:, 0]
        optimizer.zero_grad()
        loss(outputs).backward()
        optimizer.step()
    with torch.no_grad():
        return torch.stack([network.eval()(bag) for bag in bags])[:, 0].double().numpy()


@pytest.fixture
def planted_bags():
    """Bags of instances whose first number has the bag's own mean; the means, (40,)."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=40)
    bags = rng.normal(size=(40, 5, 6)).astype(np.float32) * 0.5
    bags[:, :, 0] += 2 * signal[:, None].astype(np.float32)
    return [*torch.from_numpy(bags)], signal


@pytest.mark.parametrize(("name", "steps"), [("mil", 100), ("abmil", 12), ("dsmil", 12), ("vit_wsi", 12)])
def test_each_network_learns_planted_hazards_with_one_output(planted_bags, name, steps):
    bags, signal = planted_bags
    time, event = plant_hazards(0, 2 * signal)
    network = networks.build_network(name, 6, 1, 0.0, 0)
    risk = train(network, bags, lambda out: losses.cox_loss(out, torch.tensor(time), torch.tensor(event)), steps=steps)
    assert concordance.concordance_index(time, event, risk) > 0.75


def test_a_network_learns_planted_ranks(planted_bags):
    bags, signal = planted_bags
    ranks = np.digitize(signal, [-0.6, 0.6])
    network, thresholds = networks.build_network("abmil", 6, 1, 0.0, 0), losses.OrderedThresholds(3)
    scores = train(
        network,
        bags,
        lambda out: losses.ordinal_loss(out, thresholds(), torch.from_numpy(ranks)),
        extra=thresholds.parameters(),
    )
    p = losses.ordinal_log_probabilities(torch.tensor(scores), thresholds().double()).exp().detach().numpy()
    assert ordinal.score_ordinal(ranks, p)["kappa"] > 0.8
