"""A batch's targets and losses agree with the formulas written out crop by crop."""

import numpy as np
import torch

from slpd_core.pretraining import objective
from slpd_core.pretraining.crops import draw_views
from slpd_core.pretraining.networks import start_networks
from slpd_core.pretraining.prototypes import Prototypes


def test_targets_are_the_own_prototype_and_its_partners():
    centres = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    found = Prototypes(
        centres,
        assignment=np.array([0, 1, -1, 1]),
        neighbours=np.array([[2, -1], [-1, -1], [0, 1]]),
        matches=np.array([[[1, 0], [-1, -1]], [[-1, -1], [-1, -1]], [[0, 1], [1, 0]]]),
    )
    slide_of = np.array([0, 0, 1, 2])
    targets = objective.prototype_targets(found, slide_of, np.array([3, 0, 2, 1]))
    values, weights = targets["intra"]
    np.testing.assert_array_equal(weights[:, 0], [1, 1, 0, 1])
    np.testing.assert_array_equal(values[[0, 1, 3], 0], [centres[2, 1], centres[0, 0], centres[0, 1]])
    values, weights = targets["inter"]
    np.testing.assert_array_equal(weights, [[1, 1], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(values[0], [centres[0, 1], centres[1, 0]])
    np.testing.assert_array_equal(values[[1, 3], 0], [centres[2, 1], centres[2, 0]])


def test_a_step_has_the_losses_of_the_formula(section, make_cohort):
    """forward and compute_losses against the same losses taken crop by crop from the networks."""
    section = section.model_copy(update={"drop_path": 0.0, "n_neighbours": 2})
    networks = start_networks(section, 8, 1, "cpu")
    networks.centres = {term: torch.randn(section.out_dim) * 0.1 for term in networks.centres}
    B, rng = 5, np.random.default_rng(0)
    views = draw_views(make_cohort(B).tokens, section, rng, "cpu")
    weights = torch.tensor([[1.0, 1], [1, 0], [0, 0], [1, 1], [1, 0]])
    targets = {"intra": (torch.randn(B, 1, 24), weights[:, :1]), "inter": (torch.randn(B, 2, 24), weights)}
    student, raw = objective.forward(networks, views, targets)
    found, entropies = objective.compute_losses(section, networks.centres, student, raw, targets)

    def log_p(crop):
        return (networks.student(crop) / section.student_temperature).log_softmax(-1)

    def q(raw, term):
        return ((raw - networks.centres[term]) / section.teacher_temperature).softmax(-1)

    crops = [*views[0].split(B), *views[1].split(B)]
    teacher = [q(networks.teacher(crop), "self") for crop in crops[:2]]
    pairs = [-(t * log_p(s)).sum(-1).mean() for i, t in enumerate(teacher) for j, s in enumerate(crops) if i != j]
    torch.testing.assert_close(found["self"], sum(pairs) / len(pairs))
    for term, (values, weight) in targets.items():
        wanted = q(networks.teacher.head(values), term)
        entropy = -(wanted * wanted.log()).sum(-1)
        torch.testing.assert_close(entropies[term], entropy[weight > 0].mean())
        each = torch.stack([-(wanted * log_p(crop)[:, None]).sum(-1) for crop in crops]).mean(0)
        per_region = (each * weight).sum(1) / weight.sum(1).clamp(min=1)
        torch.testing.assert_close(found[term], per_region[weight.sum(1) > 0].mean())
    q_self = torch.stack(teacher)
    torch.testing.assert_close(entropies["self"], -(q_self * q_self.log()).sum(-1).mean())


def test_a_step_without_prototypes_has_no_entropy_of_them(section, make_cohort):
    networks = start_networks(section, 8, 1, "cpu")
    views = draw_views(make_cohort(5).tokens, section, np.random.default_rng(0), "cpu")
    found, entropies = objective.compute_losses(
        section, networks.centres, *objective.forward(networks, views, {}), targets={}
    )
    assert found["intra"] == found["inter"] == 0
    assert [term for term, entropy in entropies.items() if entropy.isnan()] == ["intra", "inter"]


def test_the_teachers_head_is_called_once_a_step(section, make_cohort):
    networks, calls = start_networks(section, 8, 1, "cpu"), []
    networks.teacher.head.register_forward_hook(lambda *_: calls.append(1))
    views = draw_views(make_cohort(5).tokens, section, np.random.default_rng(0), "cpu")
    targets = {"intra": (torch.randn(5, 1, 24), torch.ones(5, 1)), "inter": (torch.randn(5, 2, 24), torch.ones(5, 2))}
    objective.forward(networks, views, targets)
    assert len(calls) == 1


def test_centres_move_by_the_prototypes_that_exist(section):
    networks = start_networks(section, 8, 1, "cpu")
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    logits = {"self": torch.randn(4, section.out_dim), "inter": torch.randn(2, 2, section.out_dim)}
    objective.move_centres(networks, logits, {"inter": (torch.randn(2, 2, 24), weights)}, 0.9)
    torch.testing.assert_close(networks.centres["self"], 0.1 * logits["self"].mean(0))
    torch.testing.assert_close(networks.centres["inter"], 0.1 * logits["inter"][0, 0])
    assert (networks.centres["intra"] == 0).all()
