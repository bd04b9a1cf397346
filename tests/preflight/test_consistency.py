"""What needs only texts is checked before any work."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from slpd_core import config
from slpd_core.encoders import region_encoder
from slpd_core.encoders.foreign_weights import require_weights_file
from slpd_core.endpoints.kinds import Survival
from slpd_core.preflight import consistency

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((ROOT / "tests" / "workflow" / "tiny.yaml").read_text())


@pytest.fixture
def settings():
    """The tiny settings of the workflow's tests, changes merged over them."""

    def make(run=(), **changes) -> config.Config:
        values = yaml.safe_load((ROOT / "config.yaml").read_text())
        for key, value in [*TINY.items(), *changes.items()]:
            values[key] = values[key] | value if isinstance(value, dict) else value
        values["pretrain"]["runs"] = values["pretrain"]["runs"] | {"slpd": dict(run)}
        return config.load(values)

    return make


SHEET = pd.DataFrame(
    {
        "slide_id": ["a1", "a2", "b1", "b2", "a3"],
        "patient_id": ["p1", "p2", "p3", "p4", "p01"],
        "site": [*"hhiih"],
    }
)
LABELS = {"label": SHEET[["slide_id", "patient_id"]].assign(label=[*"aabba"])}


def refused(settings, *words: str, labels=LABELS) -> None:
    with pytest.raises(ValueError, match=r"\w") as error:
        consistency.require_cohort(settings, SHEET, labels)
    assert all(word in str(error.value) for word in words), error.value


def test_a_cohort_that_fits_its_settings_passes(settings):
    consistency.require_cohort(settings({"n_neighbors": 4}), SHEET, LABELS)


@pytest.mark.parametrize(
    ("run", "what"),
    [
        ({"n_neighbors": 5}, "pretrain.runs.slpd.n_neighbors: 5 of 4 other slides; lower it to 4"),
        ({"init_from": "gone.pth"}, "pretrain.init_from: no file gone.pth"),
        (
            {"init_from": "results/tiny/pretrain/dino/encoder.safetensors", "depth": 2},
            "pretrain.runs.slpd.depth: 2, but it begins with run dino, whose depth is 1; write both alike",
        ),
    ],
)
def test_a_run_that_cannot_be_is_named(settings, run, what):
    refused(settings(run), what)


def test_neighbours_are_counted_where_an_encoder_trains(settings, tmp_path):
    """Of five slides, two or three train in a fold; of imported splits, those that they name."""
    run = {"train_on": "train_fold", "n_neighbors": 1}
    consistency.require_cohort(settings(run), SHEET, LABELS)
    consistency.require_cohort(settings(run | {"n_neighbors": 4, "train_on": "all"}), SHEET, LABELS)
    refused(settings(run | {"n_neighbors": 2}), "slpd.n_neighbors: 2 of 1 other slides that train in a fold; lower")
    (tmp_path / "splits_0.csv").write_text("train,val,test\na1,,a3\nb1,,\na2,,\nb2,,\n")
    splits = {"splits_dir": str(tmp_path)}
    consistency.require_cohort(settings(run | {"n_neighbors": 3}, folds=splits), SHEET, LABELS)
    refused(settings(run | {"n_neighbors": 4}, folds=splits), "n_neighbors: 4 of 3 other slides that train")


def test_a_run_begins_with_an_encoder_of_its_shape(settings, tmp_path):
    encoder = region_encoder.RegionEncoder(token_dim=64, embed_dim=24, depth=1, n_heads=2, grid=3)
    region_encoder.write_region_encoder(tmp_path / "e.safetensors", encoder, {})
    start = {"init_from": str(tmp_path / "e.safetensors")}
    consistency.require_cohort(settings(start), SHEET, LABELS)
    refused(settings(start | {"embed_dim": 48}), "is no region encoder", "'embed_dim': 48")
    consistency.require_cohort(settings({"init_from": "results/tiny/pretrain/dino/encoder.safetensors"}), SHEET, LABELS)


def test_a_batch_is_shared_evenly(settings):
    consistency.require_cohort(settings(), SHEET, LABELS, {"pretrain": 4, "patch_encoder": 3})
    with pytest.raises(ValueError, match=r"pretrain\.runs\.slpd\.batch_size: 16 does not divide among 3 GPUs"):
        consistency.require_cohort(settings(), SHEET, LABELS, {"pretrain": 3})


def test_all_that_cannot_be_is_named_at_once(settings):
    changed = settings({"n_neighbors": 5}, folds={"n_folds": 6, "val_fraction": 0.0})
    refused(changed, "folds.n_folds: 6 folds, but only 5 patients; lower it to 5", "pretrain.runs.slpd.n_neighbors")


def test_sites_are_checked_where_they_are_kept_whole(settings):
    refused(settings(folds={"group_by": "site", "n_folds": 2}), "label 'a' has one site only")


def test_a_cohort_without_labels_has_no_folds_to_check(settings):
    """Its runs are checked all the same."""
    consistency.require_cohort(settings(folds={"n_folds": 6}), SHEET, {})
    refused(settings({"n_neighbors": 5}), "n_neighbors: 5 of 4 other slides; lower it to 4", labels={})


def test_each_task_needs_folds_of_its_own(settings):
    """A task without labels for some slides has fewer patients than the cohort."""
    labels = LABELS | {"grade": LABELS["label"].iloc[:4]}
    changed = settings(folds={"n_folds": 5}, labels={"tasks": {"label": {}, "grade": {}}})
    consistency.require_cohort(changed, SHEET, LABELS)
    refused(changed, "task grade: folds.n_folds: 5 folds, but only 4 patients; lower it to 4", labels=labels)


