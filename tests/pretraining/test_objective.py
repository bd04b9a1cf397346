"""The losses and gradients of a batch are the reference's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from slpd_core import config
from slpd_core.pretraining import blocks, objective, reference
from slpd_core.pretraining.crops import CropParams, sample_crops
from slpd_core.pretraining.objective import Batch, SlpdObjective
from slpd_core.ssl.student_teacher import StudentTeacher
from tests.fixtures.pretraining import build_student_teacher, inter_loss_skipping


def views_of(tokens, section):
    everything = np.arange(len(tokens))
    return sample_crops(
        tokens,
        everything,
        everything,
        len(tokens),
        section.extract(CropParams),
        np.random.default_rng(0),
        torch.device("cpu"),
    )


@pytest.fixture
def make_batch(section, make_cohort):
    """Networks, of which the teacher is no copy of the student, and a batch of five regions, one without prototypes.

    In double precision; the inter-slide term has a prototype a neighbor, or fewer.
    """

    def make(section: config.PretrainRunConfig) -> tuple[StudentTeacher, Batch]:
        networks = build_student_teacher(section, 8, 1, "cpu")
        for network in (networks.student, networks.teacher):
            network.double()
        with torch.no_grad():
            for parameter in networks.teacher.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        networks.centers = {term: 0.1 * torch.randn(section.out_dim, dtype=torch.float64) for term in networks.centers}
        views = [view.double() for view in views_of(make_cohort(5).tokens, section)]
        K = section.n_neighbors
        weights = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.float64)[:, :K]
        D = section.bottleneck_dim if section.cluster_space == "bottleneck" else section.embed_dim
        values = torch.randn(5, 1 + K, D, dtype=torch.float64)
        targets = {"intra": (values[:, :1], weights[:, :1]), "inter": (values[:, 1:], weights)}
        return networks, Batch(views, targets)

    return make


VARIANTS = {
    "paper": {"n_neighbors": 2},
    "without L_intra": {"alpha_intra": 0.0, "n_neighbors": 2},
    **{f"released, K = {K}": config.PRESETS["authors_code"] | {"n_neighbors": K} for K in (1, 2, 3)},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", [2, 32])
def test_a_step_has_the_losses_and_gradients_of_the_formula(section, make_batch, variant, block, monkeypatch):
    """Against the reference, to 1e-6; regions in blocks of two, or all at once.

    The released code compares the k-th prototype with all crops but the k-th: of K = 3, the third is a local one.
    """
    monkeypatch.setitem(blocks.BLOCK_REGIONS, "cpu", block)
    changes = {"drop_path": 0.0, "alpha_intra": 0.7, "alpha_inter": 0.3} | VARIANTS[variant]
    section = section.model_copy(update=changes)
    networks, batch = make_batch(section)
    if not section.alpha_intra:
        del batch.targets["intra"]
    centers = {term: center.clone() for term, center in networks.centers.items()}
    found = section.extract(SlpdObjective).backward(networks, batch)
    gradients = {name: parameter.grad for name, parameter in networks.student.named_parameters()}

    crops = [*batch.views[0], *batch.views[1]]
    b = [networks.student(crop) / section.student_temperature for crop in crops]
    with torch.no_grad():
        logits = {"self": torch.stack([networks.teacher(crop) for crop in crops[:2]], 1)}
        for term, (values, _) in batch.targets.items():
            head = networks.teacher.head
            if section.cluster_space == "bottleneck":
                logits[term] = cosine_similarity(values[..., None, :], head.last_layer, dim=-1)
            else:
                logits[term] = head(values)
    exists = {"self": torch.ones(5, 2, dtype=torch.bool)} | {term: w > 0 for term, (_, w) in batch.targets.items()}
    targets, expected = {}, {}
    for term in logits:
        center = "prototypes" if section.shared_center and term != "self" else term
        a = targets[term] = ((logits[term] - centers[center]) / section.teacher_temperature).softmax(-1)
        if term == "self":
            expected[term] = reference.self_loss(a.unbind(1), b).mean()
        else:
            equation = inter_loss_skipping if section.skip_crop_k else reference.inter_loss
            rows = [(q[e], p) for q, p, e in zip(a, torch.stack(b, 1), exists[term], strict=True) if e.any()]
            expected[term] = torch.stack([equation(q, p) for q, p in rows]).mean()
        centers[center] = 0.9 * centers[center] + 0.1 * logits[term][exists[term]].mean(0)
    total = expected["self"] + sum(expected.get(term, 0) * alpha for term, alpha in (("intra", 0.7), ("inter", 0.3)))
    networks.student.zero_grad()
    total.backward()
    for term, loss in (expected | {"loss": total}).items():
        torch.testing.assert_close(found[objective.LOSS_NAMES.get(term, term)], loss, atol=1e-6, rtol=1e-6)
    for term, name in objective.ENTROPIES.items():
        if term in targets:
            entropy = -(targets[term] * targets[term].log()).sum(-1)
            torch.testing.assert_close(found[name], entropy[exists[term]].mean(), atol=1e-6, rtol=1e-6)
    for term, center in networks.centers.items():
        torch.testing.assert_close(center, centers[term], atol=1e-6, rtol=1e-6)
    for name, parameter in networks.student.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: n + m)


def test_a_step_without_prototypes_has_no_entropy_of_them(section, make_batch):
    networks, batch = make_batch(section)
    found = section.extract(SlpdObjective).backward(networks, replace(batch, targets={}))
    assert found["loss_intra"] == found["loss_inter"] == 0
    assert found["loss"] == found["loss_self"] > 0
    assert [name for name in objective.METRICS if found[name].isnan()] == ["entropy_intra", "entropy_inter"]


def test_a_batch_none_of_whose_regions_has_a_prototype(section, make_batch):
    """As of slides that are all too small: no loss and no gradient of the terms, no NaN, and their centers stay."""
    networks, batch = make_batch(section)
    without = {term: (values, 0 * weights) for term, (values, weights) in batch.targets.items()}
    before = {term: center.clone() for term, center in networks.centers.items()}
    found = section.extract(SlpdObjective).backward(networks, replace(batch, targets=without))
    assert found["loss_intra"] == found["loss_inter"] == 0
    assert found["loss"] == found["loss_self"]
    assert all(parameter.grad.isfinite().all() for parameter in networks.student.parameters())
    assert torch.equal(networks.centers["intra"], before["intra"])
    assert not torch.equal(networks.centers["self"], before["self"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_nearly_the_same_gradients(section, make_batch, dtype):
    """Those of float16 are scaled; the update takes the scale out again."""
    section = section.model_copy(update={"drop_path": 0.0})
    networks, batch = make_batch(section)
    for network in (networks.student, networks.teacher):
        network.float()
    networks.centers = {term: center.float() for term, center in networks.centers.items()}
    batch = Batch(
        [view.float() for view in batch.views],
        {term: (values.float(), weights.float()) for term, (values, weights) in batch.targets.items()},
    )
    networks.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=dtype is torch.float16)
    centers, found = networks.centers, []
    for each in (torch.float32, dtype):
        networks.centers = {term: center.clone() for term, center in centers.items()}
        networks.dtype = each
        loss = section.extract(SlpdObjective).backward(networks, batch)["loss"]
        gradient = torch.cat([parameter.grad.flatten() for parameter in networks.student.parameters()])
        found.append((loss, gradient / networks.scaler.get_scale()))
    (exact, gradient), (loss, rounded) = found
    torch.testing.assert_close(loss, exact, atol=0, rtol=1e-2)
    assert (rounded - gradient).norm() < 0.1 * gradient.norm()


def test_koleo_takes_the_batch_as_one_block(section, make_batch, monkeypatch):
    """Nearest neighbors are sought in the batch: with blocks of two there would be other ones."""
    section = section.model_copy(update={"drop_path": 0.0, "koleo_weight": 1.0})
    found = []
    for block in (2, 32):
        monkeypatch.setitem(blocks.BLOCK_REGIONS, "cpu", block)
        torch.manual_seed(0)
        networks, batch = make_batch(section)
        section.extract(SlpdObjective).backward(networks, batch)
        found.append([parameter.grad for parameter in networks.student.parameters()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_blocks_are_halved_for_good_where_memory_is_short(section, make_batch, name, monkeypatch, caplog):
    """Blocks of one from then on; losses, gradients and centers as if they had always been so small.

    The student has done one block of two regions when memory gets short.
    """
    section, found = section.model_copy(update={"drop_path": 0.0}), []
    for block in (1, 4):
        monkeypatch.setitem(blocks.BLOCK_REGIONS, "cpu", block)
        torch.manual_seed(0)
        networks, batch = make_batch(section)
        bottleneck, calls = getattr(networks, name).head.bottleneck, []

        def short(x, bottleneck=bottleneck, calls=calls):
            calls.append(len(x))
            if blocks.BLOCK_REGIONS["cpu"] == 4 or (blocks.BLOCK_REGIONS["cpu"] == 2 and len(calls) > 2):
                raise torch.OutOfMemoryError("short")
            return bottleneck(x)

        monkeypatch.setattr(getattr(networks, name).head, "bottleneck", short)
        losses = section.extract(SlpdObjective).backward(networks, batch)
        gradients = [parameter.grad for parameter in networks.student.parameters()]
        found.append((losses, gradients, networks.centers))
    assert blocks.BLOCK_REGIONS["cpu"] == 1
    assert caplog.messages == [
        f"memory is short for {size} regions at a time: {size // 2} at a time from now on" for size in (4, 2)
    ]
    torch.testing.assert_close(*found, equal_nan=True)


def test_memory_that_is_short_for_one_region_is_an_error(section, make_batch, monkeypatch):
    networks, batch = make_batch(section)

    def short(_):
        raise torch.OutOfMemoryError("short")

    monkeypatch.setitem(blocks.BLOCK_REGIONS, "cpu", 4)
    monkeypatch.setattr(networks.student.head, "bottleneck", short)
    with pytest.raises(torch.OutOfMemoryError):
        section.extract(SlpdObjective).backward(networks, batch)
