"""Stage two trains the same with and without a graph, and in blocks of any size."""

import pytest
import torch

from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.trainer import fit

VARIANTS = {
    "paper": {},
    "bf16, KoLeo": {"precision": "bf16", "koleo_weight": 0.1},
    "fp16": {"precision": "fp16"},
    "a shared center": {"shared_center": True, "skip_crop_k": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graphed_run_is_the_run_to_the_bit(section, make_cohort, record_on_cpu, tmp_path, variant):
    """Read from and written to fixed places, with drop path; captured anew for prototypes and for the last layer."""
    changes = {"prototype_start_epoch": 1, "freeze_last_layer_epochs": 2, "batch_size": 6, "drop_path": 0.3}
    section, runs = section.model_copy(update=changes | VARIANTS[variant]), []
    for graphed in (False, True):
        stage = StageTwo.create(make_cohort(9, 1, 8, 7), seed=1, **select_arguments(section))
        recorded = record_on_cpu([*stage.networks.centers.values()])
        stage.graphed.enabled = graphed
        history = fit(stage, Checkpoint(tmp_path / f"{graphed}.pt", {}))
        assert len(recorded) == (3 if graphed else 0)
        runs.append((history.to_csv(), stage.networks.state_dict(), stage.monitored))
    assert runs[0][0] == runs[1][0]
    torch.testing.assert_close(*(run[1:] for run in runs), rtol=0, atol=0)