def test_neighbors_are_counted_in_the_folds_that_a_run_follows(settings):
    """Of three folds: of five slides with a label three or four train, of four with a grade two or three."""
    labels = LABELS | {"grade": LABELS["label"].iloc[:4]}
    tasks = {"labels": {"tasks": {"label": {}, "grade": {}}}, "folds": {"n_folds": 3}}
    run = {"train_on": "train_fold", "n_neighbors": 2}
    consistency.require_cohort(settings(run, **tasks), SHEET, labels)  # of the first task
    consistency.require_cohort(
        settings(run, pretrain=TINY["pretrain"] | {"fold_task": "label"}, **tasks), SHEET, labels
    )
    followed = settings(run, pretrain=TINY["pretrain"] | {"fold_task": "grade"}, **tasks)
    refused(followed, "n_neighbors: 2 of 1 other slides", labels=labels)


def test_validation_slides_that_choose_must_be_in_each_fold(settings, tmp_path):
    choose = {"evaluate": TINY["evaluate"] | {"select": "val"}}
    ids = [f"{label}{i}" for label in "ab" for i in range(4)]
    sheet = pd.DataFrame({"slide_id": ids, "patient_id": ids, "site": "h"})
    labels = {"label": sheet.assign(label=[name[0] for name in ids])}
    drawn = settings(folds={"n_folds": 2, "val_fraction": 0.5}, **choose)
    consistency.require_cohort(drawn, sheet, labels)
    refused(drawn, "evaluate.select: val, but fold 1 has no validation slides; raise folds.val_fraction")
    (tmp_path / "splits_0.csv").write_text("train,val,test\na1,b2,a3\nb1,,\na2,,\n")
    (tmp_path / "splits_1.csv").write_text("train,val,test\na1,,a3\nb1,,\n")
    imported = {"folds": {"splits_dir": str(tmp_path)}}
    refused(settings(**imported, **choose), "fold 1 has no validation slides; add them to the splits")
    means = {"evaluate": choose["evaluate"] | {"classifiers": {"patch_tokens": ["knn"], "slpd": ["logreg"]}}}
    consistency.require_cohort(settings(**imported, **means), SHEET, LABELS)


def test_what_is_in_doubt_is_said(tmp_path):
    (tmp_path / "splits_0.csv").write_text("train,val,test\na1,,a3\nb1,,other\n")
    doubts = consistency.find_cohort_doubts(SHEET, LABELS, [tmp_path / "splits_0.csv"])
    assert doubts[0] == "patient_id: 'p1', 'p01' look alike; if they are one, write them alike"
    assert "folds.splits_dir: in the splits, not in the sheet: 1 (other)" in doubts
    assert "folds.splits_dir: in no split: 2 (a2, b2)" in doubts
    grades = LABELS["label"].assign(label=["G 1", "G 1", "G-1", "G-1", "G 1"])
    assert consistency.find_cohort_doubts(SHEET, LABELS | {"grade": grades}) == [
        doubts[0],
        "task grade: label: 'G 1', 'G-1' look alike; if they are one, write them alike",
    ]


def legacy(path: Path) -> None:
    torch.save({"a": torch.zeros(9)}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [lambda path: torch.save({"a": torch.zeros(9)}, path), legacy])
def test_weights_are_taken_for_weights(tmp_path, write):
    write(tmp_path / "a.pth")
    require_weights_file(tmp_path / "a.pth", "patch_encoder.weights")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.bin", b"\n<!DOCTYPE html>", "a web page"),
        ("a.pth", b"PK\3\4 and no end", "the beginning of a file of weights"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a whole safetensors file"),
        ("a.pth", b"", "no file of torch.save or safetensors"),
    ],
)
def test_what_is_no_weights_is_named_before_any_work(settings, tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    own = {"source": "hipt", "weights": str(tmp_path / name)}
    encoder = settings().patch_encoder.model_dump(exclude={"compared"}) | own
    refused(settings(patch_encoder=encoder), f"patch_encoder.weights: {tmp_path / name} is {what}")


def test_slides_of_a_patient_that_differ_in_the_truth_are_no_bag(settings):
    sheet = SHEET.assign(patient_id=["p1", "p2", "p3", "p1", "p01"])
    labels = {"label": sheet[["slide_id", "patient_id"]].assign(label=[*"aabba"])}
    consistency.require_cohort(settings(), sheet, labels)
    with pytest.raises(ValueError, match=r"task label: evaluate\.bags: patient makes one bag .* those of p1 differ"):
        consistency.require_cohort(settings(evaluate={"bags": "patient"}), sheet, labels)


def test_a_fold_without_an_event_is_found_before_any_work(settings):
    truth = pd.DataFrame({"time": [1.0, 2, 3, 4, 5], "event": [True, False, False, False, False]})
    labels = {"os": SHEET[["slide_id", "patient_id"]].assign(label=Survival().group(truth)).join(truth)}
    os = {"labels": {"tasks": {"os": {"kind": "survival", "time": "t", "event": "e"}}}, "folds": {"n_folds": 3}}
    with pytest.raises(ValueError, match=r"task os: fold \d: its training slides have no event; lower folds\.n_folds"):
        consistency.require_cohort(settings(**os), SHEET, labels, endpoints={"os": Survival()})
    labels["os"]["event"] = True
    consistency.require_cohort(settings(**os), SHEET, labels, endpoints={"os": Survival()})
