"""A batch's targets and losses agree with the formulas written out crop by crop."""

import numpy as np
import torch

from slpd_core.pretraining import objective
from slpd_core.pretraining.crops import draw_views
from slpd_core.pretraining.networks import start_networks
from slpd_core.pretraining.prototypes import Prototypes


def views_of(tokens, section):
    everything = np.arange(len(tokens))
    return draw_views(tokens, torch.from_numpy(everything), everything, len(tokens), section, np.random.default_rng(0))


def test_targets_are_the_own_prototype_and_its_partners(section):
    centres = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    found = Prototypes(
        centres,
        assignment=np.array([0, 1, -1, 1]),
        neighbours=np.array([[2, -1], [-1, -1], [0, 1]]),
        matches=np.array([[[1, 0], [-1, -1]], [[-1, -1], [-1, -1]], [[0, 1], [1, 0]]]),
    )
    slide_of = np.array([0, 0, 1, 2])
    clustered = np.zeros((4, 4), np.float32)
    targets = objective.find_targets(found, clustered, slide_of, section, "cpu").of(torch.tensor([3, 0, 2, 1]))
    values, weights = targets["intra"]
    np.testing.assert_array_equal(weights[:, 0], [1, 1, 0, 1])
    np.testing.assert_array_equal(values[[0, 1, 3], 0], [centres[2, 1], centres[0, 0], centres[0, 1]])
    values, weights = targets["inter"]
    np.testing.assert_array_equal(weights, [[1, 1], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(values[0], [centres[0, 1], centres[1, 0]])
    np.testing.assert_array_equal(values[[1, 3], 0], [centres[2, 1], centres[2, 0]])


def test_a_region_may_be_distilled_towards_the_nearest_region_of_each_neighbour(section):
    rng = np.random.default_rng(0)
    slide_of, clustered = np.array([0, 0, 1, 1, 1, 2]), rng.normal(size=(6, 4)).astype(np.float32)
    neighbours = np.array([[1, 2], [2, -1], [-1, -1]])
    none = Prototypes(np.zeros((3, 2, 4), np.float32), np.zeros(6, np.int64), neighbours, np.full((3, 2, 2), -1))
    section = section.model_copy(update={"inter": "region", "alpha_intra": 0.0})
    targets = objective.find_targets(none, clustered, slide_of, section, "cpu").of(torch.arange(6))
    assert list(targets) == ["inter"]
    values, weights = targets["inter"]
    np.testing.assert_array_equal(weights, [[1, 1], [1, 1], [1, 0], [1, 0], [1, 0], [0, 0]])
    for region in (0, 1):
        cosine = [a @ clustered[region] / np.linalg.norm(a) for a in clustered[2:5]]
        np.testing.assert_array_equal(values[region], [clustered[2 + np.argmax(cosine)], clustered[5]])
    np.testing.assert_array_equal(values[2:5, 0], clustered[[5] * 3])


def test_a_step_has_the_losses_of_the_formula(section, make_cohort):
    """forward and compute_losses against the same losses taken crop by crop from the networks."""
    section = section.model_copy(update={"drop_path": 0.0, "n_neighbours": 2})
    networks = start_networks(section, 8, 1, "cpu")
    networks.centres = {term: torch.randn(section.out_dim) * 0.1 for term in networks.centres}
    B = 5
    views = views_of(make_cohort(B).tokens, section)
    weights = torch.tensor([[1.0, 1], [1, 0], [0, 0], [1, 1], [1, 0]])
    targets = {"intra": (torch.randn(B, 1, 24), weights[:, :1]), "inter": (torch.randn(B, 2, 24), weights)}
    _, student, raw = objective.forward(networks, views, targets, in_bottleneck=False)
    centres = dict(networks.centres)
    found, entropies = objective.compute_losses(section, networks, student, raw, targets)

    def log_p(crop):
        return (networks.student(crop) / section.student_temperature).log_softmax(-1)

    def q(raw, term):
        return ((raw - centres[term]) / section.teacher_temperature).softmax(-1)

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
    views = views_of(make_cohort(5).tokens, section)
    _, student, raw = objective.forward(networks, views, {}, in_bottleneck=False)
    found, entropies = objective.compute_losses(section, networks, student, raw, {})
    assert found["intra"] == found["inter"] == 0
    assert [term for term, entropy in entropies.items() if entropy.isnan()] == ["intra", "inter"]


def test_the_teachers_last_layer_is_used_once_a_step(section, make_cohort, monkeypatch):
    networks, calls = start_networks(section, 8, 1, "cpu"), []
    outputs = networks.teacher.head.outputs
    monkeypatch.setattr(networks.teacher.head, "outputs", lambda x: calls.append(1) or outputs(x))
    targets = {"intra": (torch.randn(5, 1, 24), torch.ones(5, 1)), "inter": (torch.randn(5, 2, 24), torch.ones(5, 2))}
    objective.forward(networks, views_of(make_cohort(5).tokens, section), targets, in_bottleneck=False)
    assert len(calls) == 1


def test_centres_move_by_the_prototypes_that_exist(section):
    networks = start_networks(section, 8, 1, "cpu")
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    raw = {"self": torch.randn(4, section.out_dim), "inter": torch.randn(2, 2, section.out_dim)}
    targets = {"inter": (torch.randn(2, 2, 24), weights)}
    objective.compute_losses(section, networks, torch.randn(10, section.out_dim), raw, targets)
    torch.testing.assert_close(networks.centres["self"], 0.1 * raw["self"].mean(0))
    torch.testing.assert_close(networks.centres["inter"], 0.1 * raw["inter"][0, 0])
    assert (networks.centres["intra"] == 0).all()
