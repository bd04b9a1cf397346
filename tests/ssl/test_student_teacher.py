"""Student and teacher: how they start, and how a step moves them."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from slpd_core.ssl.head import ProjectionHead
from slpd_core.ssl.student_teacher import (
    Network,
    StudentTeacher,
    apply_schedules,
    clip_grads_per_parameter,
    update_networks,
)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_the_teacher_starts_as_the_student_and_the_weights_depend_on_the_seed_alone(start):
    one = start(1)
    torch.rand(5)
    other = start(1)
    assert same(one.student.state_dict(), other.student.state_dict())
    assert same(one.student.state_dict(), one.teacher.state_dict())
    assert not same(one.student.state_dict(), start(2).student.state_dict())


def test_drop_path_is_in_the_student_only():
    """Neither built into the teacher nor at work in it."""
    rates = []

    def build(drop_path):
        rates.append(drop_path)
        return Network(nn.Linear(8, 24), ProjectionHead(24, 32, 16, 40))

    networks = StudentTeacher.create(build, ("self",), 1, drop_path=0.3)
    assert rates == [0.3, 0.0]
    assert networks.student.training
    assert not any(module.training for module in networks.teacher.modules())


# 3 epochs of 4 steps, 1 of warm-up; peak 0.02 * 64 / 256 = 0.005. step -> lr, weight decay, teacher momentum.
LAST = (1 + math.cos(math.pi * 11 / 12)) / 2  # what is left of a half cosine at the last of 12 steps
LAST_LR = (1 + math.cos(math.pi * 7 / 8)) / 2  # ... of the 8 after the warm-up
SCHEDULE = {
    0: (0, 0.04, 0.99),
    2: (0.0025, 0.4 - 0.36 * (1 + math.cos(math.pi / 6)) / 2, 1 - 0.01 * (1 + math.cos(math.pi / 6)) / 2),
    4: (0.005, 0.4 - 0.36 * 0.75, 1 - 0.01 * 0.75),
    6: (0.001 + 0.004 * (1 + math.cos(math.pi / 4)) / 2, 0.22, 0.995),
    8: (0.003, 0.4 - 0.36 * 0.25, 1 - 0.01 * 0.25),
    11: (0.001 + 0.004 * LAST_LR, 0.4 - 0.36 * LAST, 1 - 0.01 * LAST),
}


@pytest.mark.parametrize(("step", "expected"), SCHEDULE.items())
def test_schedules_of_a_step(recipe, start, step, expected):
    changes = {"base_lr": 0.02, "min_lr": 0.001, "epochs": 3, "warmup_epochs": 1, "teacher_momentum": 0.99}
    networks = start(1)
    values = apply_schedules(networks, replace(recipe, **changes), step, steps_per_epoch=4, batch_size=64)
    assert tuple(values.values()) == pytest.approx(expected, abs=1e-12)
    decayed, free = networks.optimizer.param_groups
    assert decayed["lr"] == free["lr"] == values["lr"]
    assert (decayed["weight_decay"], free["weight_decay"]) == (values["weight_decay"], 0)


@pytest.mark.parametrize("batch_size", [16, 256, 1024])
def test_the_learning_rate_follows_the_batch(recipe, start, batch_size):
    values = apply_schedules(start(1), recipe, 4, 4, batch_size)
    assert values["lr"] == pytest.approx(recipe.base_lr * batch_size / 256)


def test_the_teacher_follows_the_student_and_gets_no_gradient(recipe, start):
    networks = start(1)
    before = {key: tensor.clone() for key, tensor in networks.teacher.state_dict().items()}
    apply_schedules(networks, recipe, 5, 4, 12)
    networks.student(torch.randn(6, 8)).pow(2).mean().backward()
    update_networks(networks, recipe.clip_norm, 0.9)
    student = networks.student.state_dict()
    for key, tensor in networks.teacher.state_dict().items():
        torch.testing.assert_close(tensor, 0.9 * before[key] + 0.1 * student[key], atol=1e-7, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in networks.teacher.parameters())


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_last_layer_is_frozen_for_the_first_epochs(recipe, start, epoch):
    networks = start(1)
    before = networks.student.head.last_layer.clone()
    recipe = replace(recipe, freeze_last_layer_epochs=1)
    for step in (4 * epoch, 4 * epoch + 3):
        apply_schedules(networks, recipe, step, 4, 12)
        networks.student(torch.randn(6, 8))[:, 0].mean().backward()
        update_networks(networks, recipe.clip_norm, 0.9)
    assert torch.equal(networks.student.head.last_layer, before) is (epoch == 0)


def test_the_last_layer_thaws_with_the_first_step_after_the_frozen_epochs(recipe, start):
    networks, recipe = start(1), replace(recipe, freeze_last_layer_epochs=2)
    trained = []
    for step in range(12):
        apply_schedules(networks, recipe, step, 4, 12)
        trained.append(networks.student.head.last_layer.requires_grad)
    assert trained == [False] * 8 + [True] * 4


def test_only_gradients_above_the_norm_are_scaled():
    small, large = torch.full((4,), 0.5), torch.full((4, 4), 3.0)
    clipped = [small.clone(), large.clone(), torch.zeros(3)]
    clip_grads_per_parameter(clipped, 3.0)
    assert torch.equal(clipped[0], small)
    torch.testing.assert_close(clipped[1], large / 4)
    assert torch.equal(clipped[2], torch.zeros(3))


def test_gradients_are_clipped_parameter_by_parameter(recipe, start, monkeypatch):
    networks = start(1)
    apply_schedules(networks, recipe, 5, 4, 12)
    (networks.student(torch.randn(6, 8)).pow(2).sum() * 1e6).backward()
    norms = []
    monkeypatch.setattr(
        networks.optimizer,
        "step",
        lambda: norms.extend(float(parameter.grad.norm()) for parameter in networks.student.parameters()),
    )
    update_networks(networks, recipe.clip_norm, 0.9)
    assert max(norms) == pytest.approx(recipe.clip_norm, rel=1e-3)
    assert math.hypot(*norms) > 1.5 * recipe.clip_norm
    assert all(parameter.grad is None for parameter in networks.student.parameters())


def test_a_step_whose_scaled_gradients_overflow_is_left_out(recipe, start):
    """Of float16; the scale is halved, and the next step, which does not overflow, moves the student as unscaled."""
    networks, plain = start(1), start(1)
    networks.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    x, before = torch.randn(6, 8), copy.deepcopy(networks.student.state_dict())
    apply_schedules(networks, recipe, 5, 4, 12)
    networks.scaler.scale(networks.student(x).pow(2).sum()).backward()
    update_networks(networks, recipe.clip_norm, 0.9)
    assert same(networks.student.state_dict(), before)
    assert networks.scaler.get_scale() == 2.0**126
    networks.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for one in (networks, plain):
        apply_schedules(one, recipe, 5, 4, 12)
        one.scaler.scale(one.student(x).pow(2).sum()).backward()
        update_networks(one, recipe.clip_norm, 0.9)
    torch.testing.assert_close(networks.student.state_dict(), plain.student.state_dict())
    assert not same(networks.student.state_dict(), before)


def test_no_decay_on_biases_and_vectors(recipe, start):
    networks = start(1)
    values = apply_schedules(networks, recipe, 8, 4, 12)
    decayed, free = networks.optimizer.param_groups
    assert decayed["weight_decay"] == values["weight_decay"] > recipe.weight_decay
    assert free["weight_decay"] == 0
    assert {parameter.ndim for parameter in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(networks.student.parameters()))
