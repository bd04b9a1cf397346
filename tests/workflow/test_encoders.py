"""The encoders that the rules train by planted settings, without Snakemake."""

import re
from types import SimpleNamespace as Wildcards

import pytest

from slpd_core.workflow.encoders import Encoders, name_pattern
from tests.workflow.planted_settings import load_settings

RESULTS = "results/cohort"
PATCHES = {"classifiers": {"patch_tokens": ["knn"]}}
PER_FOLD = {"each": {"train_on": "train_fold", "init_from": "mine.safetensors"}}


@pytest.fixture
def encoders():
    """The encoders of config.yaml with these keys of its sections."""

    def make(cohort=("a", "b"), tasks=(), **sections) -> Encoders:
        return Encoders(load_settings(**sections), cohort, tasks)

    return make


def test_a_run_has_one_encoder_or_one_per_fold(encoders):
    made = encoders(tasks=["label"], pretrain={"runs": {"all": {}} | PER_FOLD}, evaluate=PATCHES)
    first, of_fold = Wildcards(region_encoder="all"), Wildcards(region_encoder="each.fold1")
    assert made.of_run == {"all": ["all"], "each": ["each.fold0", "each.fold1"]}
    assert made.names == ["all", "each.fold0", "each.fold1"]
    assert made.reported == ["all", "each.fold0"]
    assert (made.fold(of_fold), made.fold(first)) == (1, None)
    assert made.folds_table(of_fold) == f"{RESULTS}/folds/label/folds.parquet"
    assert made.folds_table(first) == []
    assert made.init_from_path(of_fold) == ["mine.safetensors"]
    assert made.init_from_path(first) == []
    assert made.pretrain_section(of_fold)["train_on"] == "train_fold"


def test_runs_follow_the_folds_of_the_first_task_or_of_the_one_that_is_named(encoders):
    labels = {"tasks": {"subtype": {}, "grade": {}}}
    sections = []
    for named, followed in ((None, "subtype"), ("grade", "grade")):
        pretrain = {"runs": {"all": {}, "each": {"train_on": "train_fold"}}, "fold_task": named}
        made = encoders(tasks=["subtype", "grade"], labels=labels, pretrain=pretrain, evaluate=PATCHES)
        assert made.fold_task == {"all": "", "each": followed}
        of_fold = Wildcards(region_encoder="each.fold0")
        assert made.folds_table(of_fold) == f"{RESULTS}/folds/{followed}/folds.parquet"
        sections.append([made.pretrain_section(Wildcards(region_encoder=name)) for name in made.names])
    assert sections[0] == sections[1], "naming the task retrains no run on all slides"


def test_a_run_on_the_slides_of_folds_needs_a_task(encoders):
    settings = {"pretrain": {"runs": PER_FOLD}, "evaluate": PATCHES}
    assert encoders(tasks=["label"], **settings).names == ["each.fold0", "each.fold1"]
    with pytest.raises(ValueError, match=r"pretrain\.runs\.each\.train_on: train_fold follows .* no slide has a label"):
        encoders(**settings)


def test_a_run_on_all_slides_needs_no_task(encoders):
    assert encoders().names == ["dino", "slpd"]


def test_names_match_as_a_whole_and_no_names_match_nothing(encoders):
    made = encoders(
        tasks=["label"],
        folds={"n_folds": 12},
        pretrain={"runs": {"slpd": {"train_on": "train_fold"}, "dino": {}}},
    )
    assert len(made.names) == 13
    pattern = name_pattern(made.names)
    assert re.fullmatch(pattern, "slpd.fold1")
    assert not re.fullmatch(pattern, "slpd-fold1")  # the dot is a dot
    assert not re.fullmatch(pattern, "slpd.fold12")
    assert not re.search(name_pattern([]), "")


def test_only_runs_with_prototypes_have_a_gallery(encoders):
    assert encoders().galleries == [f"{RESULTS}/gallery/slpd.png"]


def test_a_patch_encoder_trained_here_needs_every_slides_patches(encoders):
    own, other = Wildcards(), Wildcards(encoder="plain")
    here = encoders(patch_encoder={"source": "dino", "compared": {"plain": {"source": "random"}}})
    assert here.sampled_patches(own) == [f"{RESULTS}/patches/{slide}.h5" for slide in "ab"]
    assert here.patch_encoder_recipe(own)["epochs"] == 100
    assert here.patch_history(own) == f"{RESULTS}/patch_encoder/history.parquet"
    assert here.sampled_patches(other) == []
    assert here.patch_encoder_recipe(other) is None
    assert here.patch_encoder_section(other)["source"] == "random"
    assert encoders().sampled_patches(own) == encoders().patch_history(own) == []
