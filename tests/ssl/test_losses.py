"""Losses and gradients agree with slow loops written from the formulas; entropy and center have planted values."""

import pytest
import torch
from torch.nn.functional import normalize

from slpd_core.ssl import losses
from slpd_core.ssl.losses import LogitFactors

B, T, CROPS, OUT, DIM = 5, 3, 4, 7, 6
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04


def minus_a_log_b(a, b):
    """H(a, b), one output after another."""
    return -sum(a[o] * torch.log(b[o]) for o in range(len(a)))


@pytest.fixture
def given():
    """Vectors and outputs of student and teacher, centers, and pairs of which some do not count."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    crops, outputs = (normalize(normal(*shape), dim=-1).requires_grad_() for shape in ((B, CROPS, DIM), (OUT, DIM)))
    targets, rows = normalize(normal(B, T, DIM), dim=-1), normalize(normal(OUT, DIM), dim=-1)
    pairs = normal(B, T, CROPS).abs()
    pairs[0, 1], pairs[1, :, 2], pairs[2] = 0, 0, 0  # a target, a crop and a picture that do not count
    return crops, outputs, targets, rows, 0.1 * normal(T, OUT), pairs


def distil(crops, outputs, targets, rows, centers, pairs, **options):
    student, teacher = (
        LogitFactors(crops, outputs, STUDENT_TEMPERATURE),
        LogitFactors(targets, rows, TEACHER_TEMPERATURE),
    )
    return losses.chunked_cross_entropy(student, teacher, centers, pairs, **options)


@pytest.mark.parametrize("block", [1, 2 * (CROPS + 2 * T) * OUT, 10**6])
def test_loss_and_gradients_are_those_of_the_formula(given, block, monkeypatch):
    """However many pictures are worked on at a time: one, two with one left over, all."""
    monkeypatch.setitem(losses.BLOCK_LOGITS, "cpu", block)
    crops, outputs, targets, rows, centers, pairs = given
    total, cross_entropy, entropy = torch.zeros((), dtype=torch.float64), torch.zeros(B, T, CROPS), torch.zeros(B, T)
    for b in range(B):
        for t in range(T):
            a = ((rows @ targets[b, t] - centers[t]) / TEACHER_TEMPERATURE).softmax(0)
            entropy[b, t] = minus_a_log_b(a, a)
            for v in range(CROPS):
                pair = minus_a_log_b(a, (outputs @ crops[b, v] / STUDENT_TEMPERATURE).softmax(0))
                cross_entropy[b, t, v], total = pair.detach(), total + pairs[b, t, v] * pair
    found = distil(*given)
    torch.testing.assert_close(found.loss, total, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.cross_entropy.float(), cross_entropy)
    torch.testing.assert_close(found.entropy.float(), entropy)
    ours, theirs = (torch.autograd.grad(3 * loss, (crops, outputs)) for loss in (found.loss, total))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-10, rtol=1e-10)
        assert expected.abs().max() > 0.1
    assert (ours[0][2] == 0).all()


def test_outputs_that_are_frozen_get_no_gradient(given):
    crops, outputs, *rest = given
    outputs.requires_grad_(False)
    distil(crops, outputs, *rest).loss.backward()
    assert outputs.grad is None
    assert crops.grad.any()


def test_half_precision_rounds_factors_and_no_products():
    """Crops near their targets, so that cosines are near one: rounding those would move the targets' entropies."""
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(4096, 256, generator=generator), dim=-1)
    vectors = normalize(rows[:160] + 0.01 * torch.randn(160, 256, generator=generator), dim=-1).view(20, 8, 256)
    student = LogitFactors(vectors.clone().requires_grad_(), rows, STUDENT_TEMPERATURE)
    teacher, centers, pairs = (
        LogitFactors(vectors, rows, TEACHER_TEMPERATURE),
        torch.zeros(8, 4096),
        torch.ones(20, 8, 8),
    )
    exact, half = (
        losses.chunked_cross_entropy(student, teacher, centers, pairs, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(half.loss, exact.loss, atol=0, rtol=1e-3)
    rounded = (vectors @ rows.T).bfloat16().float() / TEACHER_TEMPERATURE
    mutant = torch.distributions.Categorical(logits=rounded).entropy()
    away = (half.entropy - exact.entropy).abs().max()
    assert away < 0.5 * (mutant - exact.entropy).abs().max()
    wanted, found = (torch.autograd.grad(one.loss, student.vectors)[0] for one in (exact, half))
    assert (found - wanted).norm() < 0.02 * wanted.norm()
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_pairs_of_self_distillation_are_those_of_different_crops():
    pairs = losses.cross_view_weights(2, 5)
    assert [(t, v) for t, v in pairs.nonzero().tolist()] == [(t, v) for t in range(2) for v in range(5) if t != v]
    torch.testing.assert_close(pairs[pairs > 0], torch.full((8,), 1 / 8))


def test_the_mean_of_what_counts():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert losses.masked_mean(values, torch.tensor([0.0, 1.0, 1.0])) == 3
    assert losses.masked_mean(values, torch.zeros(3)).isnan()


def test_the_centre_is_a_moving_average_of_the_cosines_that_count():
    """Of the rows that count the cosines are 3 and 1, 5 and 3, their means 4 and 2."""
    center, outputs = torch.tensor([1.0, -1.0]), torch.eye(2)
    vectors, weights = torch.tensor([[3.0, 1.0], [5.0, 3.0], [9.0, 9.0]]), torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(losses.update_center(center, vectors, outputs, weights, 0.9), torch.tensor([1.3, -0.7]))
    assert torch.equal(losses.update_center(center, vectors, outputs, torch.zeros(3), 0.9), center)


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
