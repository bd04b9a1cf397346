"""A checkpoint that is broken, of another kind or of other settings is named with the remedy, never overwritten."""

import pytest
import torch

from slpd_core import store
from slpd_core.pretraining import checkpoint as module
from slpd_core.pretraining.checkpoint import Checkpoint
from slpd_core.pretraining.networks import Networks
from slpd_core.pretraining.prototypes import Prototypes


@pytest.fixture
def networks(section):
    return Networks.start(section, 8, 1, "cpu")


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(module.log, "propagate", True)
    return caplog


def made_by(section, **changes):
    """The flat form `pretrain.run` gives."""
    return section.model_dump() | {"seed": 1, "tokens": "f", "version": 3} | changes


def test_what_is_saved_comes_back(section, networks, tmp_path):
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 2, 24, generator=rng).numpy()
    found = Prototypes(centres, *(torch.arange(4).view(shape).numpy() for shape in ((4,), (2, 2), (2, 1, 2))))
    networks.centres["self"] += 1
    Checkpoint(tmp_path / "a.pt", made_by(section)).save(networks, [{"epoch": 0.0}], found)
    other = Networks.start(section, 8, 2, "cpu")
    history, back = Checkpoint(tmp_path / "a.pt", made_by(section)).restore(other)
    assert history == [{"epoch": 0.0}]
    assert all((getattr(back, name) == getattr(found, name)).all() for name in vars(found))
    assert all(
        torch.equal(a, b) for a, b in zip(other.student.parameters(), networks.student.parameters(), strict=True)
    )
    assert torch.equal(other.centres["self"], networks.centres["self"])


def test_a_checkpoint_of_other_settings_is_set_aside_with_the_difference(section, networks, tmp_path, warnings):
    path, old = tmp_path / "checkpoint.pt", made_by(section, temperature=7)
    Checkpoint(path, old).save(networks, [{"epoch": 0.0}], None)
    content = path.read_bytes()
    now = made_by(section, base_lr=0.01, seed=2, patience=None)
    assert Checkpoint(path, now).restore(networks) == ([], None)
    expected = "base_lr 0.0005 -> 0.01, patience absent -> None, seed 1 -> 2, temperature 7 -> absent"
    assert f"of other settings ({expected})" in warnings.text
    (aside,) = tmp_path.iterdir()
    assert aside.name == f"checkpoint.{store.fingerprint(Checkpoint(path, old).made_by)[:8]}.pt"
    assert aside.name in warnings.text
    assert aside.read_bytes() == content


def test_two_checkpoints_of_other_settings_do_not_meet(section, networks, tmp_path):
    path = tmp_path / "checkpoint.pt"
    for seed in (1, 2, 3):
        Checkpoint(path, made_by(section, seed=seed)).restore(networks)
        Checkpoint(path, made_by(section, seed=seed)).save(networks, [], None)
    assert len([*tmp_path.iterdir()]) == 3


@pytest.mark.parametrize("state", [{}, {"made_by": "{}", "history": []}, [1, 2], torch.zeros(2)], ids=str)
def test_a_file_of_another_kind_is_named_with_the_remedy(networks, tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: no checkpoint of a pretraining run, .*'networks'.*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)


def test_other_networks_under_the_same_settings_are_named_with_the_remedy(section, networks, tmp_path):
    larger = Networks.start(section.model_copy(update={"depth": 3}), 8, 1, "cpu")
    Checkpoint(tmp_path / "a.pt", {}).save(larger, [], None)
    with pytest.raises(ValueError, match=r"a\.pt: networks or prototypes are not a run's .*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04 torn"])
def test_a_broken_checkpoint_is_named_with_the_remedy(networks, tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken checkpoint .*a\.pt: .*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)
