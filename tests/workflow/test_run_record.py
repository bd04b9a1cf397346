"""The record of a run: what differs from config.yaml, the commit, and when it is written."""

import json
import os
import subprocess

import pytest

from slpd_core import config
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.workflow.run_record import find_commit, list_changes, write_run_record
from tests.workflow.planted_settings import load_settings


@pytest.fixture
def paths(tmp_path):
    """A cohort with a page."""
    paths = CohortPaths(tmp_path)
    paths.page().parent.mkdir()
    paths.page().write_text("<html>")
    return paths


def test_changes_are_named_by_key_with_both_values():
    default = {"a": {"b": 1, "c": [1, 2]}, "runs": {}, "same": 3, "gone": 4}
    here = {"a": {"b": 2, "c": [1, 2]}, "runs": {"slpd": {"M": 2}}, "same": 3}
    found = [*list_changes(here, default)]
    assert found == [("a.b", 2, 1), ("gone", None, 4), ("runs", {"slpd": {"M": 2}}, {})]
    assert not [*list_changes(default, default)]


def test_the_record_has_the_command_and_the_changes_alone(paths, tmp_path):
    settings = load_settings(pretrain={"n_prototypes": 7, "base_lr": 0.5})
    write_run_record(paths, settings, tmp_path, command=["snakemake", "--configfile", "my file.yaml"])
    record = json.loads(paths.run_record().read_text())
    assert record["command"] == "snakemake --configfile 'my file.yaml'"
    assert (record["commit"], record["code_changed"]) == (None, None)
    changed = record["changed_settings"]
    default = config.default_config()
    assert changed["pretrain.n_prototypes"] == {"here": 7, "paper": default.pretrain.n_prototypes}
    assert changed["folds.n_folds"] == {"here": 2, "paper": default.folds.n_folds}
    assert changed["pretrain.base_lr"]["here"] == 0.5
    assert {key.split(".")[0] for key in changed} == {"folds", "pretrain"}


def test_the_record_is_that_of_the_run_that_made_the_page(paths, tmp_path):
    settings = load_settings()
    write_run_record(paths, settings, tmp_path, command=["first"])
    write_run_record(paths, settings, tmp_path, command=["second"])
    assert json.loads(paths.run_record().read_text())["command"] == "first"
    later = paths.run_record().stat().st_mtime_ns + 10**9
    os.utime(paths.page(), ns=(later, later))
    write_run_record(paths, settings, tmp_path, command=["third"])
    assert json.loads(paths.run_record().read_text())["command"] == "third"


def test_beside_a_page_with_pseudonyms_it_names_no_slide_file_or_folder(paths, tmp_path):
    changes = {"report": {"pseudonyms": True}, "search": {"slides": ["Doe"]}, "predict": {"sheet": "/data/Doe.csv"}}
    settings = load_settings(**changes, pretrain={"init_from": "/data/Doe.pth", "matching": "nearest"})
    write_run_record(paths, settings, tmp_path, command=["snakemake", "/data/Doe.csv"])
    text = paths.run_record().read_text()
    assert "Doe" not in text
    assert "data" not in text
    record = json.loads(text)
    assert not {"command", "folder"} & record.keys()
    assert record["changed_settings"]["pretrain.matching"] == {"here": "nearest", "paper": "optimal"}


def test_without_a_page_nothing_is_written(tmp_path):
    write_run_record(CohortPaths(tmp_path), load_settings(), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_commit_and_changes_since(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert find_commit(tmp_path) == (head, False)
    (tmp_path / "untracked").write_text("1")
    assert find_commit(tmp_path) == (head, False)
    (tmp_path / "file").write_text("2")
    assert find_commit(tmp_path) == (head, True)
