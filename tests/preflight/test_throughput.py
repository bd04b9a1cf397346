"""Speeds that preflight measures before it forecasts times."""

from slpd_core import config
from slpd_core.preflight import throughput
from slpd_core.pretraining.stage_two import StageTwo

SMALL = {"n_prototypes": 2, "embed_dim": 24, "depth": 1, "n_heads": 2, "hidden_dim": 32, "bottleneck_dim": 16}
SMALL |= {"out_dim": 64, "n_local_crops": 1, "batch_size": 4, "global_crop_size": 3, "local_crop_size": 2}


def test_the_timed_steps_of_a_pretraining_are_of_one_kind(monkeypatch):
    """A kind has a graph of its own on a GPU, and the two steps that prepare it are not to be timed."""
    kinds, backward = [], StageTwo.backward

    def noted(stage, batch):
        trained = [parameter.requires_grad for parameter in stage.networks.student.parameters()]
        kinds.append((trained, [tensor.shape for tensor in batch.tensors()]))
        return backward(stage, batch)

    monkeypatch.setattr(StageTwo, "backward", noted)
    run = config.default_config().pretrain.run("slpd").model_copy(update=SMALL)
    assert run.freeze_last_layer_epochs > 0
    assert throughput.time_pretraining(run, 4, 8, "cpu") > 0
    assert len(kinds) == 4
    assert all(kind == kinds[0] for kind in kinds)
