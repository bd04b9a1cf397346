"""A checkpoint that is broken, of another kind or of other settings is named with the remedy, never overwritten."""

import errno
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch

from slpd_core import artifacts
from slpd_core.artifacts.reading import NamedFile
from slpd_core.ssl.checkpoint import Checkpoint


@pytest.fixture
def networks(start):
    return start(1)


@pytest.fixture
def warnings(caplog):
    return caplog


def run_config(recipe, **changes):
    """The flat form `pretrain.run` gives."""
    return asdict(recipe) | {"seed": 1, "tokens": "f", "version": 3} | changes


def test_what_is_saved_comes_back(recipe, networks, start, tmp_path):
    more = {"begun": {"row": {"epoch": 1.0}, "rows": torch.tensor([-1, 4])}, "nothing": None}
    networks.centers["self"] += 1
    Checkpoint(tmp_path / "a.pt", run_config(recipe)).save(networks, [{"epoch": 0.0}], more)
    other = start(2)
    history, back = Checkpoint(tmp_path / "a.pt", run_config(recipe)).restore(other, [*more])
    assert history == [{"epoch": 0.0}]
    assert str(back) == str(more)
    assert all(
        torch.equal(a, b) for a, b in zip(other.student.parameters(), networks.student.parameters(), strict=True)
    )
    assert torch.equal(other.centers["self"], networks.centers["self"])


@pytest.mark.parametrize("enabled", [(True, False), (False, True), (True, True)])
def test_a_run_goes_on_where_another_precision_is_chosen(recipe, start, tmp_path, enabled):
    """As `auto` chooses on another GPU: a scale of losses is taken up where both have one."""
    saved, other = start(1), start(2)
    saved.scaler, other.scaler = (torch.amp.GradScaler("cpu", init_scale=8.0 * on, enabled=on) for on in enabled)
    other.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=enabled[1])
    Checkpoint(tmp_path / "a.pt", {}).save(saved, [{"epoch": 0.0}], {})
    assert Checkpoint(tmp_path / "a.pt", {}).restore(other)[0] == [{"epoch": 0.0}]
    assert other.scaler.get_scale() == (8.0 if all(enabled) else 2.0 if enabled[1] else 1.0)


def test_what_a_run_needs_is_missed(recipe, networks, tmp_path):
    Checkpoint(tmp_path / "a.pt", {}).save(networks, [], {"centers": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"a\.pt: not the state of this run .*rows.*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks, ["centers", "rows"])


def test_a_checkpoint_of_other_settings_is_set_aside_with_the_difference(recipe, networks, tmp_path, warnings):
    path, old = tmp_path / "checkpoint.pt", run_config(recipe, temperature=7)
    Checkpoint(path, old).save(networks, [{"epoch": 0.0}], {})
    content = path.read_bytes()
    now = run_config(recipe, base_lr=0.01, seed=2, patience=None)
    assert Checkpoint(path, now).restore(networks) == ([], {})
    expected = "base_lr 0.0005 -> 0.01, patience absent -> None, seed 1 -> 2, temperature 7 -> absent"
    assert f"of other settings ({expected})" in warnings.text
    (aside,) = tmp_path.iterdir()
    assert aside.name == f"checkpoint.{artifacts.fingerprint(Checkpoint(path, old).run_config)[:8]}.pt"
    assert aside.name in warnings.text
    assert aside.read_bytes() == content


def test_two_checkpoints_of_other_settings_do_not_meet(recipe, networks, tmp_path):
    path = tmp_path / "checkpoint.pt"
    for seed in (1, 2, 3):
        Checkpoint(path, run_config(recipe, seed=seed)).restore(networks)
        Checkpoint(path, run_config(recipe, seed=seed)).save(networks, [], {})
    assert len([*tmp_path.iterdir()]) == 3


@pytest.mark.parametrize("state", [{}, {"run_config": "{}", "history": []}, [1, 2], torch.zeros(2)], ids=str)
def test_a_file_of_another_kind_is_named_with_the_remedy(networks, tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: no checkpoint of a training run: .*'networks'.*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)


def test_other_networks_under_the_same_settings_are_named_with_the_remedy(recipe, start, networks, tmp_path):
    larger = start(1, width=30)
    Checkpoint(tmp_path / "a.pt", {}).save(larger, [], {})
    with pytest.raises(ValueError, match=r"a\.pt: not the state of this run .*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04 torn"])
def test_a_broken_checkpoint_is_named_with_the_remedy(networks, tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken checkpoint .*a\.pt: .*delete it"):
        Checkpoint(tmp_path / "a.pt", {}).restore(networks)


def test_a_flipped_bit_of_a_checkpoint_is_named_or_changes_nothing(tmp_path):
    state = {"run_config": "{}", "history": [{"epoch": 0.0}], "extra_state": {}, "networks": {"a": torch.arange(500.0)}}
    path, rng = tmp_path / "a.pt", np.random.default_rng(0)
    torch.save(state, path)
    whole, named = path.read_bytes(), 0
    for bit in rng.integers(0, 8 * len(whole), 200).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            back = artifacts.read_torch(path)
        except ValueError as error:
            named += str(path) in str(error)
        else:  # what no reader looks at, as dates in the archive
            assert torch.equal(back["networks"].pop("a"), state["networks"]["a"])
            assert str(back) == str(state | {"networks": {}})
            named += 1
    assert named == 200


def test_a_share_that_goes_away_is_no_broken_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    monkeypatch.setattr(NamedFile, "readinto", fail)
    for zipped in (True, False):  # a file as torch writes it now, and as it did until 2020
        torch.save({"a": torch.zeros(50_000)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(OSError, match="Stale file handle; the file itself may be whole"):
            artifacts.read_torch(path)


def fail(file, _):
    """Read from a share that is gone."""
    with file._naming():
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_checkpoint_of_an_earlier_version_is_archived(recipe, networks, tmp_path, warnings):
    """Its settings have other names, so that it cannot be resumed; hours of training are kept."""
    path = tmp_path / "a.pt"
    torch.save({"made_by": '{"centre_momentum": 0.9}', "history": [], "more": {}, "networks": {}}, path)
    assert Checkpoint(path, run_config(recipe)).restore(networks) == ([], {})
    assert "is of other settings" in warnings.text
    assert [other.name for other in tmp_path.iterdir()] != ["a.pt"]
    assert not path.exists()
