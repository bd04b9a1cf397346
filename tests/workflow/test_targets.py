"""What the rules make by planted settings, without Snakemake."""

import re
from pathlib import Path
from types import SimpleNamespace as Wildcards

import pytest
import yaml

from slpd_core import config
from slpd_core.workflow.encoders import Encoders, name_pattern
from slpd_core.workflow.rows import Rows

ROOT = Path(__file__).parents[2]
RESULTS = "results/cohort"


def rows_of(cohort=("a", "b"), new=(), **sections) -> Rows:
    """The rows and encoders of config.yaml with two folds and these keys of its sections."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, keys in ({"folds": {"n_folds": 2}} | sections).items():
        values[section] |= keys
    settings = config.load(values)
    return Rows(settings, Encoders(settings, cohort), new)


@pytest.fixture
def compared() -> Rows:
    """A run per fold beside one of all slides, and a patch encoder to compare with."""
    return rows_of(
        pretrain={"runs": {"all": {}, "each": {"train_on": "train_fold", "init_from": "mine.safetensors"}}},
        patch_encoder={"compared": {"uni": {"source": "random", "pooling": "cls_mean"}}},
        evaluate={"classifiers": {"mean_color": ["knn"], "uni": ["knn"], "all": ["vit_wsi"], "each": ["mil"]}},
    )


def test_a_run_has_one_encoder_or_one_per_fold(compared):
    assert compared.encoders.of_run == {"all": ["all"], "each": ["each.fold0", "each.fold1"]}
    assert compared.encoders.names == ["all", "each.fold0", "each.fold1"]
    assert compared.encoders.reported == ["all", "each.fold0"]
    assert compared.encoders.fold(Wildcards(region_encoder="each.fold1")) == 1
    assert compared.encoders.folds_table(Wildcards(region_encoder="each.fold1")) == f"{RESULTS}/folds/folds.parquet"
    assert compared.encoders.folds_table(Wildcards(region_encoder="all")) == []
    assert compared.encoders.init_from_path(Wildcards(region_encoder="each.fold1")) == ["mine.safetensors"]
    assert compared.encoders.init_from_path(Wildcards(region_encoder="all")) == []
    assert compared.encoders.pretrain_section(Wildcards(region_encoder="each.fold0"))["train_on"] == "train_fold"


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
    assert compared.models(row) == [f"{RESULTS}/evaluate/{features}/mil/fold{fold}.safetensors" for fold in (0, 1)]


def test_a_fold_that_begins_as_another_is_not_it():
    many = rows_of(folds={"n_folds": 12}, pretrain={"runs": {"slpd": {"train_on": "train_fold"}, "dino": {}}})
    assert many.embed_table(Wildcards(features="slpd", fold="11")) == f"{RESULTS}/embed/slpd.fold11.parquet"
    pattern = name_pattern(many.encoders.names)
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
    plain = rows_of(pretrain={"runs": {}}, evaluate={"classifiers": {"patch_tokens": ["knn"]}})
    assert [*plain.figures] == ["roc", "predictions"]
    assert plain.all_heatmaps() == plain.encoders.galleries == []


def test_only_runs_with_prototypes_have_a_gallery():
    assert rows_of().encoders.galleries == [f"{RESULTS}/gallery/slpd.png"]


def test_a_patch_encoder_trained_here_needs_every_slides_patches():
    own, other = Wildcards(), Wildcards(encoder="plain")
    here = rows_of(patch_encoder={"source": "dino", "compared": {"plain": {"source": "random"}}})
    assert here.encoders.sampled_patches(own) == [f"{RESULTS}/patches/{slide}.h5" for slide in "ab"]
    assert here.encoders.patch_encoder_recipe(own)["epochs"] == 100
    assert here.encoders.patch_history(own) == f"{RESULTS}/patch_encoder/history.parquet"
    assert here.encoders.sampled_patches(other) == []
    assert here.encoders.patch_encoder_recipe(other) is None
    assert here.encoders.patch_encoder_section(other)["source"] == "random"
    assert "patch_encoder" in here.figures
    assert rows_of().encoders.sampled_patches(own) == rows_of().encoders.patch_history(own) == []


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
    own = rows_of(
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
        rows_of().joined_tables(Wildcards())
    table = {"cohorts": ["cohort", "done", "pending"], "rows": ["slpd/mil"]}
    joined = rows_of(report={"tables": {"all": table}})
    done = Path("results/done/report/table.parquet")
    done.parent.mkdir(parents=True)
    done.touch()
    assert joined.joined_tables(Wildcards()) == [f"{RESULTS}/report/table.parquet", str(done)]
    assert [*joined.result_tables] == ["cohort", "done", "pending"]
