"""The reference has the values that the paper's equations have on planted numbers."""

import ast
import math
from pathlib import Path

import pytest
import torch

from slpd_core.pretraining import reference

LOG_2 = math.log(2)


def test_the_cross_entropy_of_a_certain_target_is_minus_the_log_of_its_probability():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    loss = reference.cross_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), logits)
    torch.testing.assert_close(loss, torch.tensor([-math.log(3 / 4), LOG_2]))


def test_a_crop_is_not_compared_with_itself():
    """Crop 0 is sure of output 0, crop 1 of output 1, crop 2 knows nothing; targets are 0 of crop 0 and 1 of crop 1."""
    b = torch.tensor([[50.0, 0.0], [0.0, 50.0], [0.0, 0.0]])
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert reference.self_loss(a, b).item() == pytest.approx((50 + LOG_2 + 50 + LOG_2) / 4)


def test_a_prototype_is_compared_with_every_crop_and_so_is_each_of_k():
    b = torch.tensor([[50.0, 0.0], [0.0, 0.0]])
    first, second = (0 + LOG_2) / 2, (50 + LOG_2) / 2
    assert reference.intra_loss(torch.tensor([1.0, 0.0]), b).item() == pytest.approx(first)
    assert reference.inter_loss(torch.eye(2), b).item() == pytest.approx((first + second) / 2)


def test_many_regions_have_the_losses_of_each():
    a, b = torch.rand(2, 5, 7), torch.rand(3, 5, 7)
    expected = torch.stack([reference.self_loss(a[:, r], b[:, r]) for r in range(5)])
    torch.testing.assert_close(reference.self_loss(a, b), expected)
    expected = torch.stack([reference.inter_loss(a[:, r], b[:, r]) for r in range(5)])
    torch.testing.assert_close(reference.inter_loss(a, b), expected)


def test_the_similarity_of_slides_takes_the_best_permutation():
    """Greedy, prototype 0 would take its twin, and leave -1 to the other: cosines 1 and -1 against 0.8 and 0.6."""
    c_i = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    c_j = torch.tensor([[2.0, 0.0], [0.8, -0.6]])
    similarity, sigma = reference.similarity(c_i, c_j)
    assert similarity == pytest.approx((0.8 + 0.6) / 2)
    assert sigma == (1, 0)


def test_kmeans_keeps_the_best_start():
    z = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    c, nearest = reference.lloyd(z, [torch.tensor([0, 1]), torch.tensor([0, 2])], 0)
    assert c.flatten().tolist() == [0, 10]
    c, nearest = reference.lloyd(z, [torch.tensor([1, 2])], 3)
    assert c.flatten().tolist() == [0.5, 10.5]
    assert nearest.tolist() == [0, 0, 1, 1]


def test_the_reference_imports_no_other_module_of_the_package():
    """So the fast code is held against a second way, not against itself."""
    tree = ast.parse(Path(reference.__file__).read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not [name for name in imported if name.startswith("slpd_core")]
