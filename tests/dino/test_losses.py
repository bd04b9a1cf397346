"""L_self and its gradient agree with a slow loop written from the formula; targets and centre have planted values."""

import math

import pytest
import torch

from slpd_core.dino import losses

G, LOCAL, B, OUT = 2, 3, 4, 7


def minus_a_log_b(a, b):
    """H(a, b), one output after another."""
    return -sum(a[o] * torch.log(b[o]) for o in range(len(a)))


@pytest.fixture
def student():
    torch.manual_seed(0)
    return torch.randn(G + LOCAL, B, OUT, dtype=torch.float64, requires_grad=True)


def simplex(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def agrees(loss, oracle, student):
    (ours,) = torch.autograd.grad(loss, student, retain_graph=True)
    (theirs,) = torch.autograd.grad(oracle, student)
    torch.testing.assert_close(loss, oracle, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_self_loss(student):
    targets, p = simplex(G, B, OUT), student.softmax(-1)
    pairs = [
        minus_a_log_b(targets[t, b], p[s, b]) for b in range(B) for t in range(G) for s in range(G + LOCAL) if s != t
    ]
    agrees(losses.self_loss(targets, student.log_softmax(-1)), sum(pairs) / len(pairs), student)


def test_entropy_of_the_targets_that_count():
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert losses.mean_entropy(targets, torch.tensor([0.0, 1.0, 1.0])) == pytest.approx(expected / 2)
    assert losses.mean_entropy(targets, torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(math.log(2))
    assert losses.mean_entropy(targets, torch.zeros(3)).isnan()


def test_targets_are_centred_and_sharpened():
    logits, centre = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0.0, 0.5, 3.0])
    expected = torch.exp((logits - centre) / 0.5) / torch.exp((logits - centre) / 0.5).sum()
    torch.testing.assert_close(losses.teacher_targets(logits, centre, 0.5), expected)


def test_the_centre_is_a_moving_average_of_the_logits_that_count():
    centre, logits = torch.tensor([1.0, -1.0]), torch.tensor([[3.0, 1.0], [5.0, 3.0], [9.0, 9.0]])
    weights = torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(losses.update_centre(centre, logits, weights, 0.9), torch.tensor([1.3, -0.7]))
    assert torch.equal(losses.update_centre(centre, logits, torch.zeros(3), 0.9), centre)


def test_koleo_and_its_gradient():
    """-log of the distance to the nearest other row on the unit sphere, found by looking at all of them."""
    embeddings = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).float()
    embeddings.requires_grad_()
    unit = [row / row.norm() for row in embeddings]
    nearest = [min((unit[i] - unit[j]).norm() for j in range(6) if j != i) for i in range(6)]
    oracle = sum(-torch.log(distance) for distance in nearest) / 6
    loss = losses.koleo_loss(embeddings)
    torch.testing.assert_close(loss, oracle)
    (ours,), (theirs,) = (torch.autograd.grad(value, embeddings) for value in (loss, oracle))
    torch.testing.assert_close(ours, theirs)


def test_koleo_of_equal_rows_is_large_and_has_a_finite_gradient():
    embeddings = torch.ones(3, 4, requires_grad=True)
    loss = losses.koleo_loss(embeddings)
    loss.backward()
    assert loss > 10
    assert embeddings.grad.isfinite().all()
