"""What the losses with prototypes do not reach is known before training, and said."""

from dataclasses import replace

import numpy as np
import pytest

from slpd_core.pretraining import coverage
from slpd_core.pretraining.objective import SlpdObjective
from slpd_core.pretraining.pretrain import select_arguments
from slpd_core.pretraining.prototypes import ClusteringParams
from slpd_core.pretraining.stage_two import StageTwo


def params(section):
    """The settings that decide which regions are reached."""
    return section.extract(ClusteringParams), section.extract(SlpdObjective)


RUNS = {
    "slpd": {},
    "many regions": {"min_regions": 5, "n_neighbors": 2},
    "other patients": {"exclude_same_patient": True, "n_neighbors": 3},
    "any region": {"inter_target": "any_region", "min_regions": 5, "n_neighbors": 2},
    "any region of others": {"inter_target": "any_region", "exclude_same_patient": True},
    "intra": {"alpha_inter": 0.0},
    "global": {"clustering": "global", "alpha_inter": 0.0},
    "global, many regions": {"clustering": "global", "alpha_inter": 0.0, "min_regions": 15},
}


@pytest.mark.parametrize("sizes", [(4, 1, 6, 5), (1, 1, 1), (6,), (2, 1)], ids=str)
@pytest.mark.parametrize("run", RUNS)
def test_the_regions_reached_are_those_that_get_targets(section, make_cohort, run, sizes):
    section = section.model_copy(update=RUNS[run])
    cohort = replace(make_cohort(*sizes), patient_ids=["p", "q", "p", "p"][: len(sizes)])
    stage = StageTwo.create(cohort, seed=1, **select_arguments(section))
    row = stage.begin_epoch(0)
    reached = coverage.reached_regions(cohort, *params(section))
    assert reached.keys() == stage.targets.rows.keys()
    for term, rows in stage.targets.rows.items():
        np.testing.assert_array_equal(reached[term], (rows >= 0).sum(1), err_msg=term)
    assert row["regions_without_prototypes_fraction"] == pytest.approx((reached["intra"] == 0).mean())
    without = (reached["inter"] == 0).mean() if "inter" in reached else np.nan
    assert row["regions_without_neighbors_fraction"] == pytest.approx(without, nan_ok=True)
    gaps = coverage.describe_gaps(cohort, *params(section))
    whole = all((count >= (section.n_neighbors if term == "inter" else 1)).all() for term, count in reached.items())
    assert (gaps == []) is whole
    plain = not any(count.any() for count in reached.values())
    assert any("this run is plain DINO" in gap for gap in gaps) is plain


PLAIN = (
    "L_intra and L_inter train nothing, 3 of 3 slides (100.0 %) with 9 of 9 regions (100.0 %) are not reached, "
    "since no slide has 5 regions: this run is plain DINO, L_self alone; lower pretrain.min_regions or n_prototypes, "
    "or add slides."
)
PARTLY = (
    "L_intra and L_inter do not reach 1 of 3 slides (33.3 %) with 3 of 14 regions (21.4 %): these slides have fewer "
    "than 5 regions and so no prototypes."
)
ALONE = (
    "L_inter trains nothing, 1 of 1 slides (100.0 %) with 6 of 6 regions (100.0 %) are not reached, since no slide has "
    "another one to be compared with: lower pretrain.min_regions or n_prototypes, or add slides."
)
FEW = "n_neighbors is 2, but some slides have only 1 to be compared with."


@pytest.mark.parametrize(
    ("sizes", "K", "gaps"),
    [((4, 2, 3), 1, [PLAIN]), ((5, 3, 6), 1, [PARTLY]), ((6,), 1, [ALONE]), ((5, 5), 2, [FEW]), ((5, 5), 1, [])],
)
def test_gaps_are_told_with_their_shares(section, make_cohort, sizes, K, gaps):
    section = section.model_copy(update={"min_regions": 5, "n_neighbors": K})
    assert coverage.describe_gaps(make_cohort(*sizes), *params(section)) == gaps


def test_a_run_without_such_losses_has_no_gaps(section, make_cohort):
    section = section.model_copy(update={"min_regions": 5, "alpha_intra": 0.0, "alpha_inter": 0.0})
    assert coverage.describe_gaps(make_cohort(4, 2), *params(section)) == []
