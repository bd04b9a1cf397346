"""Stage two trains the same with and without a graph, and clusters the same in half precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slpd_core.pretraining import stage_two
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams, reassigned_fraction
from slpd_core.pretraining.stage_two import StageTwo
from slpd_core.ssl.checkpoint import Checkpoint
from slpd_core.ssl.trainer import fit
from tests.fixtures.pretraining import build_student_teacher

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


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_no_region_changes_its_prototype_if_regions_are_embedded_in_bf16(section, make_cohort, noise):
    """Of 16 x 16 tokens of four kinds, with noise and an offset per slide; names of prototypes do not count."""
    rng, sizes = np.random.default_rng(0), (24,) * 6
    kinds = rng.normal(size=(4, 8))[rng.integers(0, 4, sum(sizes))]
    offsets = np.repeat(0.5 * rng.normal(size=(len(sizes), 8)), sizes, axis=0)
    tokens = (kinds + offsets)[:, None, None] + noise * rng.normal(size=(sum(sizes), 16, 16, 8))
    cohort = replace(make_cohort(*sizes), tokens=torch.from_numpy(tokens).half())
    changes = {"global_crop_size": 14, "n_prototypes": 4, "embed_dim": 48, "depth": 3}
    section, found = section.model_copy(update=changes), []
    networks = build_student_teacher(section, 8, 1)
    for dtype in (None, torch.bfloat16):
        embeddings = stage_two.embed_for_clustering(networks, cohort, dtype=dtype)
        params = section.extract(ClusteringParams)
        found.append((embeddings, stage_two.cluster_dataset(cohort, embeddings, params, seed=1, epoch=0)))
    (exact, before), (rounded, after) = found
    assert 1e-4 < np.abs(rounded - exact).max() < 0.05
    assert reassigned_fraction(before, after, cohort.slide_of) == 0
    np.testing.assert_array_equal(after.neighbors, before.neighbors)
    partners = [p.centers[p.neighbors[:, 0, None], p.matches[:, 0]] for p in (before, after)]
    of_regions = [p[cohort.slide_of, m.assignment] for p, m in zip(partners, (before, after), strict=True)]
    np.testing.assert_allclose(*of_regions, atol=0.05)
