"""Training: the right targets, reproducible, resumable bit for bit, never NaN."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from slpd_core import store
from slpd_core.pretraining import pretrain, region_encoder
from slpd_core.pretraining.checkpoint import Checkpoint
from slpd_core.pretraining.networks import Networks, set_schedules, update


def alone(section):
    return section.model_copy(update={"alpha_intra": 0.0, "alpha_inter": 0.0})


def trained(cohort, section, path, seed=1):
    return pretrain.train(cohort, section, seed, "cpu", Checkpoint(path, {"section": section.model_dump()}))


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_the_teacher_follows_the_student_and_gets_no_gradient(section):
    networks = Networks.start(section, 8, 1, "cpu")
    before = {key: tensor.clone() for key, tensor in networks.teacher.state_dict().items()}
    set_schedules(networks, section, 5, 4, 12)
    update(networks, section, networks.student(torch.randn(6, 3, 3, 8)).pow(2).mean(), 0.9, freeze_last=False)
    student = networks.student.state_dict()
    for key, tensor in networks.teacher.state_dict().items():
        torch.testing.assert_close(tensor, 0.9 * before[key] + 0.1 * student[key], atol=1e-7, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in networks.teacher.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_last_layer_can_be_frozen(section, frozen):
    networks = Networks.start(section, 8, 1, "cpu")
    before = networks.student.head.last_layer.clone()
    set_schedules(networks, section, 5, 4, 12)
    update(networks, section, networks.student(torch.randn(6, 3, 3, 8))[:, 0].mean(), 0.9, frozen)
    assert torch.equal(networks.student.head.last_layer, before) is frozen


def test_gradients_are_clipped_parameter_by_parameter(section):
    networks = Networks.start(section, 8, 1, "cpu")
    set_schedules(networks, section, 5, 4, 12)
    update(networks, section, networks.student(torch.randn(6, 3, 3, 8)).pow(2).sum() * 1e6, 0.9, freeze_last=False)
    norms = [float(parameter.grad.norm()) for parameter in networks.student.parameters()]
    assert max(norms) == pytest.approx(section.clip_norm, rel=1e-3)
    assert math.hypot(*norms) > 1.5 * section.clip_norm


def test_no_decay_on_biases_and_vectors(section):
    networks = Networks.start(section, 8, 1, "cpu")
    values = set_schedules(networks, section, 8, 4, 12)
    decayed, free = networks.optimizer.param_groups
    assert decayed["weight_decay"] == values["weight_decay"] > section.weight_decay
    assert free["weight_decay"] == 0
    assert {parameter.ndim for parameter in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(networks.student.parameters()))


@pytest.mark.parametrize(("regions", "sizes"), [(25, [10, 10]), (20, [10, 10]), (7, [7]), (1, [1])])
def test_batches_cover_the_cohort_once(regions, sizes):
    found = pretrain.batches(regions, 10, np.random.default_rng(0))
    assert [len(batch) for batch in found] == sizes
    rows = np.concatenate(found)
    assert len(set(rows)) == len(rows)


def test_runs_start_from_the_same_weights_and_see_the_same_crops(section, make_cohort):
    a, b = (Networks.start(run, 8, 1, "cpu") for run in (section, alone(section)))
    assert same(a.student.state_dict(), b.student.state_dict())
    assert same(a.student.state_dict(), a.teacher.state_dict())
    assert not same(a.student.state_dict(), Networks.start(section, 8, 2, "cpu").student.state_dict())


def test_training_is_reproducible_and_depends_on_the_seed(section, make_cohort, tmp_path):
    cohort = make_cohort(9, 8, 7)
    one, history = trained(cohort, section, tmp_path / "a.pt")
    two, again = trained(cohort, section, tmp_path / "b.pt")
    other, _ = trained(cohort, section, tmp_path / "c.pt", seed=2)
    assert same(one.teacher.state_dict(), two.teacher.state_dict())
    pd.testing.assert_frame_equal(history, again)
    assert not same(one.teacher.state_dict(), other.teacher.state_dict())


@pytest.mark.parametrize("run", [lambda section: section, alone], ids=["slpd", "dino"])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    section, make_cohort, tmp_path, run, killed_after, monkeypatch
):
    section, cohort = run(section), make_cohort(9, 8, 7)
    whole, history = trained(cohort, section, tmp_path / "whole.pt")
    epochs = []

    def interrupted(*arguments):
        epochs.append(arguments[-1])
        if len(epochs) > killed_after:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    train_epoch = pretrain.train_epoch
    monkeypatch.setattr(pretrain, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(cohort, section, tmp_path / "cut.pt")
    monkeypatch.undo()
    torch.rand(7)
    resumed, rows = trained(cohort, section, tmp_path / "cut.pt")
    assert same(whole.student.state_dict(), resumed.student.state_dict())
    assert same(whole.teacher.state_dict(), resumed.teacher.state_dict())
    assert same(whole.centres, resumed.centres)
    pd.testing.assert_frame_equal(history, rows)


def test_a_checkpoint_of_other_settings_is_set_aside_with_the_difference(
    section, make_cohort, tmp_path, caplog, monkeypatch
):
    cohort = make_cohort(9, 8, 7)
    trained(cohort, section, tmp_path / "a.pt")
    monkeypatch.setattr(pretrain.log, "propagate", True)
    other = section.model_copy(update={"base_lr": 0.01})
    _, history = trained(cohort, other, tmp_path / "a.pt")
    assert len(history) == section.epochs
    assert "of other settings" in caplog.text
    assert "'base_lr': 0.01" in caplog.text


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04 torn"])
def test_a_broken_checkpoint_is_named_with_the_remedy(section, tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken checkpoint .*a\.pt: .*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(Networks.start(section, 8, 1, "cpu"))


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (9,), (1, 9), (2, 2), (3, 0, 4)], ids=["too small", "one slide", "mixed", "least", "empty"]
)
def test_odd_cohorts_train_without_nan(section, make_cohort, tmp_path, sizes):
    section = section.model_copy(update={"n_neighbours": 3, "epochs": 2})
    networks, history = trained(make_cohort(*sizes), section, tmp_path / "a.pt")
    assert np.isfinite(history[["loss", "self", "intra", "inter", "teacher_entropy"]]).all().all()
    assert all(torch.isfinite(tensor).all() for tensor in networks.teacher.state_dict().values())
    if max(sizes) < 2:
        assert (history[["intra", "inter"]] == 0).all().all()


def test_a_loss_that_is_not_finite_stops_with_the_slides(section, make_cohort, tmp_path):
    cohort = make_cohort(9, 8)
    broken = replace(cohort, tokens=cohort.tokens * float("nan"))
    with pytest.raises(RuntimeError, match=r"loss nan in epoch 0, step 0, slides s0, s1 .*pretrain\.base_lr"):
        trained(broken, alone(section), tmp_path / "a.pt")


def test_an_untrained_loss_is_that_of_chance(section, make_cohort, tmp_path):
    _, history = trained(make_cohort(20, 20), section.model_copy(update={"base_lr": 1e-9}), tmp_path / "a.pt")
    assert history["uniform"].iloc[0] == pytest.approx(math.log(section.out_dim))
    assert history["self"].iloc[0] > 0.5 * math.log(section.out_dim)


def test_prototypes_separate_planted_phenotypes(section, make_cohort, tmp_path):
    """Two kinds of region in every slide, told apart by their tokens: the prototypes of a trained run are the kinds."""
    rng = np.random.default_rng(0)
    cohort = make_cohort(*[10] * 8)
    kind = np.tile([0, 1], len(cohort.tokens) // 2)
    kinds = rng.normal(size=(2, 1, 8)) * 1.5
    cohort = replace(cohort, tokens=(cohort.tokens.float() + torch.from_numpy(kinds[kind]).float()).half())
    section = section.model_copy(update={"epochs": 6, "base_lr": 0.02, "batch_size": 20})
    networks, _ = trained(cohort, section, tmp_path / "a.pt")
    embeddings = pretrain.embed_regions(networks.teacher.encoder, cohort.tokens, "cpu")
    found = pretrain.cluster(cohort, embeddings, section, 1, 9)
    pure = [
        max((kind[own] == found.assignment[own]).mean(), (kind[own] != found.assignment[own]).mean())
        for own in (cohort.slide_of == slide for slide in range(8))
    ]
    assert np.mean(pure) > 0.95


@pytest.fixture
def run_stage(on_disk, tmp_path):
    """Run the stage on a cohort written to disk; gives the folder of its outputs."""

    def run(cohort, section, seed=1):
        ledger, tokens = on_disk(cohort)
        out = tmp_path / "out"
        pretrain.run(
            ledger_path=ledger,
            tokens_dir=tokens,
            encoder_path=out / "encoder.safetensors",
            history_path=out / "history.csv",
            prototypes_path=out / "prototypes.h5",
            checkpoint_path=out / "checkpoint.pt",
            section=section,
            seed=seed,
            device="cpu",
        )
        return out

    return run


@pytest.mark.parametrize("run", [lambda section: section, alone], ids=["slpd", "dino"])
def test_the_stage_writes_encoder_history_and_prototypes(run_stage, section, make_cohort, run):
    out = run_stage(make_cohort(9, 8, 0, 7), run(section))
    assert sorted(path.name for path in out.iterdir()) == ["encoder.safetensors", "history.csv", "prototypes.h5"]
    _, meta = region_encoder.load(out / "encoder.safetensors")
    assert (meta["stage"], meta["embed_dim"]) == ("pretrain", "24")
    history = pd.read_csv(out / "history.csv")
    assert len(history) == section.epochs
    assert {"epoch", "loss", "self", "intra", "inter", "uniform", "lr", "teacher_entropy", "effective_rank"} <= set(
        history
    )
    names = ("slide_ids", "prototypes", "neighbours", "matches", "slide_id", "coords", "assignment")
    arrays, _ = store.read_arrays(out / "prototypes.h5", names)
    assert arrays["slide_ids"].tolist() == ["s0", "s1", "s3"]
    assert arrays["slide_id"].tolist() == ["s0"] * 9 + ["s1"] * 8 + ["s3"] * 7
    assert arrays["coords"].shape == (24, 2)
    clustered = run(section).uses_prototypes
    assert arrays["prototypes"].shape == (3 if clustered else 0, 2, 24)
    assert arrays["neighbours"].shape == (len(arrays["prototypes"]), 1)
    assert arrays["matches"].shape == (len(arrays["prototypes"]), 1, 2)
    assert set(arrays["assignment"]) == ({0, 1} if clustered else {-1})


def test_tokens_the_ledger_did_not_admit_are_refused(run_stage, on_disk, section, make_cohort, tmp_path):
    ledger, tokens = on_disk(make_cohort(5, 5))
    (tokens / "s1.h5").write_bytes((tokens / "s0.h5").read_bytes())
    with pytest.raises(ValueError, match=r"s1\.h5: not the tokens the ledger admitted"):
        pretrain.read_cohort(ledger, tokens)
