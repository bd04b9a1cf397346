"""Where there is a GPU, it trains as the CPU does, and nothing in a step waits for it."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from slpd_core.pretraining.objective import SlpdObjective
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.pretraining.token_dataset import TokenDataset, embed_regions
from slpd_core.ssl import distributed
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.trainer import EpochState, fit, train_epoch
from tests.fixtures.pretraining import train_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("koleo", [0.0, 0.1])
def test_a_gpu_trains_as_the_cpu_does_and_goes_on_from_a_checkpoint(section, make_cohort, tmp_path, precision, koleo):
    """Without drop path, whose draws differ; half precision keeps the losses near."""
    changes = {"drop_path": 0.0, "koleo_weight": koleo, "n_neighbors": 2}
    section, cohort = section.model_copy(update=changes), make_cohort(9, 1, 8, 7)
    _, expected = train_run(cohort, section, 1, "cpu", Checkpoint(tmp_path / "cpu.pt", {}))
    section = section.model_copy(update={"precision": precision})
    networks, found = train_run(cohort, section, 1, "cuda", Checkpoint(tmp_path / "cuda.pt", {}))
    tolerance = 1e-2 if precision == "fp32" else 5e-2
    for name in ("loss", "loss_self", "loss_intra", "loss_inter", "teacher_entropy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance)
    again, rows = train_run(cohort, section, 1, "cuda", Checkpoint(tmp_path / "cuda.pt", {}))
    assert len(rows) == section.epochs
    embedded = [embed_regions(each.teacher.encoder, cohort.tokens, "cuda") for each in (networks, again)]
    np.testing.assert_allclose(*embedded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("koleo", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("on_gpu", [True, False], ids=["tokens on the GPU", "tokens in memory"])
def test_no_step_waits_for_the_gpu(section, make_cohort, precision, koleo, on_gpu, monkeypatch):
    section = section.model_copy(
        update={"precision": precision, "koleo_weight": koleo, "prototype_start_epoch": 0, "batch_size": 6}
        | {"freeze_last_layer_epochs": 0}
    )
    cohort = make_cohort(9, 1, 8, 7)
    if not on_gpu:
        monkeypatch.setattr(TokenDataset, "to", lambda self, device: self)
    stage = StageTwo.create(cohort, seed=1, device="cuda", **select_arguments(section))
    train_epoch(stage, EpochState(0, stage.begin_epoch(0)))  # what is done once may wait
    state, asked = EpochState(1, {}), []

    def stop_after_two_steps():
        asked.append(1)
        if len(asked) == 2:
            torch.cuda.set_sync_debug_mode("default")
        return len(asked) == 2

    with warnings.catch_warnings(record=True) as waited:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            assert not train_epoch(stage, state, stop_after_two_steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(state.metrics) == 2
    waits = [
        f"{each.filename}:{each.lineno} {each.message}"
        for each in waited
        if "called a synchronizing" in str(each.message)
    ]
    assert not waits


def test_tokens_in_memory_train_as_those_on_the_gpu(section, make_cohort, tmp_path, monkeypatch):
    cohort, found = make_cohort(9, 1, 8, 7), []
    for place in ("gpu", "memory"):
        if place == "memory":
            monkeypatch.setattr(TokenDataset, "to", lambda self, device: replace(self))
        _, rows = train_run(cohort, section, 1, "cuda", Checkpoint(tmp_path / f"{place}.pt", {}))
        found.append(rows["loss"])
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_one_process_of_nccl_trains_as_none(section, make_cohort, tmp_path):
    """All that processes tell one another goes through NCCL, though there is but one."""
    cohort = make_cohort(9, 1, 8, 7)
    section = section.model_copy(update={"koleo_weight": 0.1})
    _, alone = train_run(cohort, section, 1, "cuda", Checkpoint(tmp_path / "alone.pt", {}))
    torch.cuda.set_device(0)
    torch.distributed.init_process_group("nccl", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        assert distributed.world_size() == 1
        assert not distributed.any_rank(torch.device("cuda"), flag=False)
        assert distributed.any_rank(torch.device("cuda"), flag=True)
        _, together = train_run(cohort, section, 1, "cuda", Checkpoint(tmp_path / "nccl.pt", {}))
        distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-3)


@pytest.mark.parametrize("koleo", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_graphed_run_trains_as_one_without_a_graph(section, make_cohort, precision, koleo, tmp_path, caplog):
    """A graph is captured for each of three kinds of steps: without prototypes, with them, with the last layer."""
    changes = {"prototype_start_epoch": 1, "freeze_last_layer_epochs": 2, "batch_size": 6, "drop_path": 0.3}
    section = section.model_copy(update=changes | {"precision": precision, "koleo_weight": koleo})
    losses, captured = [], []
    for graphed in (False, True):
        stage = StageTwo.create(make_cohort(9, 1, 8, 7), seed=1, device="cuda", **select_arguments(section))
        stage.graphed.enabled, capture = graphed, stage.graphed._capture
        stage.graphed._capture = lambda batch, capture=capture: captured.append(1) or capture(batch)
        losses.append(fit(stage, Checkpoint(tmp_path / f"{graphed}.pt", {}))["loss"])
        assert stage.graphed.enabled == graphed
    assert len(captured) == 3
    assert not caplog.messages
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_step_that_waits_for_the_gpu_trains_without_a_graph(section, make_cohort, tmp_path, monkeypatch, caplog):
    """What cannot be captured is no error, and leaves no gradient behind."""
    backward, losses = SlpdObjective.backward, []

    def waiting(objective, networks, batch):
        metrics = backward(objective, networks, batch)
        metrics["loss"].item()
        return metrics

    for step in (backward, waiting):
        monkeypatch.setattr(SlpdObjective, "backward", step)
        stage = StageTwo.create(make_cohort(9, 1, 8, 7), seed=1, device="cuda", **select_arguments(section))
        losses.append(fit(stage, Checkpoint(tmp_path / f"{step.__name__}.pt", {}))["loss"])
    assert not stage.graphed.enabled
    assert [message for message in caplog.messages if message.startswith("steps run without a CUDA graph")]
    np.testing.assert_allclose(*losses, rtol=1e-3)
