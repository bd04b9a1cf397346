"""Where there is a GPU, it trains as the CPU does."""

import numpy as np
import pytest
import torch

from slpd_core.dino.checkpoint import Checkpoint
from slpd_core.pretraining import pretrain
from slpd_core.pretraining.cohort import embed_regions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("koleo", [0.0, 0.1])
def test_a_gpu_trains_as_the_cpu_does_and_goes_on_from_a_checkpoint(section, make_cohort, tmp_path, precision, koleo):
    """Without drop path, whose draws differ; half precision keeps the losses near."""
    changes = {"drop_path": 0.0, "koleo": koleo, "n_neighbours": 2}
    section, cohort = section.model_copy(update=changes), make_cohort(9, 1, 8, 7)
    _, expected = pretrain.train(cohort, section, 1, "cpu", Checkpoint(tmp_path / "cpu.pt", {}))
    section = section.model_copy(update={"precision": precision})
    networks, found = pretrain.train(cohort, section, 1, "cuda", Checkpoint(tmp_path / "cuda.pt", {}))
    tolerance = 1e-2 if precision == "fp32" else 5e-2
    for name in ("loss", "self", "intra", "inter", "teacher_entropy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance)
    again, rows = pretrain.train(cohort, section, 1, "cuda", Checkpoint(tmp_path / "cuda.pt", {}))
    assert len(rows) == section.epochs
    embedded = [embed_regions(each.teacher.encoder, cohort.tokens, "cuda") for each in (networks, again)]
    np.testing.assert_allclose(*embedded, rtol=1e-5, atol=1e-6)
