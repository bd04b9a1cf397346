"""The losses and their gradients agree with slow loops written from the paper's formulas."""

import pytest
import torch

from slpd_core.pretraining import losses

G, LOCAL, B, K, OUT = 2, 3, 4, 2, 7


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


def test_intra_loss(student):
    targets, p = simplex(B, 1, OUT), student.softmax(-1)
    has = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    pairs = [minus_a_log_b(targets[b, 0], p[s, b]) for b in range(B) if has[b] for s in range(G + LOCAL)]
    agrees(losses.prototype_loss(targets, student.log_softmax(-1), has[:, None]), sum(pairs) / len(pairs), student)


def test_inter_loss(student):
    targets, p = simplex(B, K, OUT), student.softmax(-1)
    exists = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    each = []
    for b in range(B):
        there = [k for k in range(K) if exists[b, k]]
        if there:
            crops = [sum(minus_a_log_b(targets[b, k], p[s, b]) for k in there) / len(there) for s in range(G + LOCAL)]
            each.append(sum(crops) / len(crops))
    agrees(losses.prototype_loss(targets, student.log_softmax(-1), exists), sum(each) / len(each), student)


def test_a_batch_without_prototypes_has_no_loss_and_no_gradient(student):
    loss = losses.prototype_loss(simplex(B, K, OUT), student.log_softmax(-1), torch.zeros(B, K, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss == 0
    assert (gradient == 0).all()
