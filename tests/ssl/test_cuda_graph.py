"""A graphed step is the step, from and to fixed places; on a CPU a stand-in takes the place of the graph."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from slpd_core.ssl import cuda_graph, distributed
from slpd_core.ssl.cuda_graph import GraphedStep


@dataclass
class Rows:
    """A batch of one tensor."""

    x: Tensor

    def tensors(self):
        return [self.x]


@pytest.fixture
def linear(record_on_cpu):
    """A layer whose outputs are squared, a running sum that moves in place, and its graphed step."""
    layer, total, calls = nn.Linear(3, 2), torch.zeros(2), []
    recorded = record_on_cpu([total])

    def step(batch):
        calls.append(batch)
        layer.zero_grad()
        y = layer(batch.x)
        y.square().sum().backward()
        total.add_(y.detach().sum(0))
        return {"loss": y.detach().square().sum()}

    graphed = GraphedStep(step, [*layer.parameters()], "cpu")
    graphed.enabled = True
    return layer, total, graphed, recorded


def test_replays_have_the_metrics_gradients_and_state_of_the_step(linear):
    layer, total, graphed, recorded = linear
    expected_total, fixed = torch.zeros(2), set()
    for seed in range(6):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        loss = graphed(Rows(x.clone()))["loss"]
        gradients = [parameter.grad for parameter in layer.parameters()]
        layer.zero_grad()  # as after every step
        y = layer(x)
        y.square().sum().backward()
        expected_total += y.detach().sum(0)
        assert torch.equal(loss, y.detach().square().sum())
        assert all(torch.equal(g, p.grad) for g, p in zip(gradients, layer.parameters(), strict=True))
        assert torch.equal(total, expected_total)
        layer.zero_grad()
        with torch.no_grad():
            layer.weight -= 0.01 * gradients[0]
        if seed:
            fixed.add((loss.data_ptr(), gradients[0].data_ptr()))
    assert len(fixed) == 1
    assert recorded == [1]


@pytest.mark.parametrize("change", ["rows", "trained"])
def test_another_kind_of_step_is_captured_anew(linear, change):
    layer, _, graphed, recorded = linear
    for _ in range(3):
        graphed(Rows(torch.ones(5, 3)))
    if change == "trained":
        layer.bias.requires_grad_(False)
    x = torch.ones(4 if change == "rows" else 5, 3)
    for _ in range(3):
        loss = graphed(Rows(x))["loss"]
        assert torch.equal(loss, layer(x).detach().square().sum())
        assert (layer.bias.grad is None) == (change == "trained")
    assert recorded == [1, 1]


def test_a_step_that_cannot_be_captured_runs_as_it_is(linear, monkeypatch, caplog):
    layer, total, graphed, _ = linear

    def fail(_):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    before = total.clone()
    monkeypatch.setattr(cuda_graph, "record", fail)
    x = torch.ones(5, 3)
    for _ in range(3):
        loss = graphed(Rows(x))["loss"]
    assert torch.equal(loss, layer(x).detach().square().sum())
    torch.testing.assert_close(total, before + 3 * layer(x).detach().sum(0))
    assert caplog.messages == ["steps run without a CUDA graph: operation not permitted when stream is capturing"]


def test_several_processes_and_cpus_have_no_graph(monkeypatch, caplog):
    assert not GraphedStep(dict, [], "cpu").enabled
    assert not caplog.messages
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert not GraphedStep(dict, [], "cuda").enabled
    assert caplog.messages == ["steps run without a CUDA graph: several processes train together"]
