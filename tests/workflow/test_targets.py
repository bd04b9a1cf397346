"""What the rules make by planted settings, without Snakemake."""

import re
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest
import yaml

from slpd_core import config
from slpd_core.workflow.targets import Targets, name_pattern

ROOT = Path(__file__).parents[2]
RESULTS = "results/cohort"


def targets(cohort=("a", "b"), new=(), **sections) -> Targets:
    """The targets of config.yaml with two folds and these keys of its sections."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, keys in ({"folds": {"n_folds": 2}} | sections).items():
        values[section] |= keys
    return Targets(config.load(values), cohort, new)


@pytest.fixture
def compared() -> Targets:
    """A run per fold beside one of all slides, and a patch encoder to compare with."""
    return targets(
        pretrain={"runs": {"all": {}, "each": {"train_on": "train_fold", "init_from": "mine.safetensors"}}},
        patch_encoder={"compared": {"uni": {"source": "random", "pooling": "cls_mean"}}},
        evaluate={"classifiers": {"mean_color": ["knn"], "uni": ["knn"], "all": ["vit_wsi"], "each": ["mil"]}},
    )


def test_a_run_has_one_encoder_or_one_per_fold(compared):
    assert compared.region_encoders == {"all": ["all"], "each": ["each.fold0", "each.fold1"]}
    assert compared.all_region_encoders == ["all", "each.fold0", "each.fold1"]
    assert compared.report_encoders == ["all", "each.fold0"]
    assert compared.run_fold(Wildcards(run="each.fold1")) == 1
    assert compared.run_folds(Wildcards(run="each.fold1")) == f"{RESULTS}/folds/folds.parquet"
    assert compared.run_folds(Wildcards(run="all")) == []
    assert compared.init_from_path(Wildcards(run="each.fold1")) == ["mine.safetensors"]
    assert compared.init_from_path(Wildcards(run="all")) == []
    assert compared.run_section(Wildcards(run="each.fold0"))["train_on"] == "train_fold"


@pytest.mark.parametrize(
    ("features", "embed", "ledger"),
    [
        ("each", f"{RESULTS}/embed/each.fold1.parquet", "ledger"),
        ("all", f"{RESULTS}/embed/all.parquet", "ledger"),
        ("mean_color", [], "ledger"),
        ("uni", [], "compared/uni"),
    ],
)
def test_a_row_is_made_from_the_encoder_that_has_not_seen_its_test_slides(compared, features, embed, ledger):
    row = Wildcards(features=features, classifier="mil", fold="1")
    assert compared.embed_table(row) == embed
    assert compared.tokens_ledger(row) == f"{RESULTS}/{ledger}/ledger.parquet"
    assert compared.tokens_dir(row) == f"{RESULTS}/{ledger.removesuffix('ledger')}/tokens".replace("//", "/")
    assert compared.row_models(row) == [f"{RESULTS}/evaluate/{features}/mil/fold{fold}.safetensors" for fold in (0, 1)]


def test_a_fold_that_begins_as_another_is_not_it():
    many = targets(folds={"n_folds": 12}, pretrain={"runs": {"slpd": {"train_on": "train_fold"}, "dino": {}}})
    assert many.embed_table(Wildcards(features="slpd", fold="11")) == f"{RESULTS}/embed/slpd.fold11.parquet"
    pattern = name_pattern(many.all_region_encoders)
    assert re.fullmatch(pattern, "slpd.fold1")
    assert not re.fullmatch(pattern, "slpd-fold1")  # the dot is a dot
    assert not re.fullmatch(pattern, "slpd.fold12")


def test_no_names_match_nothing():
    assert not re.search(name_pattern([]), "")


def test_the_report_joins_every_row_and_fold_and_shows_what_there_is(compared):
    assert len(compared.all_predictions()) == 4 * 2
    assert compared.all_predictions()[3] == f"{RESULTS}/evaluate/uni/knn/fold1.parquet"
    assert compared.all_heatmaps() == [f"{RESULTS}/heatmaps/all/vit_wsi.jpg"]
    assert [*compared.figures] == ["roc", "predictions", "training", "tsne"]
    plain = targets(pretrain={"runs": {}}, evaluate={"classifiers": {"patch_tokens": ["knn"]}})
    assert [*plain.figures] == ["roc", "predictions"]
    assert plain.all_heatmaps() == plain.galleries == []


def test_only_runs_with_prototypes_have_a_gallery():
    assert targets().galleries == [f"{RESULTS}/gallery/slpd.png"]


def test_a_patch_encoder_trained_here_needs_every_slides_patches():
    own, other = Wildcards(), Wildcards(encoder="plain")
    here = targets(patch_encoder={"source": "dino", "compared": {"plain": {"source": "random"}}})
    assert here.sampled_patches(own) == [f"{RESULTS}/patches/{slide}.h5" for slide in "ab"]
    assert here.patch_encoder_recipe(own)["epochs"] == 100
    assert here.patch_history(own) == f"{RESULTS}/patch_encoder/history.parquet"
    assert here.sampled_patches(other) == []
    assert here.patch_encoder_recipe(other) is None
    assert here.patch_encoder_section(other)["source"] == "random"
    assert "patch_encoder" in here.figures
    assert targets().sampled_patches(own) == targets().patch_history(own) == []


def test_new_slides_are_predicted_by_all_folds_from_each_folds_embeddings(compared):
    with pytest.raises(ValueError, match=r"predict\.sheet: no slides to predict"):
        compared.prediction_inputs(Wildcards())
    compared.new_slides = ["n"]
    inputs = compared.prediction_inputs(Wildcards())
    assert inputs == [
        *[f"{RESULTS}/evaluate/all/vit_wsi/fold{fold}.safetensors" for fold in (0, 1)],
        f"{RESULTS}/predict/embed/all.parquet",
        f"{RESULTS}/predict/ledger.parquet",
        *[f"{RESULTS}/evaluate/each/mil/fold{fold}.safetensors" for fold in (0, 1)],
        *[f"{RESULTS}/predict/embed/each.fold{fold}.parquet" for fold in (0, 1)],
    ]


def test_new_slides_of_a_compared_encoder_have_a_ledger_of_their_own():
    rows = {"uni": ["knn"]}
    own = targets(
        patch_encoder={"compared": {"uni": {"pooling": "cls_mean"}}},
        evaluate={"classifiers": rows},
        predict={"classifiers": rows},
    )
    (row,) = own.prediction_rows()
    assert row["embeds"] == []
    assert row["ledger"] == f"{RESULTS}/predict/compared/uni/ledger.parquet"
    assert row["tokens"] == f"{RESULTS}/compared/uni/tokens"


def test_tables_join_this_cohort_and_others_that_are_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"report\.tables: none is named"):
        targets().joined_tables(Wildcards())
    table = {"cohorts": ["cohort", "done", "pending"], "rows": ["slpd/mil"]}
    joined = targets(report={"tables": {"all": table}})
    done = Path("results/done/report/table.parquet")
    done.parent.mkdir(parents=True)
    done.touch()
    assert joined.joined_tables(Wildcards()) == [f"{RESULTS}/report/table.parquet", str(done)]
    assert [*joined.result_tables] == ["cohort", "done", "pending"]
